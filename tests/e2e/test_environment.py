"""An environment for users, from its file to a plot: installed by an account without root, used by the hub's users."""

from pathlib import Path

import pytest

from tests.machines import installers
from tests.machines.hub_client import BAREHUB, HUB, TEST_CONFIG, HubSession
from tests.machines.machine import Machine
from tests.readme import ROOT, commands

SHARED = "/shared/jupyter"
PLOT = """\
import sys, matplotlib.pyplot as plt, numpy, pandas, scipy.stats
plt.plot(numpy.arange(9))
plt.savefig("plot.png")
print(sys.prefix, open("plot.png", "rb").read(4)[1:].decode())
"""


@pytest.fixture(scope="module")
def environment() -> Path:
    return installers.environment("lab")


def release_of(installer: Path) -> str:
    return installer.name.split("-")[1]


def test_an_account_without_root_installs_it(machine: Machine, environment: Path) -> None:
    machine.copy_in(environment, "/mnt/lab.sh")
    machine.succeed("install", "-d", "-o", "bob", SHARED)
    machine.as_user("bob", "sh", "-c", f"umask 077 && sh /mnt/lab.sh -b -p {SHARED}")
    assert machine.succeed("readlink", f"{SHARED}/current").strip() == f"releases/{release_of(environment)}"


def test_a_users_server_runs_from_the_release_and_plots(hub: Machine, environment: Path) -> None:
    config = TEST_CONFIG.replace("/opt/users", f"{SHARED}/current")
    hub.write("/opt/barehub/jupyterhub_config.d/50-test.py", config)
    hub.succeed("systemctl", "restart", HUB)
    hub.eventually(BAREHUB, "status")
    alice = HubSession(hub, "alice")
    alice.login()
    alice.start_server()
    kernel = alice.start_kernel()
    real = f"{SHARED}/releases/{release_of(environment)}"
    assert f"{real} PNG\n" in kernel.execute(PLOT)
    assert f"{real}/bin/python" in hub.succeed("pgrep", "--list-full", "--uid", "alice", "--full", "singleuser")


def test_a_user_adds_a_kernel_as_the_page_has_it(machine: Machine) -> None:
    page = f"{SHARED}/current/share/barehub/guides/lab.md"
    assert machine.read(page) == (ROOT / "construct/environments/lab/README.md").read_text()
    make, _, register, *_ = commands(ROOT / "construct/environments/lab/README.md")
    machine.as_user("alice", "sh", "-euc", f"PATH={SHARED}/current/bin:$PATH\n{make}\n{register}")
    machine.as_user("alice", "sh", "-euc", "~/kernels/mine/bin/python -c 'import numpy, ipykernel'")
    listed = machine.as_user("alice", f"{SHARED}/current/bin/jupyter", "kernelspec", "list")
    assert "/home/alice/.local/share/jupyter/kernels/mine" in listed
