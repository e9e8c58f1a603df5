"""What users notice of an upgrade, and of a rollback: one run on a systemd machine, printed as a table.

    .venv/bin/python -m tests.bench.upgrade OLDER.sh NEWER.sh

OLDER may be made with `release.py build --overlay tests/overlays/jupyterhub-5 --date 2026.10.24`. Someone asks the hub,
the proxy and alice's server without a pause while the installer runs; her kernels' websockets stay open.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import requests
import websocket
from requests.cookies import get_cookie_header

from tests.machines.hub_client import BAREHUB, URL, Kernel, kernel_of, let_users_in
from tests.machines.machine import Machine, booted
from tests.machines.rootfs import cached_root

KERNELS = 5
PAUSE = 0.01  # seconds between two requests
HUB_URL, USER_URL = "http://127.0.0.1:334/hub/health", f"{URL}/user/alice/api/kernels"
# The proxy itself answers this with 404, whatever is behind it; what counts is that it answers.
PROXY_URL = f"{URL}/nobody-has-this"


@dataclass
class Asker:
    """Asks one URL again and again in a thread of its own; `good` tells which answers count."""

    machine: Machine
    url: str
    good: Callable[[requests.Response], bool]
    cookies: str = ""
    sent: int = 0
    failed: int = 0
    away: float = 0.0  # seconds: the longest time between two good answers
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        last = time.monotonic()
        with self.machine.network(), requests.Session() as session:
            session.trust_env = False
            while not self.ended.wait(PAUSE):
                self.sent += 1
                try:
                    headers = {"Cookie": self.cookies, "Connection": "close"}
                    answer = session.get(self.url, headers=headers, timeout=30, allow_redirects=False)
                    well = self.good(answer)
                except requests.RequestException:
                    well = False
                if well:
                    self.away, last = max(self.away, time.monotonic() - last), time.monotonic()
                else:
                    self.failed += 1


def prepare(machine: Machine, older: Path, newer: Path) -> list[Kernel]:
    """The older release with alice at work in some kernels."""
    machine.copy_in(older, "/mnt/older.sh")
    machine.copy_in(newer, "/mnt/newer.sh")
    machine.succeed("sh", "/mnt/older.sh", "-b")
    let_users_in(machine)
    first = kernel_of(machine, "alice")
    kernels = [first, *(first.session.start_kernel() for _ in range(KERNELS - 1))]
    for kernel in kernels:
        kernel.execute("answer = 42")
    return kernels


def measure(machine: Machine, kernels: Sequence[Kernel], *command: str) -> dict[str, str]:
    """Run a command and return what was noticed of it."""
    session = kernels[0].session
    cookies = get_cookie_header(session.cookies, requests.Request("GET", USER_URL).prepare())
    hub = Asker(machine, HUB_URL, lambda answer: answer.ok)
    proxy = Asker(machine, PROXY_URL, lambda _: True)
    user = Asker(machine, USER_URL, lambda answer: answer.ok, cookies)
    threads = [threading.Thread(target=one.run) for one in (hub, proxy, user)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    try:
        machine.succeed(*command)
    finally:
        took = time.monotonic() - began
        for one in (hub, proxy, user):
            one.ended.set()
        for thread in threads:
            thread.join()
    return {
        "seconds in all": f"{took:.1f}",
        "seconds the hub did not answer": f"{hub.away:.1f}",
        "seconds the proxy did not answer": f"{proxy.away:.2f}",
        "requests to a user's server: sent, failed": f"{user.sent}, {user.failed}",
        "open websockets kept": f"{sum(map(kept, kernels))} of {len(kernels)}",
    }


def kept(kernel: Kernel) -> bool:
    try:
        return kernel.execute("print(answer)") == "42\n"
    except (OSError, websocket.WebSocketException):  # the proxy was another one
        kernel.connect()
        return False


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.upgrade", description=__doc__)
    parser.add_argument("older", type=Path)
    parser.add_argument("newer", type=Path)
    arguments = parser.parse_args()
    with booted("bench-upgrade", cached_root()) as machine:
        kernels = prepare(machine, arguments.older, arguments.newer)
        upgrade = measure(machine, kernels, "sh", "/mnt/newer.sh", "-b", "-u")
        rollback = measure(machine, kernels, BAREHUB, "rollback", "-y")
    print(f"{'':44}{'upgrade':>12}{'rollback':>12}")
    for what, value in upgrade.items():
        print(f"{what:44}{value:>12}{rollback[what]:>12}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
