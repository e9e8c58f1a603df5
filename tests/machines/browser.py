"""Chromium for tests, driven over WebDriver by Debian's chromedriver; neither downloads anything."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from selenium.common import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.machines.machine import until
from tests.machines.rootfs import USERS

SWITCHES = (
    "headless=new",
    "no-sandbox",  # the tests run as root
    "disable-gpu",
    "disable-dev-shm-usage",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "force-prefers-reduced-motion",  # Bootstrap scrolls smoothly otherwise, and a click misses what still moves
    "no-first-run",
    "window-size=1200,900",
)


# In one go, so that JupyterLab, still setting itself up, cannot take the focus away in between.
TYPE = """
document.querySelector('.jp-Notebook .cm-content').focus();
document.execCommand('selectAll');
document.execCommand('insertText', false, arguments[0]);
"""
# `[ ]:` as long as the cell has not been run, `[*]:` while it is, then a number; and what it has printed so far.
STATE = """
const cell = document.querySelector('.jp-Notebook .jp-CodeCell');
const text = (selector) => cell.querySelector(selector)?.innerText.trim() ?? '';
return {code: text('.cm-content'), prompt: text('.jp-InputPrompt'), printed: text('.jp-OutputArea-output pre')};
"""


@contextlib.contextmanager
def chromium(*more: str) -> Iterator[Chrome]:
    """A new browser with a profile of its own and `more` switches, on the network that the calling thread is on."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for switch in (*SWITCHES, *more):
        options.add_argument(f"--{switch}")
    browser = Chrome(options, Service("/usr/bin/chromedriver"))
    try:
        browser.implicitly_wait(120)  # for an element to be there, in place of sleeping
        yield browser
    finally:
        browser.quit()


def log_in(browser: Chrome, user: str, password: str = "", picture: Path | None = None) -> None:
    """Fill in the login page that is shown, with the user's own password or with another; `picture` is one of it."""
    browser.find_element(By.ID, "username_input").send_keys(user)
    browser.find_element(By.ID, "password_input").send_keys(password or USERS[user])
    if picture:
        browser.save_screenshot(picture)
    browser.find_element(By.ID, "login_submit").click()


def press_stop(browser: Chrome, stopped: Callable[[], bool]) -> None:
    """Press the button on the hub's page that stops the server until that is so.

    Once is not enough: the button does nothing until the page's scripts have loaded.
    """
    press = "const stop = document.getElementById('stop'); if (stop && stop.offsetParent) stop.click();"
    deadline = time.monotonic() + 240
    while not stopped():
        assert time.monotonic() < deadline, "the server does not stop"
        browser.execute_script(press)
        time.sleep(1)


def run_cell(browser: Chrome, code: str) -> str:
    """Run this code in the first cell; what it has printed, which must be something."""
    return until(lambda: run_further(browser, code), "what the cell prints")


def run_further(browser: Chrome, code: str) -> str:
    """Get one step further with running this code in the first cell; what it has printed, when it has ended.

    Any step can be lost, as long as JupyterLab is not ready, and can be taken again: the button is pressed only while
    the cell has not been run.
    """
    with contextlib.suppress(WebDriverException):  # the cell is made again, or covered, at that moment
        now = browser.execute_script(STATE)
        if now["code"] != code:
            browser.execute_script(TYPE, code)
        elif now["prompt"] == "[ ]:":
            browser.find_element(By.CSS_SELECTOR, ".jp-Notebook .cm-content").click()  # running it goes on to the next
            # Not a key, which goes to whatever has the focus by then.
            browser.find_element(By.CSS_SELECTOR, "[data-command='notebook:run-cell-and-select-next']").click()
        elif now["prompt"] != "[*]:":
            return now["printed"]
    return ""
