"""The default spawner: JupyterHub's own, which knows its processes again."""

from pathlib import Path
from typing import Any

from jupyterhub.spawner import LocalProcessSpawner

from barehub.from_release import StartsFromRelease
from barehub.listeners import fields_of

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class KnownProcessSpawner(StartsFromRelease, LocalProcessSpawner):  # type: ignore[misc]  # JupyterHub ships no types
    """JupyterHub remembers the number of a server's process alone.

    Once the server has ended while the hub was down, or the machine has booted again, the number may be any other
    process's. JupyterHub takes that for the server, and ends it when it does not answer: as root, whosever it is.
    """

    pid: int

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
