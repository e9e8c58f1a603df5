"""Real systemd machines for tests: systemd-nspawn over a throw-away copy of the cached root, with no network.

    with booted("first", cached_root()) as machine:
        machine.succeed("systemctl", "is-system-running")

The copy is an overlay, mounted in a mount namespace in which only this machine's nspawn lives: when nspawn is
gone so are the mounts, however the test run ended. And nspawn shuts down when the test run is gone.
"""

import contextlib
import ctypes
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, Never

import pytest

from tests.machines.rootfs import CLEAN

# Seconds; they only bound what hangs, and a busy machine is slow.
BOOT_TIMEOUT = 240  # half of one is usual
COMMAND_TIMEOUT = 600
PATIENCE = 240  # for a condition
CLONE_NEWNET = 0x40000000  # setns(2)

# $1 cgroups to enter, $2 the overlay's layers, $3 where to mount it, $4 lines "image mountpoint"; a command.
LAUNCH = """
for cgroup in $1; do echo $$ > "$cgroup/cgroup.procs"; done
mount -t overlay -o "$2" overlay "$3"
printf %s "$4" | while read -r image where; do mkdir -p "$3$where"; mount -o loop "$image" "$3$where"; done
shift 4
exec "$@"
"""

machines: list["Machine"] = []  # those there are now, for the hooks in conftest.py


@contextlib.contextmanager
def booted(
    name: str,
    root: Path,
    disks: Mapping[str, int] | None = None,
    network: str | None = None,
    binds: Mapping[Path, str] | None = None,
    limits: bool = False,
) -> Iterator["Machine"]:
    """A booted machine, gone without a trace afterwards.

    `disks` are small file systems of their own, which survive a reboot: mount point -> size in MiB. Other mounts
    (a tmpfs of some size, noexec) a test can make inside. `network` is the path of a network namespace for the machine
    to live in, else it has a loopback device alone; `binds` are directories of the host: directory -> mount point. With
    `limits` the machine's systemd can limit the memory and the CPU time of its units.
    """
    homes = root.with_name("machines")
    homes.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=homes) as home:
        new = Machine(name, root, Path(home), namespace=network, binds=dict(binds or {}), limits=limits)
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


