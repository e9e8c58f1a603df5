"""A machine's power switch: systemd-nspawn over a throw-away copy of the cached root.

The copy is an overlay, mounted in a mount namespace in which only this machine's nspawn lives: when nspawn is
gone so are the mounts, however the test run ended. And nspawn shuts down when the test run is gone.
"""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, Never

import pytest

from tests.machines.rootfs import CLEAN, run

# Seconds; they only bound what hangs, and a busy machine is slow.
BOOT_TIMEOUT = 240  # half of one is usual
COMMAND_TIMEOUT = 600

# ioctl(2) of ext4, as xfstests uses it: the file system ends at once, and does not write even its journal any more.
FS_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2

# $1 cgroups to enter, $2 the overlay's layers, $3 where to mount it, $4 lines "image mountpoint"; a command. An image
# for what the machine writes, which has no mountpoint in it, is beside $3.
LAUNCH = """
for cgroup in $1; do echo $$ > "$cgroup/cgroup.procs"; done
if [ -e "${3%/tree}/own.ext4" ]; then
    mount -o loop "${3%/tree}/own.ext4" "${3%/tree}/own"
    mkdir -p "${3%/tree}/own/upper" "${3%/tree}/own/work"
fi
mount -t overlay -o "$2" overlay "$3"
printf %s "$4" | while read -r image where; do mkdir -p "$3$where"; mount -o loop "$image" "$3$where"; done
shift 4
exec "$@"
"""


@dataclass
class Nspawn:
    """One machine, on or off. Commands run as root, with a bare environment and stderr joined to stdout."""

    name: str
    root: Path  # the overlay's lower layer, shared between machines
    home: Path  # the upper layer and whatever else is this machine's own
    disks: dict[str, Path] = field(default_factory=dict)  # mount point -> image
    namespace: str | None = None  # path of the network namespace, if it is not to be the machine's own
    binds: dict[Path, str] = field(default_factory=dict)  # directory of the host -> mount point
    limits: bool = False  # whether its systemd can limit memory and CPU time
    arguments: tuple[str, ...] = ()  # for its systemd, as on a kernel's command line
    nspawn: subprocess.Popen[bytes] | None = None
    leader: int = 0  # the machine's PID 1, by the host's count; 0 when it is off

    def boot(self) -> None:
        """Switch on, with the disk as it was left, and wait until systemd has started all that it should."""
        assert not self.leader, f"{self.name} is on"
        for directory in ("upper", "work", "tree", "own"):
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
            for_each = f"for d in /sys/fs/cgroup/memory /sys/fs/cgroup/cpu*; do {writable}; done"
            self.run("sh", "-euc", f"{for_each}; systemctl daemon-reexec").check_returncode()

    def launch_words(self) -> list[str]:
        """The words that start systemd-nspawn(1) in a mount namespace and cgroups of its own."""
        tree = self.home / "tree"
        upper, work = ((self.own if self.image.exists() else self.home) / one for one in ("upper", "work"))
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
            *self.arguments,
        ]

    @property
    def image(self) -> Path:
        """A file system for what the machine writes, if it has one of its own."""
        return self.home / "own.ext4"

    @property
    def own(self) -> Path:
        """Where that is mounted, in the machine's mount namespace."""
        return self.home / "own"

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
        """Stop everything at once.

        What was not synced is in the host's page cache. It is lost only if the machine has a file system of its own.
        """
        if self.nspawn and self.nspawn.poll() is None:
            if self.image.exists():
                self.shut_down_own()
            # PID 1, since nspawn's own death would let the machine live on.
            os.kill(self.leader or self.nspawn.pid, signal.SIGKILL)
            self.nspawn.wait(timeout=120)
        self.forget()

    def shut_down_own(self) -> None:
        """Let the machine's own file system end as it is on its disk, without what has not been written yet."""
        assert self.nspawn
        descriptor = os.open(Path(f"/proc/{self.nspawn.pid}/root", self.own.relative_to("/")), os.O_RDONLY)
        fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        os.close(descriptor)

    def reboot(self) -> None:
        self.poweroff()
        self.boot()

    def forget(self) -> None:
        """Note that the machine is off, and remove the cgroups that it leaves behind."""
        self.nspawn, self.leader = None, 0
        # A second mount of an image that is still in use would be its end.
        deadline = time.monotonic() + BOOT_TIMEOUT
        while self.image.exists() and run("losetup", "--associated", self.image):
            assert time.monotonic() < deadline, f"{self.image} is still in use"
            time.sleep(0.1)
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

    def evidence(self) -> str:
        """The end of the journal; of the console, when the machine is off."""
        if self.leader:
            return self.run("journalctl", "--boot", "--lines=50", "--no-pager").stdout
        return "\n".join((self.home / "console").read_text(errors="replace").splitlines()[-50:])

    def fail(self, what: str) -> Never:
        """End the test because of the machine itself."""
        self.power_cut()
        pytest.fail(f"{self.name} {what}\n{self.evidence()}")
