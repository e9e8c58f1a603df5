"""A route to a user's server leads to that user's own process, from its first request to its last.

The hub chooses a free port for a server on this machine, and the server takes it seconds later. Until then any account
can. So can any account once the server has ended, unless the hub holds its port (held_port.py); JupyterHub notices that
half a minute later, when it polls. Whoever is there gets what the user's browser sends, and answers with the hub's
origin.
"""

import asyncio
import os
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from jupyterhub_traefik_proxy.fileprovider import TraefikFileProviderProxy

from barehub.held_port import HoldsPort
from barehub.listeners import Listener, Ports, listeners, listening, user_id

LOOK = 0.5  # seconds between two looks at who listens

checking: ContextVar[bool] = ContextVar("checking", default=False)  # in check_routes


@dataclass(frozen=True)
class Place:
    """Where a user's server listens, and the ids of the accounts that it may run as; none if that cannot be known."""

    host: str
    port: int
    owners: frozenset[int]

    @classmethod
    def of(cls, spawner: Any) -> "Place":
        where = urlsplit(spawner.server.host)
        return cls(where.hostname or "", where.port or 80, owners_of(spawner))

    def there(self, ports: Ports) -> list[Listener]:
        return list(listeners(self.host, self.port, ports)) if self.owners else []

    def impostor(self, ports: Ports) -> str | None:
        """Return the account that listens in the place of the server; None if nobody does."""
        return next((one.account for one in self.there(ports) if one.uid not in self.owners), None)

    def is_own(self, ports: Ports) -> bool:
        """Return True if the server listens, and nobody else."""
        return bool(self.there(ports)) and not self.impostor(ports)


def owners_of(spawner: Any) -> frozenset[int]:
    """Return the ids of the accounts that a server may run as; none if it is elsewhere, or that cannot be known."""
    kinds = {kind.__name__ for kind in type(spawner).__mro__}
    if not kinds & {"LocalProcessSpawner", "SystemdSpawner"} or getattr(spawner, "dynamic_users", False):
        return frozenset()
    name = getattr(spawner, "username_template", "{USERNAME}").replace("{USERNAME}", spawner.user.name)
    user = user_id(name)
    # None: an account that only its own class knows
    return frozenset() if user is None else frozenset({0, os.geteuid(), user})


class OwnServers(TraefikFileProviderProxy):  # type: ignore[misc]  # it ships no types
    """A proxy that watches who listens in the place of users' servers on this machine."""

    def __init__(self, **traits: Any) -> None:
        self._watched: dict[Any, Place] = {}  # by spawner
        self._watching: asyncio.Task[None] | None = None
        self._freeing: set[asyncio.Task[None]] = set()
        super().__init__(**traits)

    async def add_user(self, user: Any, server_name: str = "") -> None:
        """Add a user's server. Raises PermissionError if another account listens in its place."""
        spawner = user.spawners[server_name]
        place = Place.of(spawner)
        if isinstance(spawner, HoldsPort) and place.is_own(listening()):
            spawner.keep_port()  # before anybody is sent there
        ports = listening()
        if account := place.impostor(ports):
            what = f"{account} listens in the place of {user.name}'s server"
            if not checking.get():
                raise PermissionError(what)
            self.log.error(what)  # the hub starts all the same
            return
        await super().add_user(user, server_name)
        self._watch(spawner, ports)

    async def delete_user(self, user: Any, server_name: str = "") -> None:
        """Delete a user's server; its port is free when no route leads there any more."""
        spawner = user.spawners[server_name]
        await super().delete_user(user, server_name)
        if isinstance(spawner, HoldsPort):
            self._freeing.add(task := asyncio.create_task(self._free_port(spawner)))
            task.add_done_callback(self._freeing.discard)

    async def _free_port(self, spawner: HoldsPort) -> None:
        await self.settle()
        spawner.free_port()

    async def settle(self) -> None:
        """Return when the routes are as they have been written, or traefik does not answer."""

    async def check_routes(self, user_dict: Any, service_dict: Any, routes: Any = None) -> None:
        """Let the routes be those of the servers that run, and watch these from now on."""
        before = checking.set(True)
        try:
            await super().check_routes(user_dict, service_dict, routes)
        finally:
            checking.reset(before)
        ports = listening()
        for user in user_dict.values():
            for spawner in user.spawners.values():
                if spawner.ready:
                    self._watch(spawner, ports)

    def _watch(self, spawner: Any, ports: Ports) -> None:
        place = Place.of(spawner)
        if not place.is_own(ports):
            return  # what cannot be seen now, as on another machine, cannot be seen to end
        self._watched[spawner] = place
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._look_again())

    async def _look_again(self) -> None:
        while self._watched:
            await asyncio.sleep(LOOK)
            try:
                missing = await asyncio.to_thread(gone, dict(self._watched))
            except OSError as error:  # too many open files, for example
                self.log.warning("Cannot see who listens in the place of users' servers: %s", error)
                continue
            for spawner in missing:
                try:
                    await self._cut_off(spawner)
                except Exception:
                    self.log.exception("Cannot delete the route of %s", spawner.user.name)
                    self._watched.pop(spawner, None)  # JupyterHub still polls it

    async def _cut_off(self, spawner: Any) -> None:
        """Delete the route to a server that has ended, as JupyterHub does when it polls; or to one that is ending."""
        if not spawner.ready:  # the hub knows: it stops the server, or has done so
            self._watched.pop(spawner, None)
        elif await spawner.poll_and_notify() is None and await self.get_route(spawner.proxy_spec):
            self.log.warning("The server of %s does not listen at %s any more", spawner.user.name, spawner.server.host)
            await self.delete_user(spawner.user, spawner.name)


def gone(watched: dict[Any, Place]) -> list[Any]:
    """Return the spawners whose servers do not listen any more, or not alone.

    The kernel gives its table in pieces, so a line can be missing if others go in between: whoever is not there is
    looked for again.
    """
    for _ in range(2):
        ports = listening()
        watched = {spawner: place for spawner, place in watched.items() if not place.is_own(ports)}
        if not watched:
            break
    return list(watched)
