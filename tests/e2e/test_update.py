"""`-u`: a newer release over a running hub, with somebody at work; and one that does not get through."""

from pathlib import Path

import pytest

from construct.build import build_release
from tests.hub_client import BAREHUB, HUB, PROXY, HubSession, Kernel
from tests.machine import Machine

OLD_SCHEMA = "4621fec11365"  # JupyterHub 5's
DOWNGRADE = f"""
import subprocess
from jupyterhub import dbutil
with dbutil._temp_alembic_ini("sqlite:////opt/barehub/state/hub/jupyterhub.sqlite") as ini:
    subprocess.run(["/opt/barehub/hub/bin/alembic", "-c", ini, "downgrade", "{OLD_SCHEMA}"], check=True)
"""


@pytest.fixture(scope="module")
def newer(installer: Path) -> str:
    """The label of a second release of the same day, built beside the first."""
    label = f"{installer.name.split('-')[1]}.1"
    build_release(Path(__file__).parents[2], date=label, output=installer.parent)
    return label


@pytest.fixture(scope="module")
def kernel(hub: Machine) -> Kernel:
    """A kernel of alice's, which holds an answer."""
    alice = HubSession(hub, "alice")
    alice.login()
    alice.start_server()
    kernel = alice.start_kernel()
    kernel.execute("answer = 42")
    return kernel


def test_what_does_not_get_through_changes_nothing(hub: Machine, kernel: Kernel, installer: Path, newer: str) -> None:
    hub.copy_in(installer.with_name(installer.name.replace("-Linux", ".1-Linux")), "/mnt/newer.sh")
    running = hub.unit(HUB, "InvocationID"), hub.unit(PROXY, "InvocationID")
    assert "give -u to update it" in hub.fails("sh", "/mnt/newer.sh", "-b", code=6)
    hub.write("/opt/barehub/jupyterhub_config.d/90-broken.py", "c.JupyterHub.hub_port = (\n")
    output = hub.fails("sh", "/mnt/newer.sh", "-b", "-u", code=7)
    assert "90-broken.py, line 1: SyntaxError" in output
    assert newer not in hub.succeed("readlink", "/opt/barehub/hub")
    assert (hub.unit(HUB, "InvocationID"), hub.unit(PROXY, "InvocationID")) == running
    hub.succeed("rm", "/opt/barehub/jupyterhub_config.d/90-broken.py")
    hub.succeed(BAREHUB, "status")
    assert kernel.execute("print(answer)") == "42\n"


def test_an_update_migrates_the_database_and_nobody_stops_working(hub: Machine, kernel: Kernel, newer: str) -> None:
    old = hub.succeed("readlink", "/opt/barehub/hub").strip().rpartition("/")[2]
    hub.succeed("systemctl", "stop", HUB)
    hub.succeed("/opt/barehub/hub/bin/python", "-I", "-c", DOWNGRADE)
    proxy = hub.unit(PROXY, "InvocationID")
    output = hub.succeed("sh", "/mnt/newer.sh", "-b", "-u")
    assert f"backed up the database to /opt/barehub/state/hub/backups/jupyterhub-{old}.sqlite" in output
    assert hub.succeed("readlink", "/opt/barehub/hub") == f"releases/{newer}\n"
    status = hub.succeed(BAREHUB, "status")
    assert f"also there             {old}" in status
    # What the proxy runs is the same in both, so it was left alone, and so was her websocket.
    assert hub.unit(PROXY, "InvocationID") == proxy
    assert kernel.execute("print(answer)") == "42\n"
    assert kernel.session.is_logged_in()


def test_an_older_installer_is_refused_afterwards(hub: Machine) -> None:
    assert "which is newer than" in hub.fails("sh", "/mnt/barehub.sh", "-b", "-u", code=6)


def test_a_release_that_does_not_start_gives_way_to_the_old_one(hub: Machine, kernel: Kernel, newer: str) -> None:
    """The older release takes the newer's place here: the link is put back, and its restart fails."""
    old = newer.removesuffix(".1")
    hub.succeed("ln", "-sfn", f"releases/{old}", "/opt/barehub/hub")
    hub.succeed("systemctl", "restart", HUB)
    hub.eventually(BAREHUB, "status")
    hub.succeed("mv", f"/opt/barehub/releases/{newer}/bin/jupyterhub", "/mnt/jupyterhub")
    output = hub.fails("sh", "/mnt/newer.sh", "-b", "-u", code=7)
    assert f"going back to {old}" in output
    assert "its last messages:" in output
    hub.eventually(BAREHUB, "status")
    assert hub.succeed("readlink", "/opt/barehub/hub") == f"releases/{old}\n"
    assert kernel.execute("print(answer)") == "42\n"
