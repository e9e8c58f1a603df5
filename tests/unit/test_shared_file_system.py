"""An environment on a file server, from two machines: no locks, no root, no hard links, and files that outlive rm."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.unit.installers import refused
from tests.unit.test_environment_installer import FILL, kept, made

ROOT = Path(__file__).parents[2]
ACCOUNT = 1  # Debian's daemon: any that is not root
needed = {"root": os.geteuid() == 0, "Debian's package fuse3": bool(find_library("fuse3"))}

# $1 name, $2 what is shared, $3 where, $4 directory of units
MACHINE = f"""
hostname "$1"
mount --bind "$4" /etc/systemd/system
cd {ROOT}
{shlex.quote(sys.executable)} -m tests.machines.file_server "$2" "$3" &
until mountpoint -q "$3"; do kill -0 $! || exit 1; sleep 0.05; done
echo ready
exec sleep infinity
"""


@dataclass
class Node:
    """A machine of a cluster, as far as names, processes, and mounts go."""

    name: str
    pid: int

    def words(self, *command: str | Path, uid: int = ACCOUNT) -> list[str]:
        account = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
        enter = ("nsenter", f"--target={self.pid}", "--mount", "--uts", "--pid")
        return [os.fspath(word) for word in (*enter, *account, *command)]

    def run(self, *command: str | Path, uid: int = ACCOUNT) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*command, uid=uid), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    def install(self, installer: Path, *options: str) -> str:
        done = self.run("sh", installer, "-b", *options)
        assert done.returncode == 0, done
        return done.stdout + done.stderr


@contextlib.contextmanager
def running(node: Node, *command: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A command that runs meanwhile."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(node.words(*command), **pipes, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def machine(name: str, place: Path) -> Iterator[Node]:
    """A machine that mounts place/shared from the server's place/disk."""
    apart = (
        "setpriv",
        "--pdeathsig=KILL",
        "unshare",
        "--mount",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-euc",
        MACHINE,
    )
    words = [*apart, "machine", name, place / "disk", place / "shared", place / "units"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            yield Node(name, int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()))
        finally:
            process.kill()


