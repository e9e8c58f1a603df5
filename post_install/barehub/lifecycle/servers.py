"""The users' servers as the hub knows them, through its REST API, as its service `barehub`.

The hub is asked before and after an upgrade: no server may be cut off while it starts, and none forgotten.
"""

import importlib.metadata
import json
import re
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from barehub import accounts, untrusted
from barehub.environments import version_in
from barehub.errors import Exit, UserError, printable
from barehub.health import ask
from barehub.layout import Layout
from barehub.listeners import Owner
from barehub.process import write_atomically
from barehub.rules import read_routes
from barehub.untrusted import UntrustedError

SERVICE = {"name": "barehub"}
# It can read, and change nothing. A server's state is what its spawner keeps; see SURVIVES_RESTART.
SCOPES = ["list:users", "read:users:name", "read:servers", "admin:server_state"]
ROLE = {"name": "barehub", "services": ["barehub"], "scopes": SCOPES}
# A spawner that sets this in its state goes on, after a restart of the hub, with a server that was starting.
SURVIVES_RESTART = "survives_restart"
TOKEN = re.compile("[0-9a-f]{64}")
PAGE = 200
LISTEN_TIMEOUT = 2.0  # seconds


def ensure_token(layout: Layout, uid: int, gid: int) -> None:
    """Create the token for the hub's API if there is no valid one. Only the hub's account and root can read it."""
    if not read_token(layout):
        untrusted.make_way(layout.api_token)
        write_atomically(layout.api_token, secrets.token_hex(32), 0o600)
    accounts.chown_file(layout.api_token, uid, gid)


def read_token(layout: Layout) -> str:
    """Return the token for the hub's API; empty if there is none that could be.

    Root sends it to the hub, in whose directory it is: so nothing else that root can read may pass for one.
    """
    try:
        token = untrusted.read_text(layout.api_token, (layout.hub_state.stat().st_uid,))
    except (OSError, UntrustedError):
        return ""
    return token if TOKEN.fullmatch(token) else ""


def register_service(layout: Layout, config: Any) -> None:
    """Add the service to a hub's configuration; do nothing if its token cannot be read."""
    token = read_token(layout)
    if not token:  # before the installer has written it, or in `barehub status` by another account
        return
    config.JupyterHub.services.append(SERVICE | {"api_token": token})
    config.JupyterHub.load_roles.append(ROLE)


class ForgottenError(UserError):
    """The hub has lost sight of users' servers."""


@dataclass(frozen=True)
class Api:
    """The REST API of the hub (https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html) at `url`.

    The token is sent only if it is the hub, its `owner`, that listens there.
    """

    url: str
    token: str
    owner: Owner

    def get(self, path: str) -> Any:
        """Return the parsed answer; None if there is none, or a refusal."""
        headers = {
            "Authorization": f"token {self.token}",
            "Accept": "application/jupyterhub-pagination+json",
        }
        status, body = ask(self.url + path, self.owner, headers)
        try:
            found = json.loads(body) if status == HTTPStatus.OK else None
        except (ValueError, RecursionError):  # another service of the same account's
            return None
        return found if isinstance(found, dict) else None

    def version(self) -> str | None:
        """Return JupyterHub's version, as the running hub reports it."""
        version = (self.get("") or {}).get("version")
        return str(version) if version else None

    def servers(self) -> list["Server"] | None:
        """Return all servers that run, start or stop; None if the hub does not answer."""
        found: list[Server] = []
        offset = 0
        while True:
            page = self.get(f"users?state=active&limit={PAGE}&offset={offset}")
            if page is None or not {"items", "_pagination"} <= page.keys():
                return None
            for user in page["items"]:
                found += [Server.of(model) for model in user.get("servers", {}).values() if not model.get("stopped")]
            if not page["_pagination"]["next"]:
                return found
            offset = page["_pagination"]["next"]["offset"]


@dataclass(frozen=True)
class Server:
    """A user's server: its name, `user` or `user/name`, its path, and its state."""

    name: str
    path: str
    ready: bool
    starting: bool  # and cut off by a restart of the hub
    target: str = ""  # of its route
    jupyterhub: str = ""  # the version that it runs, if its spawner knows

    @classmethod
    def of(cls, model: dict[str, Any]) -> "Server":
        """Derive it from the API's model of a server."""
        state = model.get("state") or {}
        return cls(
            name=printable(unquote(model["url"]).rstrip("/").rpartition("/user/")[2], keep=""),
            path=unquote(urlsplit(model["url"]).path),
            ready=model["ready"],
            starting=model["pending"] == "spawn" and not state.get(SURVIVES_RESTART),
            jupyterhub=version_in(state),
        )


def wait_for_starting(layout: Layout, api: Api, seconds: float, say: Callable[[str], None]) -> list[Server] | None:
    """Wait until no server is starting that a restart would cut off, at most `seconds`; return those that run then.

    Lists those it waits for, and those that are still starting afterwards: stopping the hub may cut them off.
    Returns None if the hub does not run or does not answer.
    """
    deadline = time.monotonic() + seconds
    waited_for: list[str] = []
    while True:
        servers = api.servers()
        if servers is None:
            return None
        starting = [server.name for server in servers if server.starting]
        if not starting or time.monotonic() > deadline:
            break
        if starting != waited_for:
            waited_for = starting
            say(f"waiting for servers that are still starting, at most {seconds:.0f} s: {', '.join(starting)}")
        time.sleep(0.5)
    if starting:
        say(f"still starting, and the hub's restart may cut them off: {', '.join(starting)}")
    try:
        routes = read_routes(layout.rules_file)
    except UntrustedError as error:
        say(f"warning: {error}")
        routes = {}
    targets = {f"/{unquote(route['routespec']).partition('/')[2]}": route["target"] for route in routes.values()}
    return [replace(server, target=targets.get(server.path, "")) for server in servers if server.ready]


def listens(target: str) -> bool:
    """Return True if the target of a route accepts connections."""
    parts = urlsplit(target)
    try:
        with socket.create_connection((parts.hostname, parts.port or 80), LISTEN_TIMEOUT):
            return True
    except OSError:
        return False


def wait_until_known(api: Api, servers: list[Server], *, seconds: float, say: Callable[[str], None]) -> None:
    """Return when the hub that was just started reports its own version and knows `servers`, which ran before.

    A server that has ended meanwhile is reported and no longer waited for. Raises UserError if the hub reports another
    version, ForgottenError if it does not know a server that runs.
    """
    version = importlib.metadata.version("jupyterhub")
    fix = "find the reason in the hub's journal, then run this again"
    deadline = time.monotonic() + seconds
    missing = {server.path: server for server in servers}
    while (reported := api.version()) != version or missing:
        for server in api.servers() or []:
            if server.ready:
                missing.pop(server.path, None)
        for server in [one for one in missing.values() if not listens(one.target)]:
            say(f"the server of {server.name} has ended meanwhile")
            del missing[server.path]
        if time.monotonic() > deadline:
            if reported != version:
                raise UserError(f"the hub reports version {reported}, not {version}", fix, Exit.HOOK)
            names = ", ".join(server.name for server in missing.values())
            raise ForgottenError(f"the hub does not know the running servers of {names} any more", fix, Exit.HOOK)
        time.sleep(0.2)
