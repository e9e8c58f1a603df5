"""The default spawner: JupyterHub's own, which knows its processes again, and what they run from."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from jupyterhub.spawner import LocalProcessSpawner

from barehub.environments import inside, offered_by
from barehub.listeners import fields_of
from barehub.offering import RunsFromRelease

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class KnownProcessSpawner(RunsFromRelease, LocalProcessSpawner):  # type: ignore[misc]  # JupyterHub ships no types
    """JupyterHub remembers the number of a server's process alone.

    Once the server has ended while the hub was down, or the machine has booted again, the number may be any other
    process's. JupyterHub takes that for the server, and ends it when it does not answer: as root, whosever it is.
    """

    pid: int

    async def start(self) -> Any:
        site = self.cmd
        for prefix in offered_by(self).values():
            with suppress(KeyError):  # JupyterHub says itself that there is no such account
                await self.find_release(prefix, self.user.name)
                self.cmd, _ = inside(self.runs_from["prefix"], prefix, site, [])
        try:
            return await super().start()
        finally:
            self.cmd = site

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        return state | ({"started": started(self.pid)} if self.pid else {})

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        if self.pid and state.get("started", started(self.pid)) != started(self.pid):
            self.pid = 0


def started(pid: int) -> str:
    """Return when a process was started: in which boot, and at which of its clock's ticks; empty if it has ended."""
    try:
        return f"{BOOT_ID.read_text().strip()} {fields_of(pid)[19]}"  # starttime
    except OSError:
        return ""
