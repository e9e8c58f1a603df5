"""A user's server as small as it can be: JupyterHub's own check of who comes, and a greeting."""

import asyncio
import os
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from tornado.web import Application, RequestHandler, authenticated

PREFIX = os.environ["JUPYTERHUB_SERVICE_PREFIX"]


class Greeting(HubOAuthenticated, RequestHandler):  # type: ignore[misc]
    @authenticated
    def get(self) -> None:
        self.write(f"Hello {self.get_current_user()['name']}")


async def main() -> None:
    handlers = [(f"{PREFIX}oauth_callback", HubOAuthCallbackHandler), (".*", Greeting)]
    server = Application(handlers, cookie_secret=os.urandom(32))
    server.listen(urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).port, "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
