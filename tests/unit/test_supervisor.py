"""The supervisor with a real traefik, and with a stand-in for systemd that keeps file descriptors as it does."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.unit import proxies
from tests.unit.proxies import answers, free_port, get, named_server, wait_until

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
supervisor.LOADING = 1
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
        wait_until(lambda: "READY=1" in self.messages or self.main.poll() is not None)
        assert self.main.poll() is None, self.main.stderr.read()

    def stop(self) -> int:
        assert self.main
        self.main.terminate()
        return self.main.wait(timeout=20)

    def traefik(self) -> int:
        """The process id of traefik."""
        assert self.main
        return int(Path(f"/proc/{self.main.pid}/task/{self.main.pid}/children").read_text())

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
    base: Path
    web: int
    api: int
    systemd: Systemd

    def write_rules(self, target: str) -> None:
        """What a hub has written: its routes, and the router of traefik's API, which wants a password."""
        api = {
            "rule": "Host(`127.0.0.1`) && PathPrefix(`/api`)", "entryPoints": ["api"],
            "service": "api@internal", "middlewares": ["auth"],
        }  # fmt: skip
        rules = {
            "routers": {"api": api, "hub": {"rule": "PathPrefix(`/`)", "entryPoints": ["web"], "service": "hub"}},
            "middlewares": {"auth": {"basicAuth": {"users": ["a:b"]}}},
            "services": {"hub": {"loadBalancer": {"servers": [{"url": target}]}}},
        }
        (self.base / "state/rules/rules.yaml").write_text(json.dumps({"http": rules}))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    base = proxies.make_base(tmp_path / "base")
    new = Place(base, free_port(), free_port(), Systemd(base, tmp_path / "notify"))
    proxies.static_config(base, web=f"127.0.0.1:{new.web}", api=f"127.0.0.1:{new.api}")
    yield new
    new.systemd.end()


@dataclass
class Visitors:
    """People who come all the time, however many are waiting already; and what they got."""

    port: int
    got: Counter[object] = field(default_factory=Counter)
    gone: threading.Event = field(default_factory=threading.Event)

    def come(self) -> None:
        threads = []
        while not self.gone.wait(0.01):
            threads.append(threading.Thread(target=self.visit))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def visit(self) -> None:
        try:
            result: object = get(self.port)
        except (http.client.HTTPException, OSError) as error:
            result = type(error)
        self.got[result] += 1

    def wait_for_more(self) -> None:
        seen = self.got.total()
        wait_until(lambda: self.got.total() > seen + 50)


@contextlib.contextmanager
def visitors(port: int) -> Iterator[Visitors]:
    crowd = Visitors(port)
    thread = threading.Thread(target=crowd.come)
    thread.start()
    try:
        yield crowd
    finally:
        crowd.gone.set()
        thread.join()


def test_nobody_notices_a_restart(place: Place) -> None:
    with named_server("hub") as hub:
        place.write_rules(hub)
        place.systemd.start()
        place.systemd.wait_until_ready()
        with visitors(place.web) as crowd:
            for _ in range(4):
                crowd.wait_for_more()
                assert place.systemd.stop() == 0
                place.systemd.start()
                place.systemd.wait_until_ready()
    assert set(crowd.got) == {(200, "hub")}, crowd.got


def test_a_crash_refuses_nobody_and_nobody_gets_a_404(place: Place) -> None:
    with named_server("hub") as hub:
        place.write_rules(hub)
        place.systemd.start()
        place.systemd.wait_until_ready()
        with visitors(place.web) as crowd:
            for _ in range(3):
                crowd.wait_for_more()
                place.systemd.crash()
                place.systemd.start()
                place.systemd.wait_until_ready()
    # What was being answered when traefik died is lost, and nothing else.
    assert set(crowd.got) <= {(200, "hub"), ConnectionResetError, http.client.RemoteDisconnected}, crowd.got
    assert crowd.got[(200, "hub")] > crowd.got.total() * 0.9


def test_a_connection_that_waited_lives_on(place: Place) -> None:
    with echo_server() as echo:
        place.write_rules(echo)
        place.systemd.prepare()  # the door is there, and nobody behind it
        with socket.create_connection(("127.0.0.1", place.web), timeout=20) as client:
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
            )
            place.systemd.start()
            answer = client.makefile("rb")
            assert answer.readline().split()[1] == b"101"
            while answer.readline().strip():
                pass
            place.systemd.wait_until_ready()
            for size in (10, 1_000_000):
                threading.Thread(target=client.sendall, args=(b"x" * size,)).start()
                assert answer.read(size) == b"x" * size
            assert place.systemd.stop() == 0
            assert answer.read() == b""


