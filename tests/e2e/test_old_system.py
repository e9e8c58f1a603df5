"""The portable installer on Debian 11 (glibc 2.31, systemd 247), told in order on one machine.

It needs an installer with the portable interpreter: where that cannot be had, nothing of this can run, and it says so.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from construct.contents import read_installer
from construct.systems import parse_glibc
from recipe.errors import UserError
from tests.conftest import cannot_run
from tests.machines import rootfs
from tests.machines.hub_client import BAREHUB, HUB, PROXY, TEST_CONFIG, HubSession
from tests.machines.machine import PATIENCE, Machine, booted
from tests.machines.old_rootfs import cached_old_root

GLIBC = (2, 31)


@pytest.fixture(scope="module")
def machine(installer: Path) -> Iterator[Machine]:
    needed = read_installer(installer).release["glibc"]
    if parse_glibc(needed) > GLIBC:
        cannot_run(f"{installer.name} needs glibc {needed}: the portable interpreter could not be had")
    try:
        if missing := rootfs.missing_host_packages():
            raise UserError(f"the host lacks {' '.join(missing)}", fix="python3 release.py test")
        root = cached_old_root()
    except UserError as e:
        cannot_run(f"{e}\n  fix: {e.fix}")
    with booted("old-system", root) as new:
        yield new


@pytest.fixture(scope="module")
def alice(machine: Machine) -> HubSession:
    return HubSession(machine, "alice")


def page(alice: HubSession) -> str:
    """What alice's server answers: its process and its user."""
    return alice.get("/user/alice/lab").text


def start_server(alice: HubSession) -> None:
    """Start alice's server, which a login may have done, and wait for its answer."""
    deadline = time.monotonic() + PATIENCE
    alice.get("/hub/spawn")
    while not page(alice).endswith(" alice"):
        assert time.monotonic() < deadline, page(alice)
        time.sleep(0.5)


def test_it_is_as_old_as_it_should_be(machine: Machine) -> None:
    assert machine.succeed("systemctl", "--version").startswith("systemd 247 ")
    assert machine.succeed("getconf", "GNU_LIBC_VERSION") == "glibc 2.31\n"


def test_install_enables_all_units(machine: Machine, installer: Path) -> None:
    machine.copy_in(installer, "/mnt/barehub.sh")
    machine.succeed("sh", "/mnt/barehub.sh", "-b")
    machine.succeed(BAREHUB, "status")
    assert machine.succeed("systemctl", "is-enabled", "barehub.target") == "enabled\n"


def test_alice_logs_in_and_has_a_server(machine: Machine, alice: HubSession) -> None:
    machine.write("/opt/barehub/jupyterhub_config.d/50-test.py", TEST_CONFIG)
    machine.succeed("systemctl", "restart", HUB)
    machine.eventually(BAREHUB, "status")
    assert alice.login("not her password").status_code == 403
    alice.login()
    assert alice.is_logged_in()
    start_server(alice)


@pytest.mark.parametrize("unit", [HUB, PROXY])
def test_a_restart_leaves_her_server_alone(machine: Machine, alice: HubSession, unit: str) -> None:
    before = page(alice)
    machine.succeed("systemctl", "restart", unit)
    machine.eventually(BAREHUB, "status")
    assert page(alice) == before


def test_repair_and_a_second_install_change_nothing(machine: Machine, alice: HubSession) -> None:
    before = page(alice)
    machine.succeed("sh", "/mnt/barehub.sh", "-b", "-u")
    machine.eventually(BAREHUB, "status")
    assert page(alice) == before


def test_it_is_back_after_a_reboot(machine: Machine, alice: HubSession) -> None:
    machine.reboot()
    machine.eventually(BAREHUB, "status")
    assert alice.is_logged_in()
    start_server(alice)


def test_uninstall_leaves_no_unit_behind(machine: Machine) -> None:
    machine.succeed(BAREHUB, "uninstall", "-y")
    assert "barehub" not in machine.succeed("find", "/etc/systemd")
    machine.fails("ls", "/opt/barehub")
