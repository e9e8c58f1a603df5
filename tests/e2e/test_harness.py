"""What all the other end-to-end tests rely on: the machines themselves."""

from collections.abc import Callable
from pathlib import Path

from selenium.webdriver import Chrome

from tests.machines.machine import Machine
from tests.machines.rootfs import USERS_ENVIRONMENT


def test_machine_is_up_and_has_no_way_out(machine: Machine) -> None:
    assert machine.succeed("systemctl", "is-system-running") == "running\n"
    assert machine.succeed("ls", "/sys/class/net") == "lo\n"
    assert machine.succeed("ip", "route", "show", "table", "all", "type", "unicast") == ""


def test_users_have_sessions_and_their_own_python(machine: Machine) -> None:
    assert machine.as_user("alice", "id", "-un") == "alice\n"
    assert machine.as_user("bob", f"{USERS_ENVIRONMENT}/bin/jupyterhub-singleuser", "--version") == "6.1.1\n"


def test_pam_knows_the_users_passwords(machine: Machine) -> None:
    check = "import pamela, sys; pamela.authenticate(*sys.argv[1:])"
    machine.succeed(f"{USERS_ENVIRONMENT}/bin/python", "-c", check, "alice", "wonderland")
    machine.fails(f"{USERS_ENVIRONMENT}/bin/python", "-c", check, "alice", "builder", code=1)


def test_written_files_survive_reboot_and_power_cut(machine: Machine) -> None:
    machine.shell("echo kept > /srv/file; sync /srv/file")
    machine.power_cut()
    machine.boot()
    machine.reboot()
    assert machine.read("/srv/file") == "kept\n"
    assert len(machine.succeed("journalctl", "--list-boots").splitlines()) == 1 + 3  # and a header


def test_small_disk_fills_up_and_survives(new_machine: Callable[..., Machine]) -> None:
    small = new_machine("small", disks={"/srv/data": 8})
    assert "No space left" in small.fails("dd", "if=/dev/zero", "of=/srv/data/big", "bs=1M", code=1)
    small.reboot()
    assert small.succeed("stat", "--file-system", "--format=%T", "/srv/data") == "ext2/ext3\n"
    small.succeed("test", "-s", "/srv/data/big")


def test_browser_is_on_the_machines_network(machine: Machine, browser: Chrome, screenshots: Path) -> None:
    machine.write("/srv/www/index.html", "<title>inside</title><h1>served inside the machine</h1>")
    machine.shell("systemd-run --quiet --unit=www python3 -m http.server --directory=/srv/www --bind ::1 80")
    machine.eventually("python3", "-c", "import urllib.request as r; r.urlopen('http://[::1]')")
    browser.get("http://[::1]")
    assert browser.title == "inside"
    assert browser.save_screenshot(screenshots / "harness.png")
