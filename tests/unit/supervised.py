"""The supervisor under a stand-in for systemd, which keeps file descriptors as systemd does; and its visitors."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barehub.rules import READY

from tests.machines.authority import Pair
from tests.unit import proxies
from tests.unit.proxies import free_port, wait_until

CROWD = (
    64  # who wait at most: on a busy machine more and more would, and traefik would have to stop before it got to all
)
# Store new doors, as the unit's ExecStartPre= does; the names are those of the entrypoints before.
STORE = """
import sys
from pathlib import Path
from barehub.proxy_unit.sockets import read_addresses, store_doors
before = dict(zip(sys.argv[2::2], sys.argv[3::2]))
store_doors(read_addresses(Path(sys.argv[1])), before)
"""
# Hand over file descriptors as systemd does (sd_listen_fds(3)), then become the supervisor.
ACTIVATE = """
import fcntl, os, sys
import barehub.proxy_unit.supervisor as supervisor
names, numbers = sys.argv[1::2], sys.argv[2::2]
moved = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 3 + len(numbers)) for number in numbers]
for place, number in enumerate(moved, 3):
    os.dup2(number, place)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
supervisor.LOADING = float(os.environ.get("LOADING", "60"))  # a slow machine must not end the wait
sys.exit(supervisor.main())
"""


@dataclass
class Systemd:
    """A unit's file descriptor store and the messages of its processes (sd_notify(3))."""

    base: Path
    address: Path
    store: dict[str, int] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    main: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(str(self.address))
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        while True:
            text, descriptors, _, _ = socket.recv_fds(self.channel, 4096, 4)
            fields = dict(line.partition("=")[::2] for line in text.decode().splitlines())
            if "FDSTORE" in fields:
                self.store[fields["FDNAME"]] = descriptors.pop()
            elif "FDSTOREREMOVE" in fields and fields["FDNAME"] in self.store:
                descriptors = [self.store.pop(fields["FDNAME"])]
            for descriptor in descriptors:
                os.close(descriptor)
            self.messages.append(text.decode())

    def environment(self, **more: str) -> dict[str, str]:
        return os.environ | {"BAREHUB_BASE": str(self.base), "NOTIFY_SOCKET": str(self.address)} | more

    def prepare(self, **before: str) -> None:
        """What ExecStartPre= does with the sockets."""
        words = [word for pair in before.items() for word in pair]
        config = self.base / "state/proxy/traefik.yaml"
        subprocess.run([sys.executable, "-c", STORE, config, *words], env=self.environment(), check=True)

    def start(self, **environment: str) -> None:
        """Start the main process; return at once."""
        entrypoints = json.loads((self.base / "state/proxy/traefik.yaml").read_text())["entryPoints"]
        self.prepare(**{name: entrypoint["address"] for name, entrypoint in entrypoints.items()})
        self.messages.clear()
        words = [word for name, descriptor in self.store.items() for word in (name, str(descriptor))]
        self.main = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, *words],
            env=self.environment(**environment),
            pass_fds=list(self.store.values()),
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        assert self.main
        main = self.main
        wait_until(lambda: "READY=1" in self.messages or main.poll() is not None)
        assert self.main.poll() is None, self.complaints()

    def stop(self) -> int:
        assert self.main
        self.main.terminate()
        return self.main.wait(timeout=120)

    @property
    def pid(self) -> int:
        assert self.main
        return self.main.pid

    def complaints(self) -> str:
        """What the main process, which has ended, has said."""
        assert self.main
        assert self.main.stderr
        return self.main.stderr.read()

    def traefik(self) -> int:
        """The process id of traefik."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text())

    def crash(self) -> None:
        """SIGKILL for every process of the unit."""
        assert self.main
        os.kill(self.traefik(), signal.SIGKILL)
        self.main.kill()
        self.main.wait()

    def end(self) -> None:
        """As `systemctl stop`: nothing is kept."""
        if self.main and self.main.poll() is None:
            self.stop()
        for descriptor in self.store.values():
            os.close(descriptor)
        self.store.clear()


@dataclass
class Place:
    """An installation that serves HTTP, and its unit."""

    base: Path
    web: int
    api: int
    systemd: Systemd

    def write_rules(self, target: str, certificate: Path | None = None) -> None:
        """What a hub has written: its routes, and the router of traefik's API, which wants a password."""
        api = {
            "rule": "Host(`127.0.0.1`) && PathPrefix(`/api`)", "entryPoints": ["api"],
            "service": "api@internal", "middlewares": ["auth"],
        }  # fmt: skip
        http = {
            "routers": {
                "api": api,
                "hub": {"rule": "PathPrefix(`/`)", "entryPoints": ["web"], "service": "hub"},
                READY: {"rule": f"Path(`/{READY}`)", "entryPoints": ["web"], "service": "noop@internal"},
            },
            "middlewares": {"auth": {"basicAuth": {"users": ["a:b"]}}},
            "services": {"hub": {"loadBalancer": {"servers": [{"url": target}]}}},
        }
        rules: dict[str, Any] = {"http": http}
        if certificate:
            both = {"certFile": str(certificate), "keyFile": str(certificate)}
            rules["tls"] = {"stores": {"default": {"defaultCertificate": both}}}
        staged = self.base / "state/rules.new"
        staged.write_text(json.dumps(rules))
        staged.replace(self.base / "state/rules/rules.yaml")

    @property
    def certificate(self) -> Path:
        return self.base / "state/proxy/certificate.pem"

    def write_certificate(self, pair: Pair) -> None:
        self.certificate.write_text(pair.cert + pair.key)


@contextlib.contextmanager
def place_in(directory: Path) -> Iterator[Place]:
    """A new one; what runs in it is ended with the block."""
    base = proxies.make_base(directory / "base")
    new = Place(base, free_port(), free_port(), Systemd(base, directory / "notify"))
    proxies.static_config(base, web=f"127.0.0.1:{new.web}", api=f"127.0.0.1:{new.api}")
    try:
        yield new
    finally:
        new.systemd.end()


@dataclass
class Visitors:
    """People who come all the time, although others wait already; and what they got."""

    ask: Callable[[], object]
    got: Counter[object] = field(default_factory=Counter)
    come_in: list[float] = field(default_factory=list)  # when
    gone: threading.Event = field(default_factory=threading.Event)

    def come(self) -> None:
        threads: list[threading.Thread] = []
        while not self.gone.wait(0.01):
            threads = [thread for thread in threads if thread.is_alive()]
            if len(threads) < CROWD:
                threads.append(threading.Thread(target=self.visit))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def visit(self) -> None:
        self.come_in.append(time.monotonic())
        try:
            result = self.ask()
        except (http.client.HTTPException, OSError) as error:
            result = type(error)
        self.got[result] += 1

    def wait_for_more(self) -> None:
        seen = self.got.total()
        wait_until(lambda: self.got.total() > seen + 50)


@contextlib.contextmanager
def visitors(ask: Callable[[], object]) -> Iterator[Visitors]:
    crowd = Visitors(ask)
    with running_threads(crowd.gone, crowd.come):
        yield crowd


@contextlib.contextmanager
def regulars(ask: Callable[[], object]) -> Iterator[Visitors]:
    """The same few, who come again as soon as they have been served."""
    few = Visitors(ask)

    def come_again() -> None:
        while not few.gone.is_set():
            few.visit()

    with running_threads(few.gone, *[come_again] * 4):
        yield few


@contextlib.contextmanager
def running_threads(gone: threading.Event, *targets: Callable[[], None]) -> Iterator[None]:
    """Threads that end when they are told that it is over."""
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        gone.set()
        for thread in threads:
            thread.join()
