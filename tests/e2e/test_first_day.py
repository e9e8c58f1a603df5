"""The first day with barehub, told in order on one machine: install, work, break, lose power, uninstall."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.machines.hub_client import BAREHUB, HUB, PROXY, HubSession, Kernel, let_users_in
from tests.machines.machine import Machine

# What uninstalling need not give back: mounts and temporary files, logs, systemd's own notes (random seed,
# timers), the copies that useradd and userdel make of their files, and what is the users'.
NOT_COMPARED = (
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/lib/systemd", "/home"),
    *("/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-"),
)

# What a connection that breaks off looks like to http.client.
CUT_OFF = {"ConnectionResetError", "RemoteDisconnected"}


def files(machine: Machine) -> set[str]:
    """All files: a line with type, mode, owner, path and link's target of each; one with a file's SHA-256."""
    prune = " -o ".join(f"-path {path}" for path in NOT_COMPARED)
    show = r"-printf '%M %U:%G %p %l\n' -type f -exec sha256sum {} +"
    return set(machine.shell(rf"find / \( {prune} \) -prune -o {show}").splitlines())


@contextmanager
def visitor(machine: Machine) -> Iterator[Counter[str]]:
    """Somebody who asks for a page again and again meanwhile, over new connections; what came of it, counted."""
    seen, gone = Counter[str](), threading.Event()

    def visit() -> None:
        with machine.network():
            while not gone.wait(0.02):
                connection = HTTPConnection("127.0.0.1", 8000, timeout=120)
                try:
                    connection.request("GET", "/hub/health")
                    seen[str(connection.getresponse().status)] += 1
                except OSError as e:
                    seen[type(e).__name__] += 1
                finally:
                    connection.close()

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield seen
    finally:
        gone.set()
        thread.join()


@pytest.fixture(scope="module")
def files_before(machine: Machine) -> set[str]:
    """What is there without barehub, if the first test asks for it."""
    return files(machine)


@pytest.fixture(scope="module")
def alice(machine: Machine) -> HubSession:
    return HubSession(machine, "alice")


@pytest.fixture(scope="module")
def kernel(alice: HubSession) -> Kernel:
    """A kernel of alice's, which holds an answer."""
    alice.start_server()
    kernel = alice.start_kernel()
    kernel.execute("answer = 42")
    return kernel


def test_install_without_questions(machine: Machine, files_before: set[str], installer: Path) -> None:
    machine.copy_in(installer, "/mnt/barehub.sh")
    machine.succeed("bash", "/mnt/barehub.sh", "-b")
    machine.succeed("rm", "/mnt/barehub.sh")
    machine.succeed(BAREHUB, "status")
    assert machine.succeed("systemctl", "is-enabled", "barehub.target") == "enabled\n"


def test_nobody_logs_in_before_the_admin_says_who(machine: Machine, alice: HubSession) -> None:
    assert "Sign in" in alice.get("/").text
    assert alice.login().status_code == 403
    let_users_in(machine)
    assert alice.login("not her password").status_code == 403
    alice.login()
    assert alice.is_logged_in()


def test_alice_works_as_herself(kernel: Kernel) -> None:
    assert kernel.execute("import getpass; print(getpass.getuser(), answer)") == "alice 42\n"


@pytest.mark.parametrize("verb", ["restart", "reload"])
def test_hub_restarts_unnoticed_by_her_notebook(machine: Machine, kernel: Kernel, verb: str) -> None:
    machine.succeed("systemctl", verb, HUB)
    assert kernel.execute("print(answer)") == "42\n"
    machine.eventually(BAREHUB, "status")
    assert kernel.session.is_logged_in()


