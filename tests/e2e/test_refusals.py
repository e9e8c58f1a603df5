"""What stops an installation on a real machine, and that it leaves nothing behind; what an interrupted one leaves."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import pytest

from tests.machines.gate import FILLED, FILLING, UNPACKING, Call, before_calls, interrupt_at
from tests.machines.hub_client import BAREHUB
from tests.machines.machine import Machine, booted

INSTALLER = "/mnt/barehub.sh"
DISK = "/small"  # a file system of its own, with room for a release but not for much more
OTHER = "/other"  # one that is too small


@pytest.fixture(scope="module")
def machine(root: Path, installer: Path) -> Iterator[Machine]:
    """A machine with two small disks and the installer."""
    with booted("refusals", root, {DISK: 1000, OTHER: 64}) as new:
        new.copy_in(installer, INSTALLER)
        yield new


def refused(machine: Machine, code: int, what: str, *options: str) -> None:
    """The installer prints what is wrong and what to do, exits with `code`, and leaves everything as it was."""
    listing = ("find", "/opt", "/etc", DISK, OTHER, "-printf", r"%M %u %s %p\n")
    before = machine.succeed(*listing)
    output = machine.fails("sh", INSTALLER, "-b", *options, code=code)
    assert f"error: {what}" in output
    assert "\n  fix: " in output
    assert machine.succeed(*listing) == before


def test_a_port_that_is_taken_is_named_with_who_has_it(machine: Machine) -> None:
    machine.succeed("systemd-run", "--unit=squatter", "python3", "-m", "http.server", "8000")
    machine.eventually("python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8000))")
    pid = machine.unit("squatter.service", "MainPID")
    refused(machine, 8, f"port 8000 is in use by python3 (pid {pid})")
    machine.succeed("systemctl", "stop", "squatter.service")


def test_too_little_room(machine: Machine) -> None:
    refused(machine, 4, OTHER, "-p", f"{OTHER}/barehub")


def test_a_mount_without_exec(machine: Machine) -> None:
    machine.succeed("mount", "-o", "remount,noexec", DISK)
    refused(machine, 6, f"{DISK} is mounted noexec", "-p", f"{DISK}/barehub")
    machine.succeed("mount", "-o", "remount,exec", DISK)


def test_a_read_only_mount(machine: Machine) -> None:
    machine.succeed("mount", "-o", "remount,ro", DISK)
    refused(machine, 6, f"{DISK} is mounted read-only", "-p", f"{DISK}/barehub")
    machine.succeed("mount", "-o", "remount,rw", DISK)


def test_a_disk_that_fills_up_half_way(machine: Machine) -> None:
    before = machine.succeed("find", DISK)
    with before_calls(machine, [Call("tar", UNPACKING[0].words, f"cat /dev/zero >{DISK}/fill 2>/dev/null")]):
        output = machine.fails("sh", INSTALLER, "-b", "-p", f"{DISK}/barehub", code=4)
    machine.succeed("rm", f"{DISK}/fill")
    assert "error: " in output
    assert machine.succeed("find", DISK) == before


def test_a_dry_run_changes_nothing_and_tells_all_that_an_install_makes(machine: Machine) -> None:
    listing = ("find", "/opt", "/etc/systemd/system", "/etc/passwd", "-printf", r"%p %s\n")
    before = set(machine.succeed(*listing).splitlines())
    told = machine.succeed("sh", INSTALLER, "-b", "--dry-run")
    assert set(machine.succeed(*listing).splitlines()) == before
    machine.succeed("sh", INSTALLER, "-b", "--no-start")
    made = {line.split()[0] for line in set(machine.succeed(*listing).splitlines()) - before}
    announced = [line.split()[1] for line in told.splitlines() if line.startswith("  ")]
    inside = tuple(f"{path}/" for path in announced)
    assert "  account  barehub-proxy, for the proxy\n" in told
    others = {"/opt/barehub", "/opt/barehub/releases", "/etc/passwd"}
    assert {path for path in made if path not in announced and not path.startswith(inside)} == others
    machine.fails("systemctl", "is-active", "barehub-hub.service")
    machine.succeed(BAREHUB, "uninstall", "-y")


@pytest.mark.parametrize(("signal", "status"), [(SIGINT, 130), (SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("step", [UNPACKING, FILLING, FILLED], ids=["unpacking", "filling", "filled"])
def test_an_interrupted_install_leaves_nothing(
    machine: Machine, step: Sequence[Call], signal: int, status: int
) -> None:
    output = interrupt_at(machine, step, signal, "sh", INSTALLER, "-b")
    assert f"installer: {status}\n" in output
    assert "error: interrupted" in output
    assert "disk" not in output
    machine.fails("ls", "/opt/barehub")


def test_what_a_killed_install_leaves_is_repaired_by_the_next(machine: Machine) -> None:
    interrupt_at(machine, FILLED, SIGKILL, "sh", INSTALLER, "-b")
    machine.succeed("ls", "/opt/barehub/.staging")
    machine.succeed("flock", "/opt/barehub/.lock", "true")  # the engine's processes may live on for a moment
    machine.succeed("sh", INSTALLER, "-b")
    machine.succeed(BAREHUB, "status")
    assert "No broken requirements" in machine.succeed("/opt/barehub/hub/bin/python", "-I", "-m", "pip", "check")
    machine.fails("ls", "/opt/barehub/.staging")
    machine.succeed(BAREHUB, "uninstall", "-y")
