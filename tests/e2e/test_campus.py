"""A campus whose people are in LDAP: with the overlay, then with SSSD through PAM; and after a change of release."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub_ldap.authenticator import NO_ANSWER
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.machines import directory, installers, sssd
from tests.machines.browser import log_in
from tests.machines.directory import ACCOUNT, PASSWORDS, without
from tests.machines.hub_client import URL, HubSession
from tests.machines.machine import Machine, booted
from tests.machines.rootfs import USERS_ENVIRONMENT
from tests.readme import ADMIN, admin_commands

BASE = "/opt/campus"
BAREHUB = f"{BASE}/hub/bin/barehub"
SECRET = f"{BASE}/jupyterhub_config.d/ldap-password"
SERVERS = tuple(directory.SERVERS)
ASK_NOWHERE = """
import asyncio, os
from barehub_ldap.authenticator import DirectoryAuthenticator
asked = DirectoryAuthenticator(server_address="nowhere.example.org", lookup_dn=True, login_timeout=1)
try:
    asyncio.run(asked.authenticate(None, {"username": "alice", "password": "x"}))
except Exception as error:
    print(error, flush=True)
os._exit(0)  # without the thread, which waits for the name server
"""


@pytest.fixture(scope="module")
def machine(root: Path) -> Iterator[Machine]:
    with booted("campus", root, limits=True) as new:
        yield new


@pytest.fixture(scope="module")
def site(machine: Machine) -> Machine:
    """A hub by the commands of the overlay's guide. The example is this directory's, but for the users' environment."""
    directory.start(machine)
    machine.copy_in(installers.campus("ldap", "2026.10.24"), "/mnt/campus.sh")
    for command in admin_commands("ldap", "/mnt/campus.sh", f"sed -i s,/opt/lab/current,{USERS_ENVIRONMENT},"):
        machine.shell(command)
        if "ldap-password" in command:
            machine.shell(f"stat -c %a {SECRET} | grep -x 640; printf '%s\\n' \"{directory.HUB_PASSWORD}\" >{SECRET}")
    machine.eventually(BAREHUB, "status")
    return machine


def test_alice_gets_from_the_first_page_to_her_notebook(site: Machine, browser: Chrome, screenshots: Path) -> None:
    browser.get(URL)
    log_in(browser, "Alice", PASSWORDS["alice"], screenshots / "ldap-login.png")
    browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
    browser.save_screenshot(screenshots / "ldap-lab.png")
    assert browser.current_url.startswith(f"{URL}/user/alice/lab")


def alice_again(site: Machine) -> HubSession:
    """Another login of alice's, whose server runs."""
    session = HubSession(site, "alice")
    session.login(PASSWORDS["alice"])
    session.get("/user/alice/lab").raise_for_status()
    return session


def test_the_pages_say_why_somebody_is_not_let_in(site: Machine) -> None:
    assert "Invalid username or password" in HubSession(site, "alice").login("wonderland").text  # PAM's
    assert "Invalid username or password" in HubSession(site, "bob").login(PASSWORDS["bob"]).text  # in no group
    answer = HubSession(site, "Grace").login(PASSWORDS["Grace"])
    assert (answer.status_code, "There is no account grace on this machine" in answer.text) == (403, True)


def test_the_hubs_password_is_nobody_elses(site: Machine) -> None:
    kernel = alice_again(site).start_kernel()
    assert directory.HUB_PASSWORD not in kernel.execute("import os; print(os.environ)")
    assert "PermissionError" in kernel.execute(
        f"try: open('{SECRET}')\nexcept OSError as error: print(type(error).__name__)"
    )
    site.succeed("chmod", "755", f"{BASE}/jupyterhub_config.d")
    site.succeed("chmod", "644", SECRET)
    said = site.succeed(BAREHUB, "status")
    assert f"everybody can read the secret {SECRET}: chown root:root {SECRET}; chmod 640 {SECRET}" in said
    site.succeed("chmod", "640", SECRET)
    said += site.succeed(BAREHUB, "status", "--json") + site.succeed("journalctl", "--no-pager")
    for secret in (directory.HUB_PASSWORD, PASSWORDS["alice"], PASSWORDS["Grace"]):
        assert secret not in said


def test_who_is_in_stays_in_while_nobody_else_gets_in(site: Machine) -> None:
    alice = alice_again(site)
    with without(site, SERVERS[0]), without(site, SERVERS[1]):
        answer = HubSession(site, "alice").login(PASSWORDS["alice"])
        assert (answer.status_code, NO_ANSWER.partition(".")[0] in answer.text) == (503, True)
        assert alice.is_logged_in()
        assert alice.start_kernel().execute("print(6 * 7)") == "42\n"
    with without(site, SERVERS[0]):
        assert alice_again(site).is_logged_in()