@pytest.fixture
def place() -> Iterator[Path]:
    """Where every account gets to, unlike pytest's own directories."""
    if missing := [what for what, there in needed.items() if not there]:
        cannot_run(f"a file server cannot be imitated without {' and '.join(missing)}")
    directory = Path(f"/tmp/barehub-{os.getpid()}-file-server")
    for name in ("disk", "shared", "units", "hub/state/environments"):
        (directory / name).mkdir(parents=True)
    (directory / "disk").chmod(0o1777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def nodes(place: Path) -> Iterator[tuple[Node, Node]]:
    with machine("node1", place) as one, machine("node2", place) as two:
        yield one, two


def installer(place: Path, release: str, fill: str = FILL) -> Path:
    """An installer for place/shared/jupyter, unless it is told something else."""
    return made(place, release, fill=fill)


def test_the_file_system_is_what_it_should_be(place: Path, nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    shared = place / "shared"
    assert one.run("mkdir", shared / "d").returncode == 0
    assert two.run("ls", "-ld", shared / "d").stdout.split()[2] == "daemon"
    for command, why in (
        (f"cd {shared}/d; : >f; flock f true", "No locks available"),
        (f"cd {shared}/d; ln f g", "Operation not permitted"),
        (f"cd {shared}/d; exec 3<f; rm f; rmdir ../d", "not empty"),
    ):
        assert why in one.run("sh", "-euc", command).stderr
    done = one.run("sh", "-euc", f"mkdir {shared}/r; stat -c %u {shared}/r; chown 0 {shared}/r", uid=0)
    assert done.stdout == "65534\n"
    assert "not permitted" in done.stderr


def test_two_machines_install_one_after_the_other(place: Path, nodes: tuple[Node, Node]) -> None:
    one, two = nodes
    base, fifo = place / "shared/jupyter", place / "go"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    first = installer(place, "2026.12.01", f"{FILL}echo begun >{fifo}; read line <{fifo}\n")
    second = installer(place, "2026.12.08")
    with running(one, "sh", first, "-b", "-p", base) as process:
        assert fifo.read_text() == "begun\n"
        done = two.run("sh", second, "-b", "-p", base)
        refused(done, 6, f"another installer is at work in {base}: process")
        assert " on node1, since 20" in done.stderr
        assert ", which does not run" not in done.stderr  # which nobody can tell from here
        fifo.write_text("go on\n")
        told, _ = process.communicate()
        assert process.returncode == 0, told
    two.install(second, "-u", "-p", str(base))
    assert one.run("sh", "-c", f"until [ -e {base}/current/bin/sleep ]; do sleep 0.1; done").returncode == 0
    assert kept(place / "disk/jupyter") == ["2026.12.01", "2026.12.08"]
    assert {path.name for path in (place / "disk/jupyter").iterdir()} == {"current", "releases"}
    assert {path.stat().st_uid for path in (place / "disk/jupyter").rglob("*") if not path.is_symlink()} == {ACCOUNT}


def test_a_machine_that_has_died_is_named_and_what_it_left_is_removed(place: Path, nodes: tuple[Node, Node]) -> None:
    _, two = nodes
    base, fifo = place / "shared/jupyter", place / "go"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    slow, second = (
        installer(place, "2026.12.01", f"{FILL}echo >{fifo}; exec sleep 600\n"),
        installer(place, "2026.12.08"),
    )
    with machine("node3", place) as three, running(three, "sh", slow, "-b", "-p", base):
        fifo.read_text()
    done = two.run("sh", second, "-b", "-p", base)
    refused(done, 6, "on node3, since")
    assert done.stderr.endswith(f"rm -r {base}/.lock\n")
    assert two.run("rm", "-r", base / ".lock").returncode == 0
    two.install(second, "-p", str(base))
    assert {path.name for path in (place / "disk/jupyter").iterdir()} == {"current", "releases"}
    assert kept(place / "disk/jupyter") == ["2026.12.08"]


def test_root_is_told_that_its_files_are_another_accounts(place: Path, nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    base = place / "shared/jupyter"
    done = one.run("sh", installer(place, "2026.12.01"), "-b", "-p", base, uid=0)
    assert done.returncode == 6, done
    assert f"{base} belongs to another account" in done.stderr
    assert "file servers often make root another account" in done.stderr
    assert not (place / "disk/jupyter").exists()


def test_open_files_of_a_release_that_is_removed_hold_nobody_up(place: Path, nodes: tuple[Node, Node]) -> None:
    """An editor has one open; that can be seen neither here nor by a hub."""
    one, _ = nodes
    base, server = place / "shared/jupyter", place / "disk/jupyter"
    for day in ("01", "02", "03"):
        one.install(installer(place, f"2026.12.{day}"), *(["-u"] if day != "01" else []), "-p", str(base))
    read = f"cd {base}; exec 3<releases/2026.12.01/pyvenv.cfg; cd /; echo open; read line; cat <&3"
    with running(one, "sh", "-c", read) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        fourth = installer(place, "2026.12.04")
        told = one.install(fourth, "-u", "--keep", "1", "-p", str(base))
        assert f"some files of 2026.12.01 are still open, and stay in {base}/.removed" in told
        assert "changed: release, older releases, files\n" in told
        # The release that was active a moment ago is another machine's for a moment more.
        assert "release 2026.12.03 is kept: it was active until now" in told
        assert kept(server) == ["2026.12.03", "2026.12.04"]
        assert "nothing changed\n" in one.install(fourth, "-p", str(base))
        assert process.communicate("\n")[0].startswith("home = ")
    one.install(fourth, "--keep", "1", "-p", str(base))
    assert kept(server) == ["2026.12.04"]
    assert {path.name for path in server.iterdir()} == {"current", "releases"}


def test_what_the_servers_of_a_hub_run_from_is_kept_wherever_they_run(place: Path, nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    base, told_by_hub = place / "shared/jupyter", place / "hub/state/environments/in-use"
    (place / "units/barehub-hub.service").write_text(f"[Service]\nEnvironment=BAREHUB_BASE={place}/hub\nUser=root\n")
    told_by_hub.write_text(f"/opt/other\n{base}/releases/2026.12.01\n")
    for day in ("01", "01.1", "02", "03"):
        one.install(installer(place, f"2026.12.{day}"), *(["-u"] if day != "01" else []), "-p", str(base))
    told = one.install(installer(place, "2026.12.03"), "--keep", "1", "-p", str(base))
    assert "release 2026.12.01 is kept: a server of a hub on this machine runs from it" in told
    assert kept(place / "disk/jupyter") == ["2026.12.01", "2026.12.03"]
    told_by_hub.unlink()
    told = one.install(installer(place, "2026.12.03"), "--keep", "1", "-p", str(base))
    assert f"warning: what servers of the hub in {place}/hub run from is not known" in told
    assert "release 2026.12.01 is kept: nobody knows what servers of a hub" in told
    assert kept(place / "disk/jupyter") == ["2026.12.01", "2026.12.03"]
