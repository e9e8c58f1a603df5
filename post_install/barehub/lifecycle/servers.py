"""The users' servers as the hub knows them, asked through its REST API as the service `barehub`.

The hub is asked before an upgrade and after it: nobody's server may be cut off while it starts, or be forgotten.
"""

import importlib.metadata
import json
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from barehub import accounts
from barehub.errors import HOOK, UserError
from barehub.health import ask
from barehub.layout import Layout
from barehub.process import write_atomically
from barehub.rules import read_routes

SERVICE = {"name": "barehub"}
# Nothing can be changed with it.
ROLE = {"name": "barehub", "services": ["barehub"], "scopes": ["list:users", "read:users:name", "read:servers"]}
PAGE = 200
LISTEN_TIMEOUT = 2.0  # seconds


def ensure_token(layout: Layout, uid: int, gid: int) -> None:
    """Have the token with which the hub is asked; it is the hub's and root's alone."""
    if not layout.api_token.is_file():
        write_atomically(layout.api_token, secrets.token_hex(32), 0o600)
    accounts.give(layout.api_token, uid, gid)


def introduce(layout: Layout, config: Any) -> None:
    """Make the service known to a hub, in its configuration; nothing where its token cannot be read."""
    try:
        token = layout.api_token.read_text()
    except OSError:  # before the installer has made it, or for another account's `barehub status`
        return
    config.JupyterHub.services.append(SERVICE | {"api_token": token})
    config.JupyterHub.load_roles.append(ROLE)


class ForgottenError(UserError):
    """A hub that has lost sight of users' servers."""


@dataclass(frozen=True)
class Api:
    """The REST API of the hub (https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html) at `url`."""

    url: str
    token: str

    def get(self, path: str) -> Any:
        """The parsed answer, or None if there is none or it is a refusal."""
        headers = {
            "Authorization": f"token {self.token}",
            "Accept": "application/jupyterhub-pagination+json",
        }
        status, body = ask(self.url + path, headers)
        return json.loads(body) if status == HTTPStatus.OK else None

    def version(self) -> str | None:
        """JupyterHub's version, as the running hub reports it."""
        return (self.get("") or {}).get("version")

    def servers(self) -> list["Server"] | None:
        """All servers that run, start or stop; None if the hub cannot be asked."""
        found: list[Server] = []
        offset = 0
        while True:
            page = self.get(f"users?state=active&limit={PAGE}&offset={offset}")
            if page is None:
                return None
            for user in page["items"]:
                found += [Server.of(model) for model in user.get("servers", {}).values() if not model.get("stopped")]
            if not page["_pagination"]["next"]:
                return found
            offset = page["_pagination"]["next"]["offset"]


@dataclass(frozen=True)
class Server:
    """A user's server: `user/` or `user/name`, its path, and how it is."""

    name: str
    path: str
    ready: bool
    starting: bool
    target: str = ""  # where its route leads to

    @classmethod
    def of(cls, model: dict[str, Any]) -> "Server":
        return cls(
            name=unquote(model["url"]).rstrip("/").rpartition("/user/")[2],
            path=unquote(urlsplit(model["url"]).path),
            ready=model["ready"],
            starting=model["pending"] == "spawn",
        )


def wait_for_starting(layout: Layout, api: Api, seconds: float, say: Callable[[str], None]) -> list[Server] | None:
    """Wait until no server is just starting, for `seconds` at most; return those that run then.

    Names those that are waited for, and those that are still starting in the end: the hub's stop may cut that off.
    Returns None if the hub does not run or does not answer us.
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
            say(f"waiting for servers that are just starting, for {seconds:.0f} s at most: {', '.join(starting)}")
        time.sleep(0.5)
    if starting:
        say(f"still starting, which the hub's restart may cut off: {', '.join(starting)}")
    targets = {
        f"/{unquote(route['routespec']).partition('/')[2]}": route["target"]
        for route in read_routes(layout.rules_file).values()
    }
    return [replace(server, target=targets.get(server.path, "")) for server in servers if server.ready]


def listens(target: str) -> bool:
    """True if somebody accepts connections where a route leads to."""
    parts = urlsplit(target)
    try:
        with socket.create_connection((parts.hostname, parts.port or 80), LISTEN_TIMEOUT):
            return True
    except OSError:
        return False


def wait_until_known(api: Api, servers: list[Server], *, seconds: float, say: Callable[[str], None]) -> None:
    """Return when the hub that has just started reports its own version and knows `servers`, which ran before.

    One that ended in the meantime is named and no longer waited for. Raises ForgottenError for one that runs.
    """
    version = importlib.metadata.version("jupyterhub")
    look = "see in the hub's journal why, then run this again"
    deadline = time.monotonic() + seconds
    missing = {server.path: server for server in servers}
    while (reported := api.version()) != version or missing:
        for server in api.servers() or []:
            if server.ready:
                missing.pop(server.path, None)
        for server in [one for one in missing.values() if not listens(one.target)]:
            say(f"the server of {server.name} has ended in the meantime")
            del missing[server.path]
        if time.monotonic() > deadline:
            if reported != version:
                raise UserError(f"the hub reports version {reported}, not {version}", look, HOOK)
            names = ", ".join(server.name for server in missing.values())
            raise ForgottenError(f"the hub does not know the running servers of {names} any more", look, HOOK)
        time.sleep(0.2)