def test_a_name_server_that_is_silent_does_not_hold_up_a_login(site: Machine) -> None:
    with site.network(), socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.9", 53))
        site.write("/etc/resolv.conf", "nameserver 127.0.0.9\n")
        assert NO_ANSWER in site.succeed(f"{BASE}/hub/bin/python", "-c", ASK_NOWHERE)
    site.succeed("rm", "/etc/resolv.conf")


# Accounts of SSSD's, through PAM.


def ask_pam(site: Machine) -> None:
    line = 'c.JupyterHub.authenticator_class = "barehub.logins.AccountPAM"\n'
    assert line in (ADMIN.parent / "examples/50-pam-users.py").read_text()
    groups = 'c.PAMAuthenticator.allowed_groups = {"posix", "posix@example"}\n'
    site.write(f"{BASE}/jupyterhub_config.d/70-pam.py", line + groups)
    site.succeed("systemctl", "restart", "campus-hub")
    site.eventually(BAREHUB, "status")


def logged_in(site: Machine, typed: str, account: str) -> HubSession:
    """A session of somebody whose server runs, or is started by the login."""
    session = HubSession(site, typed)
    session.login(PASSWORDS[ACCOUNT])
    session.user = account
    *_, last = session.progress()
    assert last.get("ready"), last
    session.get(f"/user/{account}/lab").raise_for_status()
    return session


def test_an_account_of_sssds_gets_from_the_first_page_to_a_notebook(
    site: Machine, browser: Chrome, screenshots: Path
) -> None:
    sssd.start(site)
    ask_pam(site)
    browser.get(URL)
    log_in(browser, f"{ACCOUNT}@example", PASSWORDS[ACCOUNT], screenshots / "sssd-login.png")
    browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
    browser.save_screenshot(screenshots / "sssd-lab.png")
    assert browser.current_url.startswith(f"{URL}/user/{ACCOUNT}/lab")
    assert "Invalid username or password" in HubSession(site, "alice").login("wonderland").text  # in no group of PAM's


def test_who_has_logged_in_before_can_do_so_while_no_server_answers(site: Machine) -> None:
    with without(site, SERVERS[0]), without(site, SERVERS[1]):
        carol = logged_in(site, ACCOUNT, ACCOUNT)
        assert carol.start_kernel().execute("print(6 * 7)") == "42\n"
        assert "Invalid username or password" in HubSession(site, ACCOUNT).login("wrong").text


def test_full_names_are_users_of_their_own(site: Machine) -> None:
    sssd.start(site, sssd.FULL)
    full = logged_in(site, ACCOUNT, f"{ACCOUNT}@example")
    said = full.start_kernel().execute("import os, pwd; print(pwd.getpwuid(os.getuid()).pw_name, os.getcwd())")
    assert said == f"{ACCOUNT}@example /home/{ACCOUNT}\n"
    sssd.start(site)
    site.succeed("systemctl", "stop", "campus-hub")  # whose threads end with SSSD's module in use
    assert site.unit("campus-hub.service", "Result") == "success"


@pytest.mark.parametrize("change", ["upgrade", "rollback"])
def test_people_get_to_their_notebooks_after_a_change_of_release(
    site: Machine, browser: Chrome, screenshots: Path, change: str
) -> None:
    """With LDAP's passwords, and with SSSD's through PAM; who has logged in before has stayed so."""
    site.succeed("rm", f"{BASE}/jupyterhub_config.d/70-pam.py")
    site.succeed("systemctl", "restart", "campus-hub")
    site.eventually(BAREHUB, "status")
    alice = alice_again(site)
    if change == "upgrade":
        site.copy_in(installers.campus("ldap"), "/mnt/newer.sh")
        site.succeed("sh", "/mnt/newer.sh", "-b", "-u")
    else:
        site.succeed(BAREHUB, "rollback", "-y")
    assert alice.is_logged_in()
    for name, prepare in (("alice", None), (ACCOUNT, ask_pam)):
        if prepare:
            prepare(site)
        browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
        browser.get(URL)
        log_in(browser, name, PASSWORDS[name])
        browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
        browser.save_screenshot(screenshots / f"{name}-after-{change}.png")
        assert browser.current_url.startswith(f"{URL}/user/{name}/lab")
