"""Who waited at a door while there was no traefik: the connection lives on, with the client's own address."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub.proxy_unit.static import trusted

from tests.unit.proxies import named_server
from tests.unit.supervised import Place, place_in


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as new:
        yield new


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


def header_server(name: str) -> contextlib.AbstractContextManager[str]:
    """It answers with a header of the request, and keeps the connection; its URL."""
    return named_server(property(lambda request: str(request.headers[name])), "HTTP/1.1")


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
