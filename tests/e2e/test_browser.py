"""What a user sees, in Chromium: the login page, the server coming up, JupyterLab."""

from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.machines.hub_client import HUB, URL
from tests.machines.machine import Machine
from tests.machines.rootfs import USERS


def test_alice_logs_in_and_gets_her_lab(hub: Machine, browser: Chrome, screenshots: Path) -> None:
    browser.get(URL)
    browser.find_element(By.ID, "username_input").send_keys("alice")
    browser.find_element(By.ID, "password_input").send_keys(USERS["alice"])
    browser.save_screenshot(screenshots / "login.png")
    browser.find_element(By.ID, "login_submit").click()
    browser.find_element(By.ID, "progress-bar")
    browser.save_screenshot(screenshots / "starting.png")
    browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
    browser.save_screenshot(screenshots / "lab.png")
    assert browser.current_url.startswith(f"{URL}/user/alice/lab")
    waits_for_the_hub(hub, browser, screenshots)


def waits_for_the_hub(hub: Machine, browser: Chrome, screenshots: Path) -> None:
    """What alice sees while the hub is away; she touches nothing, and is where she wanted to be when it is back."""
    hub.succeed("systemctl", "stop", HUB)
    browser.get(f"{URL}/hub/home?x=1")
    browser.find_element(By.CSS_SELECTOR, "meta[http-equiv=refresh]")
    browser.save_screenshot(screenshots / "hub-away.png")
    hub.succeed("systemctl", "start", HUB)
    browser.find_element(By.ID, "stop")
    assert browser.current_url == f"{URL}/hub/home?x=1"
