"""Chromium for tests, driven over WebDriver by Debian's chromedriver; neither downloads anything."""

import contextlib
import time
from collections.abc import Callable, Iterator

from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service

SWITCHES = (
    "headless=new",
    "no-sandbox",  # the tests run as root
    "disable-gpu",
    "disable-dev-shm-usage",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "no-first-run",
    "window-size=1200,900",
)


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


def run_first_cell(browser: Chrome, code: str) -> None:
    """Type one line into the first cell of the notebook on the page, and run it.

    Once is not enough: JupyterLab replaces the cell's elements while the notebook opens, and what was typed is lost.
    """
    cell = "document.querySelector('.jp-Notebook .cm-content')"
    typing = ActionChains(browser).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys(code)
    deadline = time.monotonic() + 240
    while browser.execute_script(f"return {cell}.textContent") != code:
        assert time.monotonic() < deadline, "nothing can be typed into the notebook"
        browser.execute_script(f"{cell}.focus()")
        typing.perform()
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
