"""The overlay `single-node`: people of this machine, each server in a unit of its own that keeps to its limits."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from websocket import WebSocketTimeoutException

from tests.machines import installers
from tests.machines.browser import log_in, press_stop
from tests.machines.hub_client import URL, HubSession, Kernel, kernel_of
from tests.machines.lab import make_lab, switch
from tests.machines.machine import Machine, booted
from tests.machines.rootfs import USERS_ENVIRONMENT
from tests.readme import admin_commands

BASE, HUB = "/opt/single-node", "single-node-hub.service"
BAREHUB = f"{BASE}/hub/bin/barehub"
UNIT = "jupyter-alice-singleuser.service"
LAB = "/opt/lab"
ENVIRONMENTS = f"""
c.Spawner.environment = {{"SITE": "set"}}
c.UnitSpawner.environments = {{
    "Users": "{USERS_ENVIRONMENT}",
    "Current": "{LAB}/current",
    "Second": "{LAB}/releases/2",
}}
"""
LIMITS = 'c.Spawner.mem_limit = "400M"\nc.Spawner.cpu_limit = 0.5\nc.JupyterHub.allow_named_servers = True\n'


@pytest.fixture(scope="module")
def machine(root: Path) -> Iterator[Machine]:
    with booted("single-node", root, limits=True) as new:
        new.copy_in(installers.with_overlay("single-node"), "/mnt/single-node.sh")
        edit = f"sed -i s,/opt/lab/current,{USERS_ENVIRONMENT},"
        for command in admin_commands("single-node", "/mnt/single-node.sh", edit):
            new.shell(command)
            new.write(f"{BASE}/jupyterhub_config.d/60-limits.py", LIMITS)
        new.eventually(BAREHUB, "status")
        yield new


@pytest.fixture(scope="module")
def kernel(machine: Machine) -> Kernel:
    return kernel_of(machine, "alice")


def restart(machine: Machine) -> None:
    machine.succeed("systemctl", "restart", HUB)
    machine.eventually(BAREHUB, "status")


def test_a_server_is_a_unit_of_its_users(machine: Machine, kernel: Kernel) -> None:
    assert machine.unit(UNIT, "ActiveState") == "active"
    assert machine.unit(UNIT, "OOMScoreAdjust") == "200"
    assert machine.unit(UNIT, "User") == machine.succeed("id", "-u", "alice").strip()
    assert kernel.execute("import getpass, os; print(getpass.getuser(), os.getcwd())") == "alice /home/alice\n"
    assert "hub/bin" not in kernel.execute("print(os.environ['PATH'])")


def test_no_server_gets_more_cpu_than_its_limit(kernel: Kernel) -> None:
    code = """
import time
began, used = time.monotonic(), time.process_time()
while time.monotonic() < began + 4:
    pass
print((time.process_time() - used) / (time.monotonic() - began))
"""
    assert float(kernel.execute(code)) < 0.6


def test_no_server_gets_more_memory_than_its_limit(machine: Machine, kernel: Kernel) -> None:
    """The kernel that asked for too much is gone; the server is not, and starts another."""
    before = machine.unit(UNIT, "MainPID")
    kernel.socket.settimeout(10)
    with pytest.raises(WebSocketTimeoutException):
        kernel.execute("x = bytearray(1 << 30)")
    assert kernel.session.start_kernel().execute("print(6 * 7)") == "42\n"
    assert machine.unit(UNIT, "MainPID") == before


def test_bob_sees_nothing_of_alices_tmp(machine: Machine, kernel: Kernel) -> None:
    alice = kernel.session.start_kernel()
    alice.execute("open('/tmp/hers', 'w').close()")
    machine.fails("ls", "/tmp/hers")
    assert alice.execute("import subprocess; print(subprocess.call(['sudo', '-n', 'true']))") != "0\n"


def test_each_named_server_has_a_unit_of_its_own(machine: Machine, kernel: Kernel) -> None:
    before, path = machine.unit(UNIT, "MainPID"), "/hub/api/users/alice/servers/second"
    alice = kernel.session
    xsrf = {"X-XSRFToken": alice.xsrf("/hub/")}
    alice.post(path, headers=xsrf).raise_for_status()
    with alice.get(f"{path}/progress", headers=xsrf, stream=True) as events:
        assert any(b'"ready": true' in line for line in events.iter_lines())
    units = "systemctl list-units --plain --no-legend --state=active 'jupyter-alice-singleuser*' | wc -l"
    assert machine.succeed("sh", "-c", units).strip() == "2"
    assert machine.unit(UNIT, "MainPID") == before
    assert alice.delete(path, headers=xsrf).status_code in (202, 204)
    machine.eventually("sh", "-c", f"test $({units}) = 1")
    assert machine.unit(UNIT, "MainPID") == before


def test_an_account_may_have_a_backslash(machine: Machine) -> None:
    """winbind's have one: DOMAIN\\name."""
    machine.succeed("useradd", "--badname", "--create-home", "dom\\ada")
    machine.succeed("bash", "-c", "echo 'dom\\ada:secret' | chpasswd")
    ada = HubSession(machine, "dom\\ada")
    ada.login("secret")
    ada.user = "dom%5Cada"
    ada.start_server()
    assert ada.start_kernel().execute("import os; print(os.getcwd())") == "/home/dom\\ada\n"
    assert ada.stop_server().status_code in (202, 204)


