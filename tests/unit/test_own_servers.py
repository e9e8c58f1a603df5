"""Routes to users' servers on this machine: they lead to nobody else, whenever a port is free for a moment."""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from traitlets import Integer

from tests.unit import proxies
from tests.unit.thief import HOSTS, stolen

if os.environ.get("CI") != "true":
    pytest.importorskip("jupyterhub_traefik_proxy")

from barehub import own_servers
from barehub.held_port import HoldsPort
from barehub.listeners import Listener, Ports, listening
from barehub.own_servers import Place
from barehub.proxy import BarehubProxy

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes sockets of other accounts")

NOBODY = 65534
THIEF = Listener(NOBODY, 0).account
USER, UID = "daemon", 1


class LocalProcessSpawner:
    """What counts of JupyterHub's. `ended`: so says its poll, as does JupyterHub's after half a minute."""

    name, proxy_spec = "", f"/user/{USER}/"

    def __init__(self, name: str, port: int) -> None:
        self.user = SimpleNamespace(name=name, spawners={"": self}, proxy_spec=self.proxy_spec)
        self.server = SimpleNamespace(host=f"http://127.0.0.1:{port}")
        self.pending, self.ended, self._log_name = None, False, name
        self.callback: Callable[[], Awaitable[None]] | None = None

    @property
    def ready(self) -> bool:
        return not self.ended or self.callback is not None

    async def poll_and_notify(self) -> int | None:
        if self.ended and self.callback:
            callback, self.callback = self.callback, None
            await callback()
        return 0 if self.ended else None


class SystemdSpawner(LocalProcessSpawner):
    username_template = "{USERNAME}"


class RemoteSpawner(LocalProcessSpawner.__base__):
    server = SimpleNamespace(host="http://127.0.0.1:1")


@dataclass(frozen=True)
class Hub:
    """The hub's side of a proxy, with a traefik."""

    base: Path
    port: int
    api: int

    def run(self, story: Callable[[BarehubProxy], Awaitable[None]]) -> None:
        async def main() -> None:
            urls = {"public_url": f"http://127.0.0.1:{self.port}", "traefik_api_url": f"http://127.0.0.1:{self.api}"}
            proxy = BarehubProxy(**urls)
            proxy.app = SimpleNamespace(hub=SimpleNamespace(routespec="/"))
            proxy.hub = SimpleNamespace(routespec="/", host="http://127.0.0.1:9")
            await story(proxy)

        asyncio.run(main())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    base = proxies.make_base(tmp_path / "base")
    monkeypatch.setenv("BAREHUB_BASE", str(base))
    found = Hub(base, proxies.free_port(), proxies.free_port())
    config = proxies.barehub_config(base, f"127.0.0.1:{found.port}", f"127.0.0.1:{found.api}")
    with proxies.running(proxies.traefik(), f"--configfile={config}"):
        yield found


def listener(uid: int, port: int = 0) -> socket.socket:
    """A socket that listens, of another account to the kernel."""
    found = socket.create_server(("127.0.0.1", port))
    os.fchown(found.fileno(), uid, uid)
    return found


