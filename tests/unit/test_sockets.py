"""Doors: who waits, who gets through, and whom a probe of our own reaches through a shut one."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
from barehub.proxy_unit.sockets import RELAYED, Address, Door, resolve

from tests.unit.proxies import free_port


@pytest.fixture(params=["127.0.0.1", "", "0.0.0.0", "[::1]", "[::]"])
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    try:
        new = Door.make(f"{request.param}:{free_port()}")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with new.waiting, new.serving:
        for listener in (new.waiting, new.serving):
            listener.setblocking(False)
        yield new


def visit(door: Door, source: Address | None = None) -> str:
    """Which socket a new connection ends up at."""
    with socket.create_connection(door.address, timeout=120, source_address=source):
        return where(door)


def where(door: Door) -> str:
    found = []
    for name, listener in (("waiting", door.waiting), ("serving", door.serving)):
        with contextlib.suppress(BlockingIOError):
            listener.accept()[0].close()
            found.append(name)
    (one,) = found
    return one


def test_a_door_is_open_or_shut(door: Door) -> None:
    for _ in range(20):
        door.shut()
        assert visit(door) == "waiting"
        door.open()
        assert visit(door) == "serving"


def test_only_the_probe_gets_through_a_shut_door(door: Door) -> None:
    for _ in range(20):
        with door.probe() as client:
            assert visit(door) == "waiting"
            client.setblocking(True)
            client.connect(door.address)
            assert where(door) == "serving"
            assert visit(door) == "waiting"
        assert visit(door) == "waiting"


def test_its_port_is_not_enough() -> None:
    door = Door.make(f":{free_port()}")
    with door.waiting, door.serving, door.probe() as client:
        for listener in (door.waiting, door.serving):
            listener.setblocking(False)
        assert visit(door, ("127.0.0.2", client.getsockname()[1])) == "waiting"


def test_a_probe_that_has_gone_leaves_nothing_open(door: Door) -> None:
    with door.probe() as client:
        source = client.getsockname()[:2]
    assert visit(door, source) == "waiting"


def test_a_relayed_connection_comes_from_an_address_that_is_never_trusted(door: Door) -> None:
    door.open()
    with door.connection() as relayed:
        relayed.setblocking(True)
        relayed.connect(door.address)
        door.serving.setblocking(True)
        client, (host, *_) = door.serving.accept()
        client.close()
    assert host.removeprefix("::ffff:") in RELAYED.values()


@pytest.mark.parametrize("address", ["127.0.0.1", "", "0.0.0.0"])
def test_nothing_else_reaches_traefik_from_the_relays_address(address: str) -> None:
    """Any account may take its address, whatever the port, and with options in the IP header."""
    door, relay = Door.make(f"{address}:{free_port()}"), RELAYED[socket.AF_INET]
    with door.waiting, door.serving:
        for listener in (door.waiting, door.serving):
            listener.setblocking(False)
        door.open()
        assert visit(door, (relay, 0)) == "waiting"
        with door.connection() as relayed:
            assert visit(door, (relay, 0)) == "waiting"
            relayed.setblocking(True)
            relayed.connect(door.address)
            assert where(door) == "serving"
            port = relayed.getsockname()[1]
            relayed.close()
            with socket.socket() as stranger:
                stranger.setsockopt(
                    socket.IPPROTO_IP, socket.IP_OPTIONS, bytes((7, 7, 4, 0, 0, 0, 0, 0))
                )  # record route
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                stranger.bind((relay, port))
                stranger.connect(door.address)
                assert where(door) == "waiting"
        assert visit(door, (relay, 0)) == "waiting"
        assert visit(door) == "serving"


def test_a_door_that_is_shut_meanwhile_stays_so_and_lets_in_whom_it_had_accepted(door: Door) -> None:
    door.open()
    with door.connection():
        door.shut()
    assert visit(door) == "waiting"
    with door.connection() as relayed:
        relayed.setblocking(True)
        relayed.connect(door.address)
        assert where(door) == "serving"
        assert visit(door) == "waiting"
    assert visit(door) == "waiting"


def test_addresses_as_traefik_writes_them() -> None:
    assert resolve("127.0.0.1:80") == (socket.AF_INET, ("127.0.0.1", 80))
    assert resolve("[::1]:80") == (socket.AF_INET6, ("::1", 80))
    assert resolve(":80")[1][0] in ("::", "0.0.0.0")
    with pytest.raises(OSError, match="Servname"):
        resolve("127.0.0.1:no-such-port")
