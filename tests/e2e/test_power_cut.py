"""The power goes before each single step of an upgrade: after a boot the old release runs, or the new one, whole.

What was not synced is lost. tests/bench/power_cut.py cuts the power while a release's files are written.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.hub_client import BAREHUB, HubSession, let_users_in
from tests.machines.machine import Machine, booted

UPGRADE = "sh /mnt/newer.sh -b -u >/run/output 2>&1; echo $? >/run/code"
STATE = "/opt/barehub/state/hub"


@pytest.fixture(scope="module")
def machine(root: Path) -> Iterator[Machine]:
    with booted("power-cut", root, own=4000) as new:
        yield new


def test_a_power_cut_before_any_step_of_an_upgrade(machine: Machine, older: Path, installer: Path) -> None:
    old, new = (path.name.split("-")[1] for path in (older, installer))
    machine.copy_in(older, "/mnt/older.sh")
    machine.copy_in(installer, "/mnt/newer.sh")
    machine.succeed("sh", "/mnt/older.sh", "-b")
    let_users_in(machine)
    alice = HubSession(machine, "alice")
    alice.login()
    # Filling a prefix is cut off in other tests; here its release is ready.
    machine.succeed("sh", "/mnt/newer.sh", "-b", "-u", "-s")
    site = machine.shell(f"echo /opt/barehub/releases/{new}/lib/python3*/site-packages").strip()
    machine.copy_in(Path(__file__).with_name("stopper.py"), f"{site}/stopper.py")
    machine.write(f"{site}/stopper.pth", "import stopper\n")
    machine.succeed("sync")

    active, seen = [], []
    while True:
        machine.write("/run/stop-at", str(len(seen) + 1))
        machine.succeed("systemd-run", "--quiet", "--collect", "sh", "-c", UPGRADE)
        machine.eventually("sh", "-c", "test -s /run/stopped || test -s /run/code")
        if machine.run("test", "-s", "/run/stopped").returncode:
            assert machine.read("/run/code") == "0\n", machine.read("/run/output")
            break
        seen.append(machine.read("/run/stopped"))
        machine.power_cut()
        machine.boot()
        print(f"cut before: {seen[-1]}")
        machine.eventually(BAREHUB, "status")
        active.append(machine.succeed("readlink", "/opt/barehub/hub").strip().rpartition("/")[2])
        assert alice.is_logged_in()  # by a cookie that only the right database knows
        assert not re.findall(r"^  (?!extra .*/stopper\.|fix: ).*", machine.run(BAREHUB, "verify").stdout, re.MULTILINE)
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
