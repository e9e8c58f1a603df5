"""What a user sees, in Chromium: the login page, the server coming up, JupyterLab."""

from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.machines.hub_client import URL
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
