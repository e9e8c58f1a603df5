"""The power goes at points of an installation, and before each single step of an upgrade: what is active is whole.

What was not synced is lost. tests/bench/power_cut.py and qemu.py cut the power at ten moments of each, also while a
release's files are written.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.hub_client import BAREHUB, TEST_CONFIG, HubSession, wait_for_hub
from tests.machines.machine import Machine, booted

INSTALL, UPGRADE = "sh /mnt/older.sh -b", "sh /mnt/newer.sh -b -u"
BASE = "/opt/barehub"
STATE = f"{BASE}/state/hub"
CONFIG = f"{BASE}/jupyterhub_config.d"
POINTS = 4  # each takes a boot and an installation
# What an installation has made, but for the files of its release and alice's right to log in.
CLEAR = f"""
systemctl disable --quiet --now barehub.target barehub-hub barehub-proxy 2>/dev/null || :
cd {BASE}
find . -mindepth 1 -maxdepth 1 ! -name releases ! -name jupyterhub_config.d -exec rm -r {{}} +
rm -rf {CONFIG}/10-install.py /etc/systemd/system/barehub*
systemctl daemon-reload
sync
"""


@pytest.fixture(scope="module")
def machine(root: Path) -> Iterator[Machine]:
    with booted("power-cut", root, own=4000) as new:
        yield new


def fill(machine: Machine, command: str, label: str) -> None:
    """Let a release be complete, with what stops its hooks in it. Filling a prefix is cut off in other tests."""
    machine.succeed(*command.split(), "-s")
    site = machine.shell(f"echo {BASE}/releases/{label}/lib/python3*/site-packages").strip()
    machine.copy_in(Path(__file__).with_name("stopper.py"), f"{site}/stopper.py")
    machine.write(f"{site}/stopper.pth", "import stopper\n")
    machine.succeed("sync")


def stopped_before(machine: Machine, command: str, step: int) -> str:
    """Run the installer until it comes to a step, and return what that is; empty if it has ended before."""
    machine.write("/run/stop-at", str(step))
    script = f"{command} >/run/output 2>&1; echo $? >/run/code"
    machine.succeed("systemd-run", "--quiet", "--collect", "sh", "-c", script)
    machine.eventually("sh", "-c", "test -s /run/stopped || test -s /run/code")
    if machine.run("test", "-s", "/run/stopped").returncode:
        assert machine.read("/run/code") == "0\n", machine.read("/run/output")
        return ""
    return machine.read("/run/stopped")


def cut(machine: Machine) -> str:
    """Cut the power, boot, and return the release that is active then; empty for none."""
    machine.power_cut()
    machine.boot()
    return machine.run("readlink", f"{BASE}/hub").stdout.strip().rpartition("/")[2]


def require_whole(machine: Machine) -> None:
    wait_for_hub(machine)
    require_files(machine)


def require_files(machine: Machine) -> None:
    told = machine.run(BAREHUB, "verify").stdout
    assert not re.findall(r"^  (?!extra .*/stopper\.|fix: ).*", told, re.MULTILINE), told


def test_a_power_cut_at_points_of_an_installation(machine: Machine, older: Path) -> None:
    machine.copy_in(older, "/mnt/older.sh")
    fill(machine, INSTALL, older.name.split("-")[1])
    machine.write(f"{CONFIG}/50-test.py", TEST_CONFIG)
    for _ in range(2):  # the first one also makes the proxy's account, which stays
        machine.shell(f"{CLEAR}\nrm -f /run/steps /run/code")
        assert stopped_before(machine, INSTALL, 10_000) == ""
    steps = machine.read("/run/steps").splitlines()
    seen, active = [], []
    for number in range(POINTS):
        machine.shell(f"{CLEAR}\nrm -f /run/steps /run/code")
        point = 1 + number * (len(steps) - 2) // (POINTS - 1)  # from the first step on, at like distances
        seen.append(stopped_before(machine, INSTALL, point))
        active.append(cut(machine))
        print(f"cut before: {seen[-1]}; active: {active[-1]}")
        if active[-1]:  # but its units may not be there yet
            require_files(machine)
        machine.succeed(*INSTALL.split())
        require_whole(machine)
        alice = HubSession(machine, "alice")
        alice.login()
        assert alice.is_logged_in()
    assert all(seen)
    assert len(steps) >= POINTS
    assert active == sorted(active)  # nothing, then the release
    assert not active[0]
    assert active[-1]


def test_a_power_cut_before_any_step_of_an_upgrade(machine: Machine, older: Path, installer: Path) -> None:
    old, new = (path.name.split("-")[1] for path in (older, installer))
    machine.copy_in(installer, "/mnt/newer.sh")
    alice = HubSession(machine, "alice")
    alice.login()
    fill(machine, UPGRADE, new)

    active: list[str] = []
    seen: list[str] = []
    while step := stopped_before(machine, UPGRADE, len(seen) + 1):
        seen.append(step)
        active.append(cut(machine))
        print(f"cut before: {seen[-1]}")
        require_whole(machine)
        assert alice.is_logged_in()  # by a cookie that only the right database knows
        if active[-1] == new:
            machine.succeed("sh", "/mnt/newer.sh", "-b", "-u")
            machine.succeed(BAREHUB, "rollback", "-y")

    switched = seen.index("/opt/barehub/.hub.new /opt/barehub/hub")
    assert active == [old] * (switched + 1) + [new] * (len(seen) - switched - 1)
    # That there were so many, or the enumeration has missed what counts.
    for step in (
        "systemctl stop",
        "barehub.lifecycle.database_worker",
        "backups/",
        "systemd/",
        "systemctl restart",
        f"{STATE}/jupyterhub-",
    ):
        assert any(step in one for one in seen), step
    assert machine.succeed("readlink", "/opt/barehub/hub") == f"releases/{new}\n"
    machine.succeed(BAREHUB, "status")
    assert alice.is_logged_in()
    left = machine.shell(f"cd {STATE} && ls -A").split()
    assert not [name for name in left if name.endswith(".new")]
