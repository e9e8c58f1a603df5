"""For spawners whose servers run on this machine: a server is started from a release, by its real path.

It keeps that release, wherever a link leads later, and the hub knows which.
"""

from contextlib import suppress
from typing import Any

from barehub.environments import STATE, Found, inside, offered_by, started_from
from barehub.in_use import note
from barehub.offering import look


class RunsFromRelease:
    """What such a spawner keeps in its state."""

    runs_from: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed: the environment, as the state has it
    cmd: Any
    log: Any
    user: Any

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()  # type: ignore[misc]  # JupyterHub's Spawner has it
        state |= {STATE: self.runs_from} if self.runs_from else {}
        note(self, state)
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)  # type: ignore[misc]
        self.runs_from = state.get(STATE, {})
        note(self, state)

    def clear_state(self) -> None:
        super().clear_state()  # type: ignore[misc]
        self.runs_from = {}

    async def find_release(self, environment: str, user: str) -> Found:
        """Look where an environment leads to, as its user sees it; raises KeyError if there is no such account."""
        found = (await look([environment], user))[environment]
        self.runs_from = started_from(found.real or environment, found.jupyterhub)
        self.log.info("%s: its server starts from %s", self.user.name, self.runs_from["prefix"])
        return found


class StartsFromRelease(RunsFromRelease):
    """A spawner of one environment, that of its command PREFIX/bin/NAME. Any other command is left as it is."""

    async def start(self) -> Any:
        site = self.cmd
        for prefix in offered_by(self).values():
            with suppress(KeyError):  # JupyterHub says itself that there is no such account
                await self.find_release(prefix, self.user.name)
                self.cmd, _ = inside(self.runs_from["prefix"], prefix, site, [])
        try:
            return await super().start()  # type: ignore[misc]
        finally:
            self.cmd = site
