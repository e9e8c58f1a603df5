"""The same installers on Debian 11 (glibc 2.31, systemd 247) and Debian 13 (2.41, 257): one story, told on each.

Debian 11 needs an installer with the portable interpreter: where that cannot be had, its story cannot run and says so.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from construct.contents import read_installer
from construct.systems import parse_glibc
from recipe.errors import UserError
from tests.conftest import cannot_run
from tests.machines import rootfs, user_units
from tests.machines.hub_client import BAREHUB, HUB, PROXY, HubSession, let_users_in
from tests.machines.machine import PATIENCE, Machine, booted
from tests.machines.other_rootfs import DEBIAN_11, DEBIAN_13, KERNEL_ARGUMENTS, System, cached_other_root
from tests.systemd_versions import OLD, exposure, exposures, service

DISK = "/disk"  # another file system than that of /etc


@pytest.fixture(scope="module", params=[DEBIAN_11, DEBIAN_13], ids=lambda system: system.suite)
def system(request: pytest.FixtureRequest) -> System:
    assert isinstance(request.param, System)
    return request.param


@pytest.fixture(scope="module")
def machine(system: System, installer: Path) -> Iterator[Machine]:
    needed = read_installer(installer).release["glibc"]
    if parse_glibc(needed) > system.glibc:
        # Not a fault of this machine's, even in CI: no package of a distribution has that interpreter.
        pytest.skip(f"{installer.name} needs glibc {needed}: the portable interpreter could not be had")
    try:
        if missing := rootfs.missing_host_packages():
            raise UserError(f"the host lacks {' '.join(missing)}", fix="python3 release.py test")
        root = cached_other_root(system)
    except UserError as e:
        cannot_run(f"{e}\n  fix: {e.fix}")
    with booted(system.suite, root, {DISK: 1700}, arguments=KERNEL_ARGUMENTS) as new:
        yield new


@pytest.fixture(scope="module")
def alice(machine: Machine) -> HubSession:
    return HubSession(machine, "alice")


def page(hub: HubSession) -> str:
    """What the user's server answers: its process and its user."""
    return hub.get(f"/user/{hub.user}/lab").text


def start_server(hub: HubSession) -> None:
    """Start the user's server, which a login may have done, and wait for its answer."""
    deadline = time.monotonic() + PATIENCE
    hub.get("/hub/spawn")
    while not page(hub).endswith(f" {hub.user}"):
        assert time.monotonic() < deadline, page(hub)
        time.sleep(0.5)


def test_it_is_the_system_that_is_meant(machine: Machine, system: System) -> None:
    assert machine.succeed("systemctl", "--version").startswith(f"systemd {system.systemd} ")
    assert machine.succeed("getconf", "GNU_LIBC_VERSION") == "glibc {}.{}\n".format(*system.glibc)


def test_install_enables_all_units(machine: Machine, older: Path, installer: Path) -> None:
    machine.copy_in(older, "/mnt/older.sh")
    machine.copy_in(installer, "/mnt/newer.sh")
    machine.succeed("sh", "/mnt/older.sh", "-b")
    machine.succeed(BAREHUB, "status")
    assert machine.succeed("systemctl", "is-enabled", "barehub.target") == "enabled\n"


def test_alice_logs_in_and_has_a_server(machine: Machine, alice: HubSession) -> None:
    let_users_in(machine)
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


def test_an_upgrade_and_a_rollback_leave_her_server_alone(
    machine: Machine, alice: HubSession, older: Path, installer: Path
) -> None:
    before = page(alice)
    for command, release in (
        (("sh", "/mnt/newer.sh", "-b", "-u"), installer),
        ((BAREHUB, "rollback", "-y"), older),
        (("sh", "/mnt/newer.sh", "-b", "-u"), installer),
        (("sh", "/mnt/newer.sh", "-b", "-f"), installer),
    ):
        machine.succeed(*command)
        machine.eventually(BAREHUB, "status")
        assert machine.succeed("readlink", "/opt/barehub/hub") == f"releases/{release.name.split('-')[1]}\n"
        assert page(alice) == before
        assert alice.is_logged_in()


