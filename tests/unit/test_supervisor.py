"""The supervisor with a real traefik: restarts, crashes, addresses, and what systemd is told."""

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from barehub.proxy_unit.static import trusted
from barehub.proxy_unit.supervisor import environment_of_traefik

from tests.unit import proxies
from tests.unit.proxies import Server, answers, free_port, get, named_server, wait_until
from tests.unit.supervised import Place, Systemd, place_in, visitors


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as new:
        yield new


def test_nobody_notices_a_restart(place: Place) -> None:
    with named_server("hub") as hub:
        place.write_rules(hub)
        place.systemd.start()
        place.systemd.wait_until_ready()
        with visitors(lambda: get(place.web)) as crowd:
            for _ in range(4):
                crowd.wait_for_more()
                assert place.systemd.stop() == 0
                place.systemd.start()
                place.systemd.wait_until_ready()
    assert set(crowd.got) == {(200, "hub")}, crowd.got


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_what_is_behind_the_proxy_is_reached_directly(place: Place, name: str) -> None:
    """DefaultEnvironment= of systemd may have a web proxy. Go asks none for 127.0.0.1, but for any other address."""
    with named_server("hub") as hub:
        place.write_rules(hub.replace("127.0.0.1", "0.0.0.0"))
        place.systemd.start(**{name: "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"})
        place.systemd.wait_until_ready()
        assert get(place.web) == (200, "hub")


def test_a_web_proxy_is_for_acme_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "no_proxy", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "x")
    with_acme = environment_of_traefik('{"certificatesResolvers": {}}')
    assert (with_acme["HTTPS_PROXY"], with_acme["no_proxy"]) == ("x", "x")
    assert not {"http_proxy", "NOTIFY_SOCKET"} & with_acme.keys()
    assert "HTTPS_PROXY" not in environment_of_traefik("{}")


def test_a_crash_refuses_nobody_and_nobody_gets_a_404(place: Place) -> None:
    with named_server("hub") as hub:
        place.write_rules(hub)
        place.systemd.start()
        place.systemd.wait_until_ready()
        answered = 0  # at most, at the moments of the crashes
        with visitors(lambda: get(place.web)) as crowd:
            for _ in range(3):
                crowd.wait_for_more()
                served = crowd.got.total()
                place.systemd.crash()
                answered += len(crowd.come_in) - served
                place.systemd.start()
                place.systemd.wait_until_ready()
    # What was being answered when traefik died is lost, and nothing else.
    cut_off = {ConnectionResetError, http.client.RemoteDisconnected, http.client.IncompleteRead}
    assert set(crowd.got) <= {(200, "hub"), *cut_off}, crowd.got
    assert sum(crowd.got[one] for one in cut_off) <= answered
    assert crowd.got[(200, "hub")] > 50


def test_a_connection_that_waited_lives_on(place: Place) -> None:
    with echo_server() as echo:
        place.write_rules(echo)
        place.systemd.prepare()  # the door is there, and nobody behind it
        with socket.create_connection(("127.0.0.1", place.web), timeout=120) as client:
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


def test_who_waited_cannot_forge_an_address(place: Place) -> None:
    """The network of the load balancers holds this machine's address, and the client is in none of theirs.

    Here traefik is not told the client's, as by a configuration of an older release.
    """
    path = place.base / "state/proxy/traefik.yaml"
    config = json.loads(path.read_text())
    del config["entryPoints"]["web"]["proxyProtocol"]
    config["entryPoints"]["web"]["forwardedHeaders"] = {"trustedIPs": [*trusted(["127.0.0.0/24", "127.66.0.0/16"])]}
    path.write_text(json.dumps(config))
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 7.7.7.7\r\n\r\n"
    with header_server("X-Forwarded-For") as hub:
        place.write_rules(hub)
        place.systemd.prepare()
        door, outside = ("127.0.0.1", place.web), ("127.1.2.3", 0)
        with socket.create_connection(door, timeout=120, source_address=outside) as client:
            client.sendall(head)
            place.systemd.start()
            assert client.recv(4096).endswith(b"\r\n127.66.97.114")
            place.systemd.wait_until_ready()
            client.sendall(head)  # later, on that connection
            assert client.recv(4096).endswith(b"\r\n127.66.97.114")
        for source, seen in (("127.1.2.3", b"127.1.2.3"), ("127.0.0.9", b"7.7.7.7, 127.0.0.9")):
            with socket.create_connection(door, timeout=120, source_address=(source, 0)) as client:
                client.sendall(head)
                assert client.recv(4096).endswith(b"\r\n" + seen)


