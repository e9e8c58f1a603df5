"""Two ordinary users on one machine, each with a hub of their own under their own systemd: one machine, one story."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.machine import Machine, booted
from tests.machines.user_units import (
    BASE,
    PORTS,
    barehub,
    install,
    let_in,
    run,
    session,
    start_systemd,
    systemctl,
    until_healthy,
)


@pytest.fixture(scope="module")
def machine(root: Path, older: Path, installer: Path) -> Iterator[Machine]:
    with booted("user-units", root) as new:
        new.copy_in(older, "/mnt/older.sh")
        new.copy_in(installer, "/mnt/newer.sh")
        for user in PORTS:
            start_systemd(new, user)
        yield new


def test_each_installs_a_hub_with_units_of_their_own(machine: Machine) -> None:
    told = run(machine, "alice", "sh", "/mnt/older.sh", "-b", "--dry-run", "-p", BASE.format("alice"))
    assert "link     /home/alice/.config/systemd/user/barehub-hub.service" in told
    assert "account" not in told
    install(machine, "alice", "/mnt/older.sh")
    output = install(machine, "bob", "/mnt/newer.sh", "--bind-url", f"http://:{PORTS['bob']}")
    assert "systemctl --user reload barehub-hub.service" in output
    assert "lingering" not in output
    for user in PORTS:
        assert "healthy" in until_healthy(machine, user)
        assert systemctl(machine, user, "is-enabled", "barehub.target") == "enabled\n"
        running = machine.succeed("pgrep", "--full", f"{BASE.format(user)}/hub/bin").split()
        assert set(machine.succeed("ps", "-o", "user=", "-p", ",".join(running)).split()) == {user}
    assert not machine.run("find", "/etc/systemd", "-name", "barehub*").stdout


def test_they_log_in_and_have_servers(machine: Machine) -> None:
    for user in PORTS:
        let_in(machine, user)
        hub = session(machine, user)
        assert hub.login("not the password").status_code == 403
        hub.login()
        hub.start_server()


def test_an_upgrade_a_rollback_and_a_crash_leave_the_server_alone(
    machine: Machine, older: Path, installer: Path
) -> None:
    alice = session(machine, "alice")
    alice.login()
    alice.get("/user/alice/lab").raise_for_status()  # her server runs, and has its cookies
    kernel = alice.start_kernel()
    kernel.execute("answer = 42")
    for step, release in (("-u", installer), ("rollback", older), ("-u", installer)):
        if step == "-u":
            install(machine, "alice", "/mnt/newer.sh", "-u")
        else:
            barehub(machine, "alice", step, "-y")
        until_healthy(machine, "alice")
        active = machine.succeed("readlink", f"{BASE.format('alice')}/hub")
        assert active == f"releases/{release.name.split('-')[1]}\n"
        assert kernel.execute("print(answer)") == "42\n"
    machine.succeed("pkill", "--signal=KILL", "--uid=alice", "traefik")
    until_healthy(machine, "alice")
    kernel.connect()
    assert kernel.execute("print(answer)") == "42\n"


def test_both_are_back_after_a_reboot(machine: Machine) -> None:
    machine.reboot()
    for user in PORTS:
        until_healthy(machine, user)
        assert session(machine, user).get("/hub/login").status_code == 200


def test_without_lingering_it_says_when_it_stops(machine: Machine) -> None:
    machine.succeed("loginctl", "disable-linger", "bob")
    session = machine.succeed("runuser", "--login", "bob", "--command=sh /mnt/newer.sh -b -f -p ~/hub")
    assert "it stops when you log out, since lingering is off: loginctl enable-linger" in session
    start_systemd(machine, "bob")


def test_uninstall_leaves_nothing(machine: Machine) -> None:
    for user in PORTS:
        until_healthy(machine, user)
        barehub(machine, user, "uninstall", "-y")
        assert not machine.run("find", f"/home/{user}", "-path", "*barehub*").stdout
        machine.fails("ls", BASE.format(user))
