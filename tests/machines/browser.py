"""Chromium for tests, driven over WebDriver by Debian's chromedriver; neither downloads anything."""

import contextlib
from collections.abc import Iterator

from selenium.webdriver import Chrome, ChromeOptions
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
