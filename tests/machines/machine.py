"""Real systemd machines for tests, with no network.

with booted("first", cached_root()) as machine:
    machine.succeed("systemctl", "is-system-running")
"""

import contextlib
import ctypes
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from tests.machines.nspawn import Nspawn

PATIENCE = 240  # seconds for a condition; they only bound what hangs, and a busy machine is slow
CLONE_NEWNET = 0x40000000  # setns(2)

machines: list["Machine"] = []  # those there are now, for the hooks in conftest.py


@contextlib.contextmanager
def booted(
    name: str,
    root: Path,
    disks: Mapping[str, int] | None = None,
    network: str | None = None,
    binds: Mapping[Path, str] | None = None,
    limits: bool = False,
    arguments: tuple[str, ...] = (),
    own: int = 0,
) -> Iterator["Machine"]:
    """A booted machine, gone without a trace afterwards.

    `disks` are small file systems of their own, which survive a reboot: mount point -> size in MiB. Other mounts
    (a tmpfs of some size, noexec) a test can make inside. `network` is the path of a network namespace for the machine
    to live in, else it has a loopback device alone; `binds` are directories of the host: directory -> mount point. With
    `limits` the machine's systemd can limit the memory and the CPU time of its units; `arguments` are for it. With
    `own` it writes to a file system of its own, of so many MiB, and a power cut loses what was not synced.
    """
    homes = root.with_name("machines")
    homes.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=homes) as home:
        new = Machine(
            name, root, Path(home), namespace=network, binds=dict(binds or {}), limits=limits, arguments=arguments
        )
        if own:
            subprocess.run(["mkfs.ext4", "-q", new.image, f"{own}M"], check=True)
        for number, (where, size) in enumerate((disks or {}).items()):
            image = new.home / f"disk{number}.ext4"
            subprocess.run(["mkfs.ext4", "-q", image, f"{size}M"], check=True)
            new.disks[where] = image
        machines.append(new)
        try:
            new.boot()
            yield new
        finally:
            machines.remove(new)
            new.power_cut()


class Machine(Nspawn):
    """One machine, and what a test does with it."""

    def succeed(self, *argv: str, stdin: int | IO[bytes] = subprocess.DEVNULL) -> str:
        """Run a command that must exit with 0; what it printed."""
        __tracebackhide__ = True
        done = self.run(*argv, stdin=stdin)
        if done.returncode:
            pytest.fail(f"{self.name}: {shlex.join(argv)} -> {done.returncode}\n{done.stdout}")
        return done.stdout

    def fails(self, *argv: str, code: int | None = None) -> str:
        """Run a command that must not exit with 0, but with `code` if that is given; what it printed."""
        __tracebackhide__ = True
        done = self.run(*argv)
        if done.returncode == 0 or code not in (None, done.returncode):
            wanted = "a failure" if code is None else code
            pytest.fail(f"{self.name}: {shlex.join(argv)} -> {done.returncode}, not {wanted}\n{done.stdout}")
        return done.stdout

    def eventually(self, *argv: str, timeout: float = PATIENCE) -> str:
        """Poll until the command succeeds; the last try fails with its evidence."""
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout
        while self.run(*argv).returncode and time.monotonic() < deadline:
            time.sleep(0.2)
        return self.succeed(*argv)

    def shell(self, script: str) -> str:
        """Run a script of several commands, all of which must succeed."""
        __tracebackhide__ = True
        return self.succeed("sh", "-euc", script)

    def as_user(self, user: str, *argv: str) -> str:
        """Run a command in a login session of `user`'s, made by PAM."""
        __tracebackhide__ = True
        return self.succeed("runuser", "--login", user, f"--command={shlex.join(argv)}")

    # Units

    def unit(self, unit: str, name: str) -> str:
        """A property of a unit as `systemctl show` prints it; empty if there is no such unit."""
        return self.succeed("systemctl", "show", f"--property={name}", "--value", unit).strip()

    def wait_for_unit(self, unit: str, timeout: float = PATIENCE) -> None:
        """Wait until a unit is active; give up at once when it has failed."""
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout
        while (state := self.unit(unit, "ActiveState")) != "active":
            if state == "failed" or time.monotonic() > deadline:
                pytest.fail(f"{self.name}: {self.run('systemctl', 'status', '--full', unit).stdout}")
            time.sleep(0.2)

    def expect_no_failed_units(self) -> None:
        __tracebackhide__ = True
        if failed := self.succeed("systemctl", "list-units", "--failed", "--plain", "--no-legend"):
            pytest.fail(f"{self.name} has failed units:\n{failed}")

    # Files: opened inside, since the host would follow an absolute link to a file of its own.

    def read(self, path: str) -> str:
        __tracebackhide__ = True
        return self.succeed("cat", path)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of root's, making its directories."""
        __tracebackhide__ = True
        with tempfile.TemporaryFile() as file:
            file.write(text.encode())
            file.seek(0)
            self.succeed("install", "-D", f"--mode={mode:o}", "/dev/stdin", path, stdin=file)

    def copy_in(self, source: Path, path: str, mode: int = 0o644) -> None:
        """Copy a file of the host's."""
        __tracebackhide__ = True
        with source.open("rb") as file:
            self.succeed("install", "-D", f"--mode={mode:o}", "/dev/stdin", path, stdin=file)

    # The rest of the world

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Within it, sockets the calling thread opens and programs it starts are on the machine's network."""
        own, inside = Path("/proc/thread-self/ns/net"), Path(f"/proc/{self.leader}/ns/net")
        with own.open() as ours, inside.open() as theirs:
            set_network(theirs)
            try:
                yield
            finally:
                set_network(ours)


def until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"in {timeout} s not seen: {what}")
        time.sleep(0.2)
    return result


def set_network(namespace: IO[str]) -> None:
    """Move the calling thread to a network namespace: setns(2), which Python has since 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
