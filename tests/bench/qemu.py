"""Cuts the power of a virtual machine at moments of an installation, and of an upgrade, and says what is there then.

    .venv/bin/python -m tests.bench.qemu KERNEL OLDER.sh NEWER.sh [--cuts 10]

It needs root, and Debian's packages `qemu-system-x86` and e2fsprogs. KERNEL is one that finds its disk by itself, such
as that of Debian's package linux-image-cloud-amd64:

    apt-get download linux-image-6.1.0-56-cloud-amd64; dpkg -x linux-image-*.deb kernel; ls kernel/boot/vmlinuz-*

The guest has a disk, and a kernel of its own. What it has not written to the disk is in its memory, and lost with that.
Its processor is emulated (TCG), so this needs no KVM and takes its time: an hour or two.

One run is cut at all moments: QEMU then goes on with another file, and the one before is left as the disk was. A second
guest boots from each. Where a release is active, `barehub verify` has to find nothing, and alice to be logged in. After
an installation that was cut off earlier, the installer runs again, and the same has to hold.
"""

import argparse
import base64
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.machines.hub_client import TEST_CONFIG
from tests.machines.rootfs import USERS, cached_root

SIZE, MEMORY = "6G", "3G"
PATIENCE = 3600  # seconds: it only bounds what hangs
# Runs each command that comes by the second serial port, and says how it went.
AGENT = """\
import base64, json, os, subprocess, tty
port = os.open("/dev/ttyS1", os.O_RDWR | os.O_NOCTTY)
tty.setraw(port)
with open(port, "rb", closefd=False) as lines:
    os.write(port, b"ready\\n")
    for line in lines:
        done = subprocess.run(json.loads(base64.b64decode(line)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace")
        answer = json.dumps([done.returncode, done.stdout]).encode()
        view = memoryview(base64.b64encode(answer) + b"\\n")
        while view:
            view = view[os.write(port, view):]
"""
UNIT = """\
[Unit]
DefaultDependencies=no
After=multi-user.target
[Service]
ExecStart=/usr/bin/python3 /agent.py
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
[Install]
WantedBy=multi-user.target
"""
# As a browser does it: the form, with its token, and the page that comes after a login alone.
LOGIN = """\
import http.cookiejar, re, sys, urllib.parse, urllib.request
browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
token = re.search('name="_xsrf" value="([^"]+)"', browser.open("http://127.0.0.1:8000/hub/login").read().decode())[1]
form = urllib.parse.urlencode({"username": sys.argv[1], "password": sys.argv[2], "_xsrf": token}).encode()
place = browser.open("http://127.0.0.1:8000/hub/login?next=/hub/home", form).url
sys.exit(None if place.endswith("/hub/home") else place)
"""
# $1 the root, $2 what to add to it, $3 a directory for the overlay, $4 the image. Users' software is left out.
IMAGE = f"""
mkdir "$3/work" "$3/tree"
mknod "$2/shared" c 0 0
mount -t overlay -o "lowerdir=$1,upperdir=$2,workdir=$3/work" overlay "$3/tree"
mkfs.ext4 -q -d "$3/tree" "$4" {SIZE}
"""


@dataclass
class Guest:
    """A virtual machine that runs, and the sockets of its agent and of QEMU's monitor (QMP)."""

    agent: socket.socket
    monitor: socket.socket

    def run(self, *argv: str) -> tuple[int, str]:
        """Run a command to its end; its exit status and what it printed."""
        self.agent.sendall(base64.b64encode(json.dumps(argv).encode()) + b"\n")
        return tuple(json.loads(base64.b64decode(line_of(self.agent))))

    def succeed(self, *argv: str) -> str:
        status, said = self.run(*argv)
        if status:
            sys.exit(f"error: {' '.join(argv)} -> {status}\n{said}")
        return said

    def eventually(self, *argv: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while (last := self.run(*argv))[0]:
            if time.monotonic() > deadline:
                sys.exit(f"error: {' '.join(argv)}: {last}")
            time.sleep(1)

    def control(self, what: str, **arguments: Any) -> None:
        """Let QEMU's monitor do something: https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html."""
        self.monitor.sendall(json.dumps({"execute": what, "arguments": arguments}).encode() + b"\n")
        while "return" not in (said := json.loads(line_of(self.monitor))):
            if "error" in said:
                sys.exit(f"error: {what}: {said}")

    def write_elsewhere(self, file: Path) -> None:
        """Leave the disk's file as it is now, and go on with another one."""
        self.control("blockdev-snapshot-sync", device="disk", format="qcow2", **{"snapshot-file": str(file)})


def line_of(connection: socket.socket) -> bytes:
    """The next line of a connection."""
    found = b""
    while not found.endswith(b"\n"):
        if not (byte := connection.recv(1)):
            sys.exit("error: the guest has ended")
        found += byte
    return found


@contextlib.contextmanager
def booted(kernel: Path, disk: Path, first: Path | None = None) -> Iterator[Guest]:
    """A guest that has booted from a disk, which stays as it is: it writes to `first`, or to what nobody keeps."""
    with tempfile.TemporaryDirectory() as directory:
        sockets = {name: f"{directory}/{name}" for name in ("agent", "monitor")}
        form = "raw" if disk.suffix == ".raw" else "qcow2"
        drive = f"file={disk},format={form},if=none,id=disk,file.locking=off,snapshot={'off' if first else 'on'}"
        words = [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-m", MEMORY, "-cpu", "max", "-S"),
            *("-kernel", str(kernel), "-append", "root=/dev/nvme0n1 rw console=ttyS0 quiet"),
            *("-drive", drive, "-device", "nvme,drive=disk,serial=1", "-nodefaults", "-nographic", "-no-reboot"),
            *("-serial", f"file:{directory}/console", "-serial", f"unix:{sockets['agent']},server=on,wait=off"),
            *("-qmp", f"unix:{sockets['monitor']},server=on,wait=off"),
        ]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL) as machine, contextlib.ExitStack() as stack:
            stack.callback(machine.kill)
            guest = Guest(*(stack.enter_context(connected(sockets[one])) for one in ("agent", "monitor")))
            guest.control("qmp_capabilities")
            if first:
                guest.write_elsewhere(first)
            guest.control("cont")
            while line_of(guest.agent).strip() != b"ready":
                pass
            yield guest