def test_people_see_a_page_while_the_hub_is_away(machine: Machine, kernel: Kernel) -> None:
    machine.write("/opt/barehub/announcement.md", "New disks on **Friday**")
    machine.write("/opt/barehub/maintenance.md", "Back at 14:00 <now>")
    browser = {"Accept": "text/html"}
    assert "New disks on <strong>Friday</strong>" in kernel.session.get("/hub/home").text
    machine.succeed("systemctl", "stop", HUB)
    page = kernel.session.get("/hub/home", headers=browser)
    assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
    assert "Back at 14:00 &lt;now&gt;" in page.text
    assert kernel.session.get("/hub/api/user").json()["status"] == 503
    status = machine.fails(BAREHUB, "status", code=1)
    assert "the proxy answers 503" in status
    assert "maintenance" in status
    assert kernel.execute("print(answer)") == "42\n"
    machine.succeed("systemctl", "start", HUB)
    machine.eventually(BAREHUB, "status")
    closed = kernel.session.get("/hub/home", headers=browser)  # it is back, but not for her
    assert closed.status_code == 503
    assert "Closed for maintenance" in closed.text
    assert "Back at 14:00 &lt;now&gt;" in closed.text
    assert kernel.session.start_kernel().execute("print(6 * 7)") == "42\n"
    machine.succeed("rm", "/opt/barehub/maintenance.md")
    assert kernel.session.is_logged_in()
    assert kernel.session.get("/hub/home").status_code == 200


def test_its_numbers_are_published(machine: Machine) -> None:
    machine.shell("cp /opt/barehub/hub/share/barehub/examples/barehub-metrics.* /etc/systemd/system/")
    machine.succeed("systemd-analyze", "verify", "/etc/systemd/system/barehub-metrics.timer")
    machine.succeed("mkdir", "-p", "/var/lib/prometheus/node-exporter")
    machine.succeed("systemctl", "start", "barehub-metrics.service")
    assert 'barehub_up{base="/opt/barehub",part="hub"} 1' in machine.read(
        "/var/lib/prometheus/node-exporter/barehub.prom"
    )
    machine.shell("rm -r /etc/systemd/system/barehub-metrics.* /var/lib/prometheus; systemctl daemon-reload")


def test_proxy_restarts_without_turning_a_visitor_away(machine: Machine, kernel: Kernel) -> None:
    with visitor(machine) as seen:
        machine.succeed("systemctl", "restart", PROXY)
        kernel.connect()
    assert set(seen) == {"200"}
    assert kernel.execute("print(answer)") == "42\n"


@pytest.mark.parametrize("process", ["hub", "proxy", "traefik"])
def test_any_process_may_be_killed(machine: Machine, kernel: Kernel, process: str) -> None:
    def pid() -> str:
        main = machine.unit(HUB if process == "hub" else PROXY, "MainPID")
        return machine.succeed("pgrep", "--parent", main).strip() if process == "traefik" else main

    with visitor(machine) as seen:
        before = pid()
        machine.succeed("kill", "-KILL", before)
        kernel.connect()
        assert kernel.execute("print(answer)") == "42\n"
        machine.eventually(BAREHUB, "status")
    assert pid() != before
    # Whose request is being answered can see the process die; nobody is refused, and nobody sees a 404.
    assert set(seen) <= {"200"} | ({"503"} if process == "hub" else CUT_OFF)
    assert kernel.session.is_logged_in()


@pytest.mark.parametrize("lose_power", [Machine.poweroff, Machine.power_cut])
def test_all_is_well_when_the_machine_is_back(
    machine: Machine, alice: HubSession, lose_power: Callable[[Machine], None]
) -> None:
    lose_power(machine)
    machine.boot()
    machine.eventually(BAREHUB, "status")
    assert alice.is_logged_in()
    alice.start_server()
    assert alice.start_kernel().execute("print(6 * 7)") == "42\n"


def test_uninstall_leaves_nothing_behind(machine: Machine, files_before: set[str]) -> None:
    machine.succeed(BAREHUB, "uninstall", "-y")
    assert files(machine) ^ files_before == set()
    machine.fails("pgrep", "--full", "/opt/barehub", code=1)
