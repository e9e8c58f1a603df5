"""How much time the job of a server has left, for JupyterLab in that server (lab.js).

    GET /hub/api/users/NAME/slurm-left/SERVER   ->   {"seconds": 840}

null without a limit. It is what squeue has shown last, so it costs slurmctld nothing. The token that JupyterLab's page
has may ask: it is that of whoever is in the server.
"""

from http import HTTPStatus
from math import inf

from jupyterhub.apihandlers import APIHandler, default_handlers
from jupyterhub.scopes import needs_scope
from tornado.web import HTTPError

PATH = r"/api/users/([^/]+)/slurm-left/([^/]*)"


class LeftHandler(APIHandler):  # type: ignore[misc]  # JupyterHub ships no types
    @needs_scope("access:servers")  # type: ignore[untyped-decorator]
    def get(self, user_name: str, server_name: str) -> None:
        user = self.find_user(user_name)
        spawner = user.spawners.get(server_name) if user else None
        summary = getattr(spawner, "summary", None)
        if summary is None:
            raise HTTPError(HTTPStatus.NOT_FOUND, "Slurm has not shown the job yet, or it has ended")
        self.finish({"seconds": None if summary.left == inf else max(0, round(summary.left * 60))})


def add_handler() -> None:
    default_handlers[:] = [entry for entry in default_handlers if entry[0] != PATH] + [(PATH, LeftHandler)]