async def eventually(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(120):
        while not await condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", [LocalProcessSpawner, SystemdSpawner])
def test_no_route_leads_to_another_account_in_a_users_place(kind: type[LocalProcessSpawner]) -> None:
    with listener(0) as server:
        port = server.getsockname()[1]
        assert Place.of(kind(USER, port)).is_own(listening())  # of the hub's account, as with SimpleLocalProcessSpawner
        os.fchown(server.fileno(), NOBODY, NOBODY)
        assert Place.of(kind(THIEF, port)).impostor(listening()) is None
        assert Place.of(kind(USER, port)).impostor(listening()) == THIEF
        assert Place.of(RemoteSpawner()).impostor(listening()) is None  # elsewhere, or in a container
        proxy, spawner = BarehubProxy.__new__(BarehubProxy), kind(USER, port)
        with pytest.raises(PermissionError, match=f"{THIEF} listens in the place of {USER}'s server"):
            asyncio.run(proxy.add_user(spawner.user))
    assert Place.of(kind(USER, port)).impostor(listening()) is None
    assert not Place.of(kind(USER, port)).is_own(listening())


def test_a_server_that_has_ended_loses_its_route_at_once(hub: Hub) -> None:
    async def story(proxy: BarehubProxy) -> None:
        server = listener(UID)
        spawner = LocalProcessSpawner(USER, server.getsockname()[1])
        spawner.callback = lambda: proxy.delete_user(spawner.user)
        await proxy.add_user(spawner.user)
        assert await proxy.get_route(spawner.proxy_spec)
        spawner.ended = True
        server.close()
        with listener(NOBODY, server_port(spawner)):
            await eventually(lambda: is_gone(proxy, spawner))
            assert spawner.callback is None  # JupyterHub has been told

    hub.run(story)


class HoldingSpawner(HoldsPort, LocalProcessSpawner):
    port, ip = Integer(), "127.0.0.1"


def test_nobody_gets_the_port_before_the_route_has_gone(hub: Hub) -> None:
    async def story(proxy: BarehubProxy) -> None:
        spawner, told = HoldingSpawner(USER, port := proxies.free_port()), asyncio.Event()

        async def stopped() -> None:
            await told.wait()
            await proxy.delete_user(spawner.user)

        spawner.callback, spawner.port = stopped, port
        server = listener(UID, port)
        await proxy.add_user(spawner.user)
        spawner.ended = True
        server.close()
        await eventually(lambda: asyncio.sleep(0, spawner.callback is None))
        assert await proxy.get_route(spawner.proxy_spec)
        assert await asyncio.to_thread(stolen, port, HOSTS[:3]) == []  # the route leads to 127.0.0.1
        told.set()
        await eventually(lambda: asyncio.to_thread(stolen, port, HOSTS[:3]))
        assert await is_gone(proxy, spawner)

    hub.run(story)


def test_a_port_that_is_held_already_does_not_keep_a_server_from_starting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        spawner = HoldingSpawner(USER, 1)
        spawner.port = other.getsockname()[1]
    spawner.keep_port()
    spawner.free_port()
    for _ in range(2):  # a start that has failed, and the next one
        spawner.port = proxies.free_port()
        listener(UID, spawner.port).close()
        spawner.keep_port()


def server_port(spawner: LocalProcessSpawner) -> int:
    return int(spawner.server.host.rpartition(":")[2])


async def is_gone(proxy: BarehubProxy, spawner: LocalProcessSpawner) -> bool:
    return await proxy.get_route(spawner.proxy_spec) is None


def test_so_does_one_that_lives_but_does_not_listen(hub: Hub) -> None:
    async def story(proxy: BarehubProxy) -> None:
        with listener(UID) as server:
            spawner = LocalProcessSpawner(USER, server.getsockname()[1])
            await proxy.add_user(spawner.user)
        await eventually(lambda: is_gone(proxy, spawner))

    hub.run(story)


def test_a_look_that_fails_is_not_the_last(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([OSError(errno.EMFILE, "Too many open files")])

    def look() -> Ports:
        for error in failures:
            raise error
        return listening()

    async def story(proxy: BarehubProxy) -> None:
        with listener(UID) as server:
            spawner = LocalProcessSpawner(USER, server.getsockname()[1])
            await proxy.add_user(spawner.user)
        monkeypatch.setattr(own_servers, "listening", look)
        await eventually(lambda: is_gone(proxy, spawner))
        assert next(failures, None) is None

    hub.run(story)


def test_a_hub_that_starts_watches_what_runs_and_lets_nobody_in(hub: Hub) -> None:
    async def story(proxy: BarehubProxy) -> None:
        with listener(UID) as server:
            spawner = LocalProcessSpawner(USER, server.getsockname()[1])
            await proxy.check_routes({USER: spawner.user}, {})
            assert await proxy.get_route(spawner.proxy_spec)
        await eventually(lambda: is_gone(proxy, spawner))
        with listener(NOBODY, server_port(spawner)):
            await proxy.check_routes({USER: spawner.user}, {})  # it goes on, whoever listens
            assert await is_gone(proxy, spawner)

    hub.run(story)


def test_what_cannot_be_seen_is_left_alone(hub: Hub) -> None:
    """A server on another machine, started by a class derived from the default one."""

    async def story(proxy: BarehubProxy) -> None:
        spawner = LocalProcessSpawner(USER, proxies.free_port())
        await proxy.add_user(spawner.user)
        assert proxy._watching is None
        assert await proxy.get_route(spawner.proxy_spec)

    hub.run(story)


def test_what_one_look_at_the_table_misses_has_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener(UID) as server:
        there = Place.of(LocalProcessSpawner(USER, server.getsockname()[1]))
        looks = iter([{}, listening(), {}, {}])
        monkeypatch.setattr(own_servers, "listening", lambda: next(looks))
        assert own_servers.gone({"alice": there}) == []
        assert own_servers.gone({"alice": there}) == ["alice"]