@contextlib.contextmanager
def connected(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        while connection.connect_ex(path):
            time.sleep(0.05)
        connection.settimeout(PATIENCE)
        yield connection


def make_image(root: Path, files: Mapping[str, str | Path], home: Path) -> Path:
    """A disk with a copy of the root, and these files: their content, or what to copy."""
    for path, content in files.items():
        place = home / "upper" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.read_bytes() if isinstance(content, Path) else content.encode())
    wanted = home / "upper/etc/systemd/system/multi-user.target.wants/agent.service"
    wanted.parent.mkdir(parents=True)
    wanted.symlink_to("/etc/systemd/system/agent.service")
    words = ("unshare", "--mount", "sh", "-euc", IMAGE, "image", root, home / "upper", home, home / "disk.raw")
    subprocess.run(words, check=True)
    return home / "disk.raw"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel", type=Path, metavar="KERNEL")
    parser.add_argument("older", type=Path, metavar="OLDER.sh")
    parser.add_argument("newer", type=Path, metavar="NEWER.sh")
    parser.add_argument("--cuts", type=int, default=10, help="of each of the two (default: %(default)s)")
    parser.add_argument("--root", type=Path, help="a Debian to boot (default: that of the end-to-end tests)")
    arguments = parser.parse_args()
    base = f"/opt/{arguments.older.name.partition('-')[0]}"
    files = {"mnt/older.sh": arguments.older, "mnt/newer.sh": arguments.newer, "agent.py": AGENT, "login.py": LOGIN}
    files |= {"etc/systemd/system/agent.service": UNIT, "mnt/50-test.py": TEST_CONFIG}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        place = Path(home)
        disk = make_image(arguments.root or cached_root(), files, place)
        for what, command in {"installation": ("older.sh", "-b"), "upgrade": ("newer.sh", "-b", "-u")}.items():
            words = ("sh", f"/mnt/{command[0]}", *command[1:])
            whole, disk = cut_everywhere(arguments.kernel, disk, place / what, words, base, arguments.cuts)
            print(f"{what}: {whole:.0f} s", flush=True)
            for number in range(arguments.cuts):
                left = look(arguments.kernel, place / f"{what}{number}.qcow2", words, base)
                print(f"  cut after {whole * (number + 0.5) / arguments.cuts:4.0f} s: {left}", flush=True)
    return 0


def cut_everywhere(
    kernel: Path, disk: Path, place: Path, words: tuple[str, ...], base: str, cuts: int
) -> tuple[float, Path]:
    """Run the installer; leave the disk as it was at each moment in PLACE0.qcow2 and so on, at the end in the last one.

    Returns how long a run takes, in seconds, and that last disk. A first run, of which nothing stays, measures it.
    """
    with booted(kernel, disk) as guest:
        began = time.monotonic()
        guest.succeed(*words)
        whole = time.monotonic() - began
    files = [place.with_name(f"{place.name}{number}.qcow2") for number in range(cuts + 1)]
    with booted(kernel, disk, files[0]) as guest:
        guest.succeed("systemd-run", "--quiet", "--unit=work", "--remain-after-exit", *words)
        began = time.monotonic()
        for number, file in enumerate(files[1:]):
            time.sleep(max(0.0, began + whole * (number + 0.5) / cuts - time.monotonic()))  # what is measured
            guest.write_elsewhere(file)
        guest.eventually("sh", "-c", "systemctl show -p SubState work | grep -qE 'exited|failed'")
        require_whole(guest, base)
        guest.succeed("systemctl", "poweroff", "--no-block")
        with contextlib.suppress(SystemExit):
            line_of(guest.agent)  # until it has ended
    return whole, files[-1]


def look(kernel: Path, disk: Path, words: tuple[str, ...], base: str) -> str:
    """Boot a disk and return what is active there; exit if it is not whole, now or after another run."""
    with booted(kernel, disk) as guest:
        active = guest.run("readlink", f"{base}/hub")[1].strip().removeprefix("releases/")
        if not active:
            guest.succeed(*words)
        require_whole(guest, base)
        return f"{active} is whole" if active else "nothing was active; another run made it whole"


def require_whole(guest: Guest, base: str) -> None:
    """Exit unless hub and release are whole, and alice can log in, which a new hub has to be told."""
    config = f"{base}/jupyterhub_config.d/50-test.py"
    guest.succeed(
        "sh", "-c", f"test -s {config} || {{ cp /mnt/50-test.py {config}; systemctl restart '*-hub.service'; }}"
    )
    guest.eventually(f"{base}/hub/bin/barehub", "status")
    guest.succeed(f"{base}/hub/bin/barehub", "verify")
    guest.succeed("python3", "/login.py", "alice", USERS["alice"])


if __name__ == "__main__":
    sys.exit(main())