def test_a_server_keeps_its_release_when_current_is_switched(
    machine: Machine, browser: Chrome, screenshots: Path
) -> None:
    make_lab(machine, LAB)
    machine.write(f"{BASE}/jupyterhub_config.d/70-environments.py", ENVIRONMENTS)
    restart(machine)
    browser.get(URL)
    log_in(browser, "bob")
    choice = Select(browser.find_element(By.ID, "environment"))
    too_old = "too old for this hub (jupyterhub 1.5.0)"
    assert [one.text for one in choice.options] == ["Users", "Current", f"Second: {too_old}"]
    choice.select_by_visible_text("Current")
    browser.save_screenshot(screenshots / "environments.png")
    browser.find_element(By.CSS_SELECTOR, "#spawn_form [type=submit]").click()
    browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
    switch(machine, LAB, "2")
    bob = HubSession(machine, "bob")
    bob.login()
    bob.get("/user/bob/lab").raise_for_status()
    told = bob.start_kernel().execute(
        "import os, sys; print(sys.prefix, os.environ['PATH'].split(':')[0], os.environ['SITE'])"
    )
    assert told == f"{LAB}/releases/1 {LAB}/releases/1/bin set\n"
    assert bob.stop_server().status_code in (202, 204)
    machine.eventually("sh", "-c", f"journalctl --unit={HUB} | grep 'User bob server took .* to stop'")
    browser.get(f"{URL}/hub/spawn")  # the choice is remembered, and means the other release now
    choice = Select(browser.find_element(By.ID, "environment"))
    assert choice.first_selected_option.get_attribute("value") == "Current"
    machine.succeed("chmod", "o-x", f"{LAB}/releases/2/bin")
    for environment, why in (
        ("None", "There is no environment None for you; there is Users, Current, Second"),
        (
            "Second",
            f"not started from Second: {LAB}/releases/2/bin/python cannot be looked at by bob: Permission denied",
        ),
    ):
        xsrf = {"X-XSRFToken": bob.xsrf("/hub/")}
        assert bob.post("/hub/api/users/bob/server", headers=xsrf, json={"environment": environment}).status_code >= 400
        assert why in bob.get("/hub/spawn-pending/bob").text
    assert f"Current: {LAB}/releases/2, jupyterhub 1.5.0" in machine.succeed(BAREHUB, "status")
    machine.succeed("rm", f"{BASE}/jupyterhub_config.d/70-environments.py")
    restart(machine)


def test_a_server_that_cannot_start_says_why(machine: Machine) -> None:
    """And a login by another name of an account is that account's."""
    wrong = 'c.SystemdSpawner.user_workingdir = "/no/such/place"\n'
    by_account = 'c.JupyterHub.authenticator_class = "barehub.logins.AccountPAM"\n'
    machine.write(f"{BASE}/jupyterhub_config.d/70-wrong.py", wrong + by_account)
    machine.shell("useradd --non-unique --uid=$(id -u bob) --no-create-home robert; echo robert:secret | chpasswd")
    restart(machine)
    bob = HubSession(machine, "robert")
    bob.login("secret")  # which starts a server
    said = "its unit failed with exit status 200"  # CHDIR (systemd.exec(5))
    machine.eventually("sh", "-c", f"journalctl --unit={HUB} | grep 'Not starting bob.*{said}'")
    assert said in bob.get("/hub/spawn-pending/bob").text
    machine.succeed("systemctl", "reset-failed", "jupyter-bob-singleuser.service")
    machine.succeed("rm", f"{BASE}/jupyterhub_config.d/70-wrong.py")
    restart(machine)


def test_it_outlives_the_hub_and_ends_with_its_user(
    machine: Machine, kernel: Kernel, browser: Chrome, screenshots: Path
) -> None:
    restart(machine)
    assert kernel.session.start_kernel().execute("print(6 * 7)") == "42\n"
    browser.get(URL)
    log_in(browser, "alice")
    browser.find_element(By.CSS_SELECTOR, ".jp-Launcher, .jp-Notebook")
    waits_for_the_hub(machine, browser, screenshots)
    press_stop(browser, lambda: machine.unit(UNIT, "ActiveState") == "inactive")
    kernel.session.start_server()
    finds_her_server_gone(machine, browser, screenshots)


def waits_for_the_hub(machine: Machine, browser: Chrome, screenshots: Path) -> None:
    """What alice sees while the hub is away: she touches nothing, and is where she wanted to be when it is back."""
    machine.succeed("systemctl", "stop", HUB)
    browser.get(f"{URL}/hub/home?x=1")
    browser.find_element(By.CSS_SELECTOR, "meta[http-equiv=refresh]")
    browser.save_screenshot(screenshots / "hub-away.png")
    machine.succeed("systemctl", "start", HUB)
    browser.find_element(By.ID, "stop")
    assert browser.current_url == f"{URL}/hub/home?x=1"


def finds_her_server_gone(machine: Machine, browser: Chrome, screenshots: Path) -> None:
    """What alice sees when her server has ended while the hub could not notice; the hub then knows."""
    machine.succeed("systemctl", "stop", HUB)
    machine.succeed("systemctl", "stop", UNIT)
    browser.get(f"{URL}/user/alice/lab")
    to_the_hub = browser.find_element(By.CSS_SELECTOR, "a[href='/hub/home']")
    browser.save_screenshot(screenshots / "server-gone.png")
    machine.succeed("systemctl", "start", HUB)
    to_the_hub.click()
    browser.find_element(By.ID, "start")
