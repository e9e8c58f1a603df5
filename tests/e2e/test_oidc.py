"""The overlay `oidc`: from the hub's first page over a real provider's to a notebook, and after a change of release."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import url_matches
from selenium.webdriver.support.wait import WebDriverWait

from tests.machines import authority, installers
from tests.machines.browser import chromium
from tests.machines.machine import Machine
from tests.machines.rootfs import USERS_ENVIRONMENT
from tests.readme import admin_commands
from tests.unit import oidc

BASE = "/opt/campus"
BAREHUB = f"{BASE}/hub/bin/barehub"
CA, CERT, KEY = "/etc/ssl/certs/site-ca.pem", "/etc/ssl/hub.pem", "/etc/ssl/hub.key"
SECRET_FILE, SECRET = f"{BASE}/jupyterhub_config.d/oidc-secret", "the hub's own"
HUB, PORT = "https://hub.example.org", 9443
PROVIDER = f"https://localhost:{PORT}"
PEOPLE = {"alice": ["hpc-users"], "bob": ["visitors"]}

# What an administrator writes into the two examples.
EDIT = " ".join(
    f"-e 's,{old},{new},'"
    for old, new in (
        ("https://id.example.org/realms/site/protocol/openid-connect", PROVIDER),
        ("/userinfo", "/me"),
        ("/logout?", "/session/end?"),
        ("/opt/lab/current", USERS_ENVIRONMENT),
    )
)


@pytest.fixture(scope="module")
def provider(machine: Machine) -> Iterator[None]:
    """The provider, at a port of the machine; its certificate is of the site's own authority."""
    ca = authority.authority("Site Authority")
    hub = authority.issue(ca, "hub.example.org")
    hosts = "127.0.0.1 localhost hub.example.org\n"
    for path, text in ((CA, ca.cert), (CERT, hub.cert), (KEY, hub.key), ("/etc/hosts", hosts)):
        machine.write(path, text)
    pair = authority.issue(ca, "localhost")
    with machine.network(), oidc.provider(PORT, pair, f"{HUB}/hub/oauth_callback", PEOPLE, SECRET):
        yield


@pytest.fixture(scope="module")
def site(machine: Machine, provider: None) -> Machine:
    """A hub by the commands of the overlay's guide, of a release that is not the newest."""
    machine.copy_in(installers.campus("oidc", "2026.10.24"), "/mnt/campus.sh")
    for command in admin_commands("oidc", "/mnt/campus.sh", f"sed -i {EDIT}"):
        machine.shell(f"printf '%s\\n' \"{SECRET}\" | {command}")
    machine.eventually(BAREHUB, "status")
    return machine


@pytest.fixture
def browser(machine: Machine) -> Iterator[Chrome]:
    """Chromium on the machine's network, for which the name of the hub is that machine's."""
    switches = ("host-resolver-rules=MAP hub.example.org 127.0.0.1", "ignore-certificate-errors")
    with machine.network(), chromium(*switches) as new:
        yield new


def log_in(browser: Chrome, name: str) -> None:
    """Go from the hub's first page over the provider's pages for login and consent."""
    browser.get(HUB)
    browser.find_element(By.CSS_SELECTOR, "a[href*='oauth_login']").click()
    browser.find_element(By.NAME, "login").send_keys(name)
    browser.find_element(By.NAME, "password").send_keys("any")
    browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
    browser.find_element(By.XPATH, "//button[contains(., 'Continue')]").click()


def test_alice_gets_from_the_first_page_to_her_notebook(site: Machine, browser: Chrome, screenshots: Path) -> None:
    browser.get(HUB)
    browser.find_element(By.CSS_SELECTOR, "a[href*='oauth_login']")
    browser.save_screenshot(screenshots / "oidc-first-page.png")
    log_in(browser, "alice")
    browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
    browser.save_screenshot(screenshots / "oidc-lab.png")
    assert browser.current_url.startswith(f"{HUB}/user/alice/lab")


def test_a_logout_ends_the_providers_session_too(site: Machine, browser: Chrome, screenshots: Path) -> None:
    log_in(browser, "alice")
    browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
    browser.get(f"{HUB}/hub/logout")
    WebDriverWait(browser, 120).until(url_matches(f"^{PROVIDER}/session/end"))
    browser.save_screenshot(screenshots / "oidc-logout.png")
    browser.find_element(By.CSS_SELECTOR, "button[name=logout]").click()
    WebDriverWait(browser, 120).until(url_matches(f"^{PROVIDER}/session/end/success"))
    log_in(browser, "bob")  # who is asked for a name: nobody is logged in there any more
    said = browser.find_element(By.CSS_SELECTOR, ".error").text
    browser.save_screenshot(screenshots / "oidc-refused.png")
    assert "403" in said


@pytest.mark.parametrize("change", ["upgrade", "rollback"])
def test_she_is_still_in_and_can_log_in_again_after_a_change_of_release(
    site: Machine, browser: Chrome, change: str
) -> None:
    log_in(browser, "alice")
    browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
    if change == "upgrade":
        site.copy_in(installers.campus("oidc"), "/mnt/newer.sh")
        site.succeed("sh", "/mnt/newer.sh", "-b", "-u")
    else:
        site.succeed(BAREHUB, "rollback", "-y")
    browser.get(f"{HUB}/user/alice/lab")
    browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
    browser.execute_cdp_cmd("Network.clearBrowserCookies", {})  # the hub's, at any path, and the provider's
    log_in(browser, "alice")
    browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
    said = site.succeed(BAREHUB, "status", "--json") + site.succeed("journalctl", "--no-pager")
    assert SECRET not in said