@contextlib.contextmanager
def echo_server() -> Iterator[str]:
    """It agrees to any upgrade, then sends back what it gets; its URL."""

    def serve(client: socket.socket) -> None:
        with client:
            client.recv(4096)
            client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := client.recv(2**16):
                client.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_it_is_ready_before_there_are_any_rules(place: Place) -> None:
    place.systemd.start()
    place.systemd.wait_until_ready()
    assert get(place.web)[0] == 404


def test_rules_that_cannot_be_loaded_do_not_shut_the_door_for_ever(place: Place) -> None:
    (place.base / "state/rules/rules.yaml").write_text('{"http": {"rou')
    place.systemd.start()
    place.systemd.wait_until_ready()
    assert get(place.web)[0] == 404
    place.systemd.stop()
    assert "has not loaded" in place.systemd.main.stderr.read()


def test_a_traefik_that_dies_is_an_error(place: Place) -> None:
    place.systemd.start()
    place.systemd.wait_until_ready()
    os.kill(place.systemd.traefik(), signal.SIGKILL)
    assert place.systemd.main.wait(timeout=20) == 1
    assert "traefik ended by itself, with status -9" in place.systemd.main.stderr.read()


def test_an_address_that_is_taken_is_named(place: Place) -> None:
    with socket.create_server(("127.0.0.1", place.web)):
        place.systemd.start()
        assert place.systemd.main.wait(timeout=20) == 1
    assert f"error: cannot listen on 127.0.0.1:{place.web} (entrypoint web): Address already in use" in (
        place.systemd.main.stderr.read()
    )


def test_another_installation_cannot_share_an_address(place: Place, tmp_path: Path) -> None:
    place.systemd.start()
    place.systemd.wait_until_ready()
    other = Systemd(proxies.make_base(tmp_path / "other"), tmp_path / "notify2")
    proxies.static_config(other.base, web=f"127.0.0.1:{place.web}", api=f"127.0.0.1:{free_port()}")
    other.start()
    assert other.main.wait(timeout=20) == 1
    other.end()


def test_a_changed_address_frees_the_old_one(place: Place) -> None:
    place.systemd.start()
    place.systemd.wait_until_ready()
    place.systemd.stop()
    before, place.web = place.web, free_port()
    proxies.static_config(place.base, web=f"127.0.0.1:{place.web}", api=f"127.0.0.1:{place.api}")
    place.systemd.prepare(web=f"127.0.0.1:{before}", api=f"127.0.0.1:{place.api}")
    assert not answers(before)
    place.systemd.start()
    place.systemd.wait_until_ready()
    assert get(place.web)[0] == 404
    assert len(place.systemd.store) == 4


def test_systemd_is_told_while_traefik_answers(place: Place) -> None:
    place.systemd.start(WATCHDOG_USEC="200000")
    place.systemd.wait_until_ready()
    wait_until(lambda: place.systemd.messages.count("WATCHDOG=1") > 2)
    traefik = place.systemd.traefik()
    os.kill(traefik, signal.SIGSTOP)
    wait_until(lambda: all(" (stopped)" in task.read_text() for task in Path(f"/proc/{traefik}/task").glob("*/status")))
    try:
        assert get_nothing(place.web)  # by now what was on its way to systemd is there
        place.systemd.messages.clear()
        assert get_nothing(place.web)
        assert "WATCHDOG=1" not in place.systemd.messages
    finally:
        os.kill(traefik, signal.SIGCONT)


def get_nothing(port: int) -> bool:
    """True if a request is not answered in a second."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            return not client.recv(1)
    return True


def test_traefik_itself_cannot_talk_to_systemd(place: Place) -> None:
    place.systemd.start(WATCHDOG_USEC="60000000")
    place.systemd.wait_until_ready()
    environment = Path(f"/proc/{place.systemd.traefik()}/environ").read_text()
    assert "NOTIFY_SOCKET" not in environment
    assert "WATCHDOG" not in environment
    assert not [name for name in place.systemd.messages if name.startswith("FDSTORE")]


def test_it_runs_without_systemd(place: Place) -> None:
    with named_server("hub") as hub:
        place.write_rules(hub)
        with proxies.running(
            sys.executable, "-m", "barehub.proxy_unit.supervisor", BAREHUB_BASE=str(place.base)
        ) as process:
            wait_until(lambda: answers(place.web))
            assert get(place.web) == (200, "hub")
            process.terminate()
            assert process.wait(timeout=20) == 0
    assert not answers(place.web)