def test_who_waited_has_an_address_as_everybody(place: Place) -> None:
    """The PROXY protocol tells it, if it is the supervisor who speaks it: load balancers who waited are believed."""
    path = place.base / "state/proxy/traefik.yaml"
    config = json.loads(path.read_text())
    config["entryPoints"]["web"]["forwardedHeaders"] = {"trustedIPs": [*trusted(["127.0.0.0/24", "127.66.0.0/16"])]}
    path.write_text(json.dumps(config))
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 7.7.7.7\r\n\r\n"
    forged = b"PROXY TCP4 127.0.0.9 127.0.0.1 9 9\r\n"  # a load balancer's
    relay = "127.66.97.114"
    expected = {"127.1.2.3": b"127.1.2.3", "127.0.0.9": b"7.7.7.7, 127.0.0.9", relay: relay.encode()}
    with header_server("X-Forwarded-For") as hub, contextlib.ExitStack() as stack:
        place.write_rules(hub)
        place.systemd.prepare()

        def visitor(source: str, sent: bytes = b"") -> socket.socket:
            client = socket.create_connection(("127.0.0.1", place.web), timeout=120, source_address=(source, 0))
            client.sendall(sent + head)
            return stack.enter_context(client)

        waited = {who: visitor(who) for who in expected}
        place.systemd.start()
        place.systemd.wait_until_ready()
        for who, seen in expected.items():
            assert waited[who].recv(4096).endswith(b"\r\n" + seen)
            waited[who].sendall(head)  # later, on that connection
            assert waited[who].recv(4096).endswith(b"\r\n" + seen)
            assert visitor(who).recv(4096).endswith(b"\r\n" + seen)
        assert visitor("127.1.2.3", forged).recv(4096).endswith(b"\r\n127.1.2.3")
        assert visitor(relay, forged).recv(4096).startswith(b"HTTP/1.1 400 ")  # a second line is a request


@contextlib.contextmanager
def header_server(name: str) -> Iterator[str]:
    """It answers with a header of the request; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = str(self.headers[name]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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
    place.systemd.start(LOADING="0.5")
    place.systemd.wait_until_ready()
    assert get(place.web)[0] == 404
    place.systemd.stop()
    assert "has not loaded" in place.systemd.complaints()


def test_a_traefik_that_dies_is_an_error(place: Place) -> None:
    place.systemd.start()
    place.systemd.wait_until_ready()
    os.kill(place.systemd.traefik(), signal.SIGKILL)
    assert place.systemd.main.wait(timeout=120) == 1
    assert "traefik ended by itself, with status -9" in place.systemd.complaints()


def test_an_address_that_is_taken_is_named(place: Place) -> None:
    with socket.create_server(("127.0.0.1", place.web)):
        place.systemd.start()
        assert place.systemd.main.wait(timeout=120) == 1
    assert f"error: cannot listen on 127.0.0.1:{place.web} (entrypoint web): Address already in use" in (
        place.systemd.complaints()
    )


def test_another_installation_cannot_share_an_address(place: Place, tmp_path: Path) -> None:
    place.systemd.start()
    place.systemd.wait_until_ready()
    other = Systemd(proxies.make_base(tmp_path / "other"), tmp_path / "notify2")
    proxies.static_config(other.base, web=f"127.0.0.1:{place.web}", api=f"127.0.0.1:{free_port()}")
    other.start()
    assert other.main.wait(timeout=120) == 1
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
            assert process.wait(timeout=120) == 0
    assert not answers(place.web)