def test_a_second_hub_on_another_file_system_has_copies_of_its_units(machine: Machine, alice: HubSession) -> None:
    place = f"{DISK}/lab"
    command = ("sh", "/mnt/newer.sh", "-b", "-p", place, "--name", "lab", "--bind-url", "http://127.0.0.1:8300")
    machine.succeed(*command)
    machine.succeed(f"{place}/hub/bin/barehub", "status")
    machine.succeed(
        "test", "-f", "/etc/systemd/system/lab-hub.service", "-a", "!", "-L", "/etc/systemd/system/lab-hub.service"
    )
    assert machine.succeed("systemctl", "is-enabled", "lab.target") == "enabled\n"
    machine.succeed(*command, "-f")
    machine.succeed(f"{place}/hub/bin/barehub", "uninstall", "-y")
    assert "lab" not in machine.succeed("find", "/etc/systemd", "-name", "lab*")
    assert alice.is_logged_in()


def test_the_proxy_s_sandbox_is_as_tight_as_documented(machine: Machine, system: System) -> None:
    process = machine.succeed("systemctl", "show", "--value", "--property=MainPID", PROXY).strip()
    there = ("nsenter", "--mount", "--target", process)
    machine.succeed(*there, "/opt/barehub/hub/bin/traefik", "version")
    for program in ("/bin/sh", "/usr/bin/env"):
        machine.fails(*there, program)
    found = exposure(machine.succeed("systemd-analyze", "security", "--no-pager", PROXY))
    known = max(version for version in OLD if version <= system.systemd)
    assert abs(float(found) - float(exposures()["proxy", known])) <= 0.1
    if system is DEBIAN_13:  # the one that looks into files, and whose figures are documented
        for (name, version), figure in exposures().items():
            place = f"/run/older/barehub-{name}.service"
            machine.write(place, service(name, version))
            analysis = machine.succeed("systemd-analyze", "security", "--no-pager", "--offline=true", place)
            assert exposure(analysis) == figure, (name, version)


def test_a_user_has_a_hub_of_their_own_beside_it(machine: Machine, alice: HubSession, installer: Path) -> None:
    """The same file, as an ordinary user."""
    user_units.start_systemd(machine, "bob")
    url = f"http://:{user_units.PORTS['bob']}"
    user_units.install(machine, "bob", "/mnt/older.sh", "--bind-url", url)
    assert "healthy" in user_units.until_healthy(machine, "bob")
    user_units.let_in(machine, "bob")
    bob = user_units.session(machine, "bob")
    assert bob.login("not his password").status_code == 403
    bob.login()
    start_server(bob)
    before = page(bob)
    user_units.install(machine, "bob", "/mnt/newer.sh", "-u")
    user_units.until_healthy(machine, "bob")
    assert page(bob) == before
    assert user_units.systemctl(machine, "bob", "is-enabled", "barehub.target") == "enabled\n"
    assert alice.is_logged_in()


def test_both_are_back_after_a_reboot(machine: Machine, alice: HubSession) -> None:
    machine.reboot()
    machine.eventually(BAREHUB, "status")
    assert alice.is_logged_in()
    start_server(alice)
    user_units.until_healthy(machine, "bob")
    bob = user_units.session(machine, "bob")
    bob.login()
    start_server(bob)


def test_a_user_s_uninstallation_leaves_nothing_of_theirs_behind(machine: Machine) -> None:
    user_units.barehub(machine, "bob", "uninstall", "-y")
    assert not machine.run("find", "/home/bob", "-path", "*barehub*").stdout
    machine.fails("ls", user_units.BASE.format("bob"))
    machine.succeed(BAREHUB, "status")


def test_uninstall_leaves_no_unit_behind(machine: Machine) -> None:
    machine.succeed(BAREHUB, "uninstall", "-y")
    assert "barehub" not in machine.succeed("find", "/etc/systemd")
    machine.fails("ls", "/opt/barehub")
