"""From two files to a plot, on a machine without a network: the hub, and `lab` for its users; then a newer `lab`."""

import re
import subprocess
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from construct.build import build_release
from construct.diff import diff
from construct.verify import verify
from tests.machines import installers
from tests.machines.browser import log_in, run_cell
from tests.machines.hub_client import URL, HubSession, Kernel
from tests.machines.machine import Machine
from tests.machines.rootfs import LAB
from tests.readme import README, commands
from tests.unit.wheels import make

BASE = "/opt/lab"
PLOT = "import sys, matplotlib.pyplot as plt; plt.plot([1, 4, 9]); print(sys.prefix)"

SEEN = "import numpy, sys, demo\nprint(sys.prefix, numpy.__file__, demo.NAME)\n"
# Connects to a kernel's socket for what it prints, and prints what came of it.
LISTEN = """
import sys, zmq
from zmq.utils.monitor import recv_monitor_message
socket = zmq.Context().socket(zmq.SUB)
done = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_DISCONNECTED
monitor = socket.get_monitor_socket(done)
socket.connect(f"tcp://127.0.0.1:{sys.argv[1]}")
print(recv_monitor_message(monitor)["event"].name, flush=True)
"""


@pytest.fixture(scope="module")
def lab() -> Path:
    return installers.environment(LAB.name)


