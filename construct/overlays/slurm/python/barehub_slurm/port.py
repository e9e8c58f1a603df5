"""What a job tells the hub, with its own token: its server's port, with the environment that it runs from, and its end.

The URL is batchspawner's: batchspawner-singleuser reports there, and the jobs of older releases, which outlive an
upgrade. batchspawner's own handler, which is there if a site has added that package, is replaced: it sets any attribute
of the spawner that it is sent, so that a user could run commands as the hub's account.

    POST /hub/api/batchspawner?environment=PREFIX&jupyterhub=VERSION   Authorization: token TOKEN   {"port": 43210}
    DELETE /hub/api/batchspawner                                       Authorization: token TOKEN

The environment is in the query, which releases from before, to which `barehub rollback` may go, ignore. It is what the
job says: an upgrade shows it, and nothing else depends on it.
"""

import json
from http import HTTPStatus
from typing import Any

from barehub.environments import VERSION, started_from
from jupyterhub.apihandlers import APIHandler, default_handlers
from tornado.web import HTTPError

PATH = r"/api/batchspawner"
PORTS = range(1024, 65536)
PATH_MAX = 4096  # linux/limits.h


class PortHandler(APIHandler):  # type: ignore[misc]  # JupyterHub ships no types
    def spawner(self) -> Any:
        """Return the spawner of the job that asks. Raises HTTPError if that is no job of the hub's."""
        token = self.get_token()  # from the Authorization header; a browser's cookie does not count
        if token is None or token.user is None:
            raise HTTPError(HTTPStatus.FORBIDDEN, "this needs the token of a job")
        spawners = self.users[token.user].spawners.values()
        spawner = next((one for one in spawners if getattr(one, "token_id", None) == token.id), None)
        if spawner is None:
            raise HTTPError(HTTPStatus.FORBIDDEN, "this is not the token of a job that the hub waits for")
        return spawner

    def post(self) -> None:
        spawner = self.spawner()
        port = reported(self.request.body)
        environment = [self.get_query_argument(name, "") for name in ("environment", "jupyterhub")]
        if not spawner.take_port(port, from_report(*environment)):
            raise HTTPError(HTTPStatus.CONFLICT, "the port of this job is known already")
        self.set_status(HTTPStatus.CREATED)
        self.finish({"message": "thank you"})

    async def delete(self) -> None:
        """The job holds its port until this is answered, so that no route leads to whoever takes it then."""
        await self.spawner().leave_port()
        self.set_status(HTTPStatus.NO_CONTENT)


def reported(body: bytes) -> int:
    """Return the port in a report. Raises HTTPError for anything but an object with this one key."""
    try:
        match json.loads(body) if len(body) < 100 else None:
            case {"port": int(port), **rest} if not rest and type(port) is int and port in PORTS:
                return port
    except ValueError:
        pass
    raise HTTPError(HTTPStatus.BAD_REQUEST, f'this takes {{"port": N}}, {PORTS[0]} to {PORTS[-1]}, and nothing else')


def from_report(prefix: str, jupyterhub: str) -> dict[str, str]:
    """Return what a job reports of its environment; nothing for what cannot be a prefix or a version."""
    plausible = prefix.startswith("/") and prefix.isprintable() and len(prefix) < PATH_MAX
    return started_from(prefix if plausible else "", jupyterhub if VERSION.fullmatch(jupyterhub) else "")


def replace_handler() -> None:
    """Make JupyterHub serve this handler instead of batchspawner's."""
    default_handlers[:] = [entry for entry in default_handlers if entry[0] != PATH] + [(PATH, PortHandler)]