@dataclass
class Machine:
    """One machine, on or off. Commands run as root, with a bare environment and stderr joined to stdout."""

    name: str
    root: Path  # the overlay's lower layer, shared between machines
    home: Path  # the upper layer and whatever else is this machine's own
    disks: dict[str, Path] = field(default_factory=dict)  # mount point -> image
    namespace: str | None = None  # path of the network namespace, if it is not to be the machine's own
    binds: dict[Path, str] = field(default_factory=dict)  # directory of the host -> mount point
    limits: bool = False  # whether its systemd can limit memory and CPU time
    nspawn: subprocess.Popen[bytes] | None = None
    leader: int = 0  # the machine's PID 1, by the host's count; 0 when it is off

    # On and off

    def boot(self) -> None:
        """Switch on, with the disk as it was left, and wait until systemd has started all that it should."""
        assert not self.leader, f"{self.name} is on"
        for directory in ("upper", "work", "tree"):
            (self.home / directory).mkdir(exist_ok=True)
        for cgroup in self.cgroups():
            cgroup.mkdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind("")  # an abstract address of the kernel's choice: unix(7), autobind
            notify.settimeout(0.5)
            address = "@" + notify.getsockname()[1:].decode()
            with (self.home / "console").open("ab") as console:
                self.nspawn = subprocess.Popen(
                    self.launch_words(),
                    env=os.environ | {"NOTIFY_SOCKET": address},
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the test run, which then switches off
                )
            self.wait_until_ready(notify)
        if self.limits:
            # nspawn leaves all but systemd's own hierarchy read-only (cgroup v1; there is nothing to do with v2).
            writable = "if [ -d $d ]; then mount -o remount,bind,rw $d; fi"
            self.shell(f"for d in /sys/fs/cgroup/memory /sys/fs/cgroup/cpu*; do {writable}; done")
            self.succeed("systemctl", "daemon-reexec")

    def launch_words(self) -> list[str]:
        """The words that start systemd-nspawn(1) in a mount namespace and cgroups of its own."""
        upper, work, tree = (self.home / directory for directory in ("upper", "work", "tree"))
        return [
            *("setpriv", "--pdeathsig=TERM", "unshare", "--mount", "sh", "-euc", LAUNCH, "launch"),
            " ".join(map(str, self.cgroups())),
            f"lowerdir={self.root},upperdir={upper},workdir={work}",
            str(tree),
            "".join(f"{image} {where}\n" for where, image in self.disks.items()),
            *(
                "systemd-nspawn",
                "--quiet",
                "--boot",
                f"--directory={tree}",
                f"--machine={self.unique_name}",
                f"--hostname={self.name}",
            ),
            # By itself a machine has nothing but a loopback device.
            f"--network-namespace-path={self.namespace}" if self.namespace else "--private-network",
            *(f"--bind={directory}:{where}" for directory, where in self.binds.items()),
            *("--register=no", "--keep-unit"),  # neither systemd nor machined need to run on the host
            *("--notify-ready=yes", "--console=pipe"),
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),  # nothing of the host's
        ]

    @property
    def unique_name(self) -> str:
        """What nspawn calls the machine on the host, where others of the same name may run."""
        return self.home.name.replace("_", "0")

    def wait_until_ready(self, notify: socket.socket) -> None:
        """Read sd_notify(3) messages: nspawn tells its leader's pid, then hands on PID 1's READY=1."""
        deadline = time.monotonic() + BOOT_TIMEOUT
        while time.monotonic() < deadline and self.nspawn and self.nspawn.poll() is None:
            with contextlib.suppress(TimeoutError):
                message = dict(line.partition("=")[::2] for line in notify.recv(4096).decode().splitlines())
                self.leader = int(message.get("X_NSPAWN_LEADER_PID", self.leader))
                if message.get("READY") == "1":
                    return
        self.fail("does not boot")

    def poweroff(self) -> None:
        """Shut down in an orderly way."""
        assert self.nspawn
        self.nspawn.terminate()
        try:
            self.nspawn.wait(timeout=400)  # a unit has 90 s to stop
        except subprocess.TimeoutExpired:
            self.fail("does not power off")
        self.forget()

    def power_cut(self) -> None:
        """Stop everything at once. What was not written stays in the host's page cache, so it is not lost."""
        if self.nspawn and self.nspawn.poll() is None:
            # PID 1, since nspawn's own death would let the machine live on.
            os.kill(self.leader or self.nspawn.pid, signal.SIGKILL)
            self.nspawn.wait(timeout=120)
        self.forget()

    def reboot(self) -> None:
        self.poweroff()
        self.boot()

    def forget(self) -> None:
        """Note that the machine is off, and remove the cgroups that it leaves behind."""
        self.nspawn, self.leader = None, 0
        for cgroup in self.cgroups():
            for directory, _, _ in os.walk(cgroup, topdown=False):
                Path(directory).rmdir()

    def cgroups(self) -> list[Path]:
        """One directory in each hierarchy that systemd uses, or all machines would share `/payload`."""
        wanted = {"name=systemd", *(("memory", "cpu", "cpuacct") if self.limits else ())}
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        return [
            Path(where, self.home.name)
            for _, where, kind, options, *_ in mounts
            if kind == "cgroup2" or (kind == "cgroup" and wanted & set(options.split(",")))
        ]

    # Commands

    @property
    def enter(self) -> tuple[str, ...]:
        """The words that, put before a command, run it inside."""
        assert self.leader, f"{self.name} is off"
        # An nsenter that outlived the test run would hold up the machine's shutdown.
        return ("setpriv", "--pdeathsig=KILL", "nsenter", f"--target={self.leader}", "--all", "--", *CLEAN)

    def run(self, *argv: str, stdin: int | IO[bytes] = subprocess.DEVNULL) -> CompletedProcess[str]:
        """Run a command to its end, whatever that is. What should go on after it is for systemd-run(1)."""
        return subprocess.run(
            [*self.enter, *argv],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT,
        )

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

    def evidence(self) -> str:
        """The end of the journal; of the console, when the machine is off."""
        if self.leader:
            return self.run("journalctl", "--boot", "--lines=50", "--no-pager").stdout
        return "\n".join((self.home / "console").read_text(errors="replace").splitlines()[-50:])

    def fail(self, what: str) -> Never:
        """End the test because of the machine itself."""
        self.power_cut()
        pytest.fail(f"{self.name} {what}\n{self.evidence()}")


def set_network(namespace: IO[str]) -> None:
    """Move the calling thread to a network namespace: setns(2), which Python has since 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
