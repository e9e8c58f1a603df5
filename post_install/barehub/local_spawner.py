"""The default spawner: JupyterHub's own, which knows its processes again, and keeps them from starving the hub."""

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jupyterhub.spawner import LocalProcessSpawner

from barehub.errors import printable
from barehub.from_release import StartsFromRelease
from barehub.held_port import HoldsPort
from barehub.listeners import fields_of

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CGROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
JOURNAL = "/run/systemd/journal/stdout"
OOM_SCORE = 200  # of servers: what counts as a fifth of the machine's memory more than the hub (proc(5))
SHARE = 4  # accounts that together may have as many tasks as the hub's unit may


class KnownProcessSpawner(StartsFromRelease, HoldsPort, LocalProcessSpawner):  # type: ignore[misc]  # JupyterHub ships no types
    """JupyterHub remembers the number of a server's process alone.

    Once the server has ended while the hub was down, or the machine has booted again, the number may be any other
    process's. JupyterHub takes that for the server, and ends it when it does not answer: as root, whosever it is.
    """

    pid: int
    popen_kwargs: Any

    async def start(self) -> tuple[str, int]:
        """As JupyterHub does; what the server prints has its user's name in the journal, not the hub's."""
        site = self.popen_kwargs
        with journal(f"{self.user.name}'s server") as stream:
            ours = {"preexec_fn": limited(self.make_preexec_fn(self.user.name), most_tasks())}
            self.popen_kwargs = ours | ({"stdout": stream, "stderr": stream} if stream else {}) | site
            try:
                address: tuple[str, int] = await super().start()
            finally:
                self.popen_kwargs = site
        return address

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


def limited(become_user: Callable[[], None], tasks: int) -> Callable[[], None]:
    """Return what a server's process does first, while it is still root's: its user can undo neither limit."""

    def prepare() -> None:
        come_first()
        limit_tasks(tasks)
        become_user()

    return prepare


def come_first() -> None:
    """Let this process be ended before the hub where the machine has no memory left."""
    path = Path("/proc/self/oom_score_adj")
    with suppress(OSError):
        path.write_text(str(max(OOM_SCORE, int(path.read_text()))))


def limit_tasks(most: int) -> None:
    """Let the account of this process have at most so many tasks: the hub has to start other users' servers, too."""
    if most:
        soft, hard = (most if one < 0 else min(one, most) for one in resource.getrlimit(resource.RLIMIT_NPROC))
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))


def most_tasks() -> int:
    """Return how many tasks (processes and threads) of this process's unit one account may have; 0 without a limit."""
    with suppress(OSError, ValueError):
        for line in OWN_GROUPS.read_text().splitlines():  # cgroups(7): ID:CONTROLLERS:PATH
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "pids"):
                with suppress(FileNotFoundError):
                    return int((CGROUPS / controllers / path.lstrip("/") / "pids.max").read_text()) // SHARE
    return 0


@contextmanager
def journal(identifier: str) -> Iterator[socket.socket | None]:
    """Yield a stream to the journal with this identifier; None if what this process prints does not go there."""
    own = os.fstat(1)
    with socket.socket(socket.AF_UNIX) as stream:
        goes_there = os.environ.get("JOURNAL_STREAM") == f"{own.st_dev}:{own.st_ino}"  # systemd.exec(5)
        if goes_there and not stream.connect_ex(JOURNAL):
            # As systemd-cat: identifier, unit, priority (info); no levels in lines; to no other log.
            stream.sendall(f"{printable(identifier)}\n\n6\n0\n0\n0\n0\n".encode())
            yield stream
        else:
            yield None