@pytest.fixture(scope="module")
def newer(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next release of `lab`, made of the packages that `lab` brought to a site, and signed by that site."""
    site = tmp_path_factory.mktemp("site")
    subprocess.run(["sh", lab, "--extract", site / "mirror"], stdout=subprocess.DEVNULL, check=True)
    key = site / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (locked,) = site.glob("mirror/releases/*/environment.lock.yml")
    return build_release(
        installers.ROOT,
        date=f"{label(lab)}.1",
        output=site / "dist",
        environment=LAB,
        channels=[f"file://{site / 'mirror'}"],
        lock=locked,
        sign=str(key),
    )


@pytest.fixture(scope="module")
def kernel(hub: Machine) -> Kernel:
    """A kernel in the server that alice has started in her browser."""
    alice = HubSession(hub, "alice")
    alice.login()
    alice.get("/user/alice/lab").raise_for_status()
    return alice.start_kernel()


def label(installer: Path) -> str:
    return installer.name.split("-")[1]


def prefix(installer: Path) -> str:
    return f"{BASE}/releases/{label(installer)}"


def install(machine: Machine, installer: Path, *options: str) -> str:
    """Install as bob, who is no administrator; what the installer printed."""
    if machine.run("test", "-e", f"/mnt/{installer.name}").returncode:
        machine.copy_in(installer, f"/mnt/{installer.name}")
    return machine.as_user("bob", "sh", f"/mnt/{installer.name}", "-b", "-p", BASE, *options)


@pytest.fixture(scope="module")
def hub(machine: Machine, installer: Path, lab: Path) -> Machine:
    """The machine after the commands of the README's first hour, with nothing but the two files.

    The environment is installed by bob, who is no administrator.
    """
    machine.copy_in(installer, f"/mnt/{installer.name}")
    machine.succeed("install", "-d", "-o", "bob", BASE)
    for line in (one for one in commands(README) if "release.py" not in one):
        if line.startswith("sudo sh lab-"):
            printed = install(machine, lab)
        elif "--diff" in line:  # the first hour is over
            break
        else:
            command = re.sub(r"^sudo sh .*", f"sh /mnt/{installer.name} -b", line)
            (machine.eventually if "status" in line else machine.succeed)("sh", "-euc", command)
    (said,) = re.findall(r"c\.Spawner\.cmd = .+", printed)
    assert said in machine.read("/opt/barehub/jupyterhub_config.d/50-pam-users.py").splitlines()
    return machine


def test_it_needs_no_root(hub: Machine) -> None:
    assert hub.succeed("find", BASE, "!", "-user", "bob") == ""


def test_alice_logs_in_and_plots(hub: Machine, lab: Path, browser: Chrome, screenshots: Path) -> None:
    browser.get(URL)
    log_in(browser, "alice", picture=screenshots / "login.png")
    browser.find_element(By.ID, "progress-bar")
    browser.save_screenshot(screenshots / "starting.png")
    browser.find_element(By.CSS_SELECTOR, ".jp-LauncherCard[data-category=Notebook]").click()
    assert browser.current_url.startswith(f"{URL}/user/alice/lab")
    browser.find_element(By.CSS_SELECTOR, ".jp-Notebook")
    assert run_cell(browser, PLOT) == prefix(lab)
    browser.find_element(By.CSS_SELECTOR, ".jp-OutputArea-output img")
    browser.save_screenshot(screenshots / "plot.png")
    assert "Jupyter news" not in browser.page_source


def test_what_a_first_hour_needs_is_there(kernel: Kernel) -> None:
    kernel.execute("import ipywidgets, numpy, pandas, scipy.linalg")
    assert kernel.execute("print(pandas.Series(scipy.linalg.inv(numpy.eye(3) * 2).sum(axis=0)).mean())") == "0.5\n"


def test_no_other_account_can_listen_to_a_kernel(hub: Machine, kernel: Kernel, lab: Path) -> None:
    ask = "from ipykernel.kernelapp import IPKernelApp; print(IPKernelApp.instance().iopub_port)"
    port = kernel.execute(ask).strip()
    handshake = hub.as_user("bob", f"{prefix(lab)}/bin/python", "-c", LISTEN, port)
    assert handshake in ("HANDSHAKE_FAILED_PROTOCOL\n", "DISCONNECTED\n")


def test_a_user_adds_a_package_as_the_page_of_the_release_says(hub: Machine, lab: Path, tmp_path: Path) -> None:
    page, release = LAB / "README.md", prefix(lab)
    assert hub.read(f"{release}/share/barehub/guides/lab.md") == page.read_text()
    wheel = make(tmp_path, "demo", files={"demo.py": "NAME = 'mine'\n"}).path
    hub.copy_in(wheel, f"/srv/wheels/{wheel.name}")
    hub.write("/srv/seen.py", SEEN)
    *add, remove = (
        line.replace("/shared/jupyter", BASE).replace("/shared/wheels", "/srv/wheels").replace("PACKAGE", "demo")
        for line in commands(page)
    )
    for command in add:
        hub.as_user("alice", "sh", "-euc", command)
    printed = hub.as_user("alice", f"{release}/bin/jupyter", "run", "--kernel=mine", "/srv/seen.py")
    kernels, numpy, name = printed.splitlines()[-1].split()
    assert (kernels, name) == ("/home/alice/kernels/mine", "mine")
    assert numpy.startswith(f"{release}/")
    hub.as_user("alice", "sh", "-euc", remove)
    assert "mine" not in hub.as_user("alice", f"{release}/bin/jupyter", "kernelspec", "list")


def test_the_next_release_is_that_of_the_mirrors_packages(lab: Path, newer: Path) -> None:
    verify(newer, None)
    changes = diff(lab, newer, markdown=False)
    assert label(newer) in changes
    assert "numpy" not in changes
    assert newer.with_name("SHA256SUMS.sig").exists()


def test_a_server_keeps_its_release_and_the_next_one_has_the_newer(
    hub: Machine, kernel: Kernel, lab: Path, newer: Path
) -> None:
    kernel.connect()  # the build may take longer than a socket lives that nobody reads
    kernel.execute("answer = 42")
    install(hub, newer, "-u")
    assert kernel.execute("import sys; print(answer, sys.prefix)") == f"42 {prefix(lab)}\n"
    alice = kernel.session
    assert started_from(alice) == f"{prefix(lab)}\n"
    alice.stop_server()
    alice.start_server()
    assert started_from(alice) == f"{prefix(newer)}\n"
    install(hub, newer, "--activate", label(lab))
    assert started_from(alice) == f"{prefix(newer)}\n"


def test_a_release_that_a_server_of_the_hub_has_is_kept_where_its_process_cannot_be_seen(
    hub: Machine, kernel: Kernel, lab: Path, newer: Path
) -> None:
    """As on a node of a cluster, whose hub starts servers on others."""
    alice, told = kernel.session, "/opt/barehub/state/environments/in-use"
    assert hub.read(told) == f"{prefix(newer)}\n"
    alice.stop_server()
    alice.start_server()
    install(hub, newer, "--activate", label(newer))
    assert hub.as_user("bob", "cat", told) == f"{prefix(lab)}\n"
    elsewhere = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "runuser", "-u", "bob", "--")
    keep = (*elsewhere, "sh", f"/mnt/{newer.name}", "-b", "-p", BASE, "--keep", "1")
    assert f"release {label(lab)} is kept: a server of a hub on this machine runs from it" in hub.succeed(*keep)
    assert alice.get("/user/alice/api/status").ok
    alice.stop_server()
    hub.eventually("test", "!", "-s", told)
    assert f"removing release {label(lab)}" in hub.succeed(*keep)
    assert hub.succeed("ls", f"{BASE}/releases") == f"{label(newer)}\n"


def started_from(session: HubSession) -> str:
    """The release of a new kernel of the session's server."""
    return session.start_kernel().execute("import sys; print(sys.prefix)")
