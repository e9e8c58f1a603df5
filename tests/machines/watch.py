"""Somebody at work while something else happens, and what that person notices."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from requests.cookies import get_cookie_header

from tests.machines.hub_client import Kernel


@contextmanager
def watched(kernel: Kernel) -> Iterator[list[str]]:
    """Asks alice's server for something all the time; yields a list of what went wrong, filled until the end."""
    session, ended, trouble, sent = kernel.session, threading.Event(), [], 0
    url = f"{session.url}/user/alice/api/kernels"
    cookies = get_cookie_header(session.cookies, requests.Request("GET", url).prepare())

    def run() -> None:
        nonlocal sent
        with session.machine.network(), requests.Session() as asking:
            asking.trust_env = False
            while not ended.wait(0.02):
                sent += 1
                try:
                    answer = asking.get(url, headers={"Cookie": cookies, "Connection": "close"}, timeout=120)
                    if answer.status_code != 200:
                        trouble.append(f"{answer.status_code} {answer.text[:200]}")
                except requests.RequestException as error:
                    trouble.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield trouble
    finally:
        ended.set()
        thread.join()
    assert sent
