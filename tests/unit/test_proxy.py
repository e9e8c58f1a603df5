"""BarehubProxy with a real traefik: routes get there, are kept, and cannot break anything."""

import asyncio
import contextlib
import json
import logging
import os
import resource
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit import proxies
from tests.unit.proxies import get, named_server

if os.environ.get("CI") != "true":
    pytest.importorskip("jupyterhub_traefik_proxy")

from barehub.proxy import BarehubProxy
from jupyterhub.utils import url_escape_path


@dataclass(frozen=True)
class Place:
    """One installation's directories and ports."""

    base: Path
    web: int
    api: int

    @property
    def rules(self) -> Path:
        return self.base / "state/rules/rules.yaml"

    @contextlib.asynccontextmanager
    async def proxy(self, **traits: object) -> AsyncIterator[BarehubProxy]:
        """The hub's side, as a hub that starts has it."""
        yield BarehubProxy(
            public_url=f"http://127.0.0.1:{self.web}", traefik_api_url=f"http://127.0.0.1:{self.api}", **traits
        )

    def run(self, story: Callable[[BarehubProxy], Awaitable[None]], **traits: object) -> None:
        async def main() -> None:
            async with self.proxy(**traits) as proxy:
                await story(proxy)

        asyncio.run(main())


@pytest.fixture
def without_traefik(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(proxies.make_base(tmp_path / "base"), proxies.free_port(), proxies.free_port())
    monkeypatch.setenv("BAREHUB_BASE", str(place.base))
    return place


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place with a traefik, for all tests in turn."""
    place = Place(
        proxies.make_base(tmp_path_factory.mktemp("place") / "base"), proxies.free_port(), proxies.free_port()
    )
    config = proxies.static_config(place.base, web=f"127.0.0.1:{place.web}", api=f"127.0.0.1:{place.api}")
    with proxies.running(proxies.traefik(), f"--configfile={config}"):
        yield place


@pytest.fixture
def place(shared_place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """As before the hub has ever run: traefik forgets the routes of a test before when it gets others."""
    monkeypatch.setenv("BAREHUB_BASE", str(shared_place.base))
    for path in (*shared_place.rules.parent.glob("rules*"), shared_place.base / "state/hub/traefik-api.json"):
        path.unlink(missing_ok=True)
    shutil.rmtree(shared_place.rules.parent / ".new", ignore_errors=True)
    return shared_place


def test_a_route_is_served_when_add_route_returns(place: Place) -> None:
    async def story(proxy: BarehubProxy) -> None:
        with named_server("alice's") as url:
            await proxy.add_route("/user/alice/", url, {"user": "alice"})
            assert await asyncio.to_thread(get, place.web, "/user/alice/tree") == (200, "alice's")
        assert await proxy.get_route("/user/alice") == {
            "routespec": "/user/alice/", "target": url, "data": {"user": "alice"},
        }  # fmt: skip
        assert list(await proxy.get_all_routes()) == ["/user/alice/"]

    place.run(story)


def test_a_thousand_routes_at_once_take_a_moment(place: Place) -> None:
    async def story(proxy: BarehubProxy) -> None:
        await proxy.add_route("/", "http://127.0.0.1:9", {})
        started = time.monotonic()
        await asyncio.gather(*(proxy.add_route(f"/user/u{i}/", "http://127.0.0.1:9", {}) for i in range(1000)))
        assert time.monotonic() - started < 10  # one by one they took more than a minute
        assert len(await proxy.get_all_routes()) == 1001

    place.run(story)


def test_a_changed_target_is_served_when_add_route_returns(place: Place) -> None:
    async def story(proxy: BarehubProxy) -> None:
        with named_server("old") as old, named_server("new") as new:
            for _ in range(3):
                for name, url in (("old", old), ("new", new)):
                    await proxy.add_route("/user/alice/", url, {})
                    assert await asyncio.to_thread(get, place.web, "/user/alice/") == (200, name)

    place.run(story)


def test_of_changes_in_one_burst_the_last_counts(place: Place) -> None:
    async def story(proxy: BarehubProxy) -> None:
        with named_server("first") as first, named_server("last") as last:
            await asyncio.gather(
                proxy.add_route("/a/", first, {}), proxy.delete_route("/a/"), proxy.add_route("/a/", last, {}),
                proxy.add_route("/b/", first, {}), proxy.delete_route("/b/"),
            )  # fmt: skip
            assert await asyncio.to_thread(get, place.web, "/a/") == (200, "last")
            assert (await asyncio.to_thread(get, place.web, "/b/"))[0] == 404
            assert list(await proxy.get_all_routes()) == ["/a/"]

    place.run(story)


def test_a_deleted_route_is_gone_and_a_missing_one_is_a_warning(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def story(proxy: BarehubProxy) -> None:
        proxy.log = logging.getLogger("hub")
        await proxy.add_route("/user/alice/", "http://127.0.0.1:9", {})
        await proxy.delete_route("/user/alice/")
        assert await proxy.get_route("/user/alice/") is None
        assert "alice" not in place.rules.read_text()
        assert "nothing to delete" not in caplog.text
        await proxy.delete_route("/user/alice/")
        assert "nothing to delete" in caplog.text

    place.run(story)


def test_a_write_error_reaches_its_callers_alone_and_changes_nothing(place: Place) -> None:
    async def story(proxy: BarehubProxy) -> None:
        await proxy.add_route("/before/", "http://127.0.0.1:9", {})
        before = place.rules.read_text()
        with full_disk():
            failed = await asyncio.gather(
                proxy.add_route("/x/", "http://127.0.0.1:9", {}), proxy.delete_route("/before/"),
                return_exceptions=True,
            )  # fmt: skip
        assert [type(error) for error in failed] == [OSError, OSError]
        assert place.rules.read_text() == before
        await proxy.add_route("/after/", "http://127.0.0.1:9", {})
        assert sorted(await proxy.get_all_routes()) == ["/after/", "/before/"]

    place.run(story)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond a few bytes: EFBIG, which a program meets like ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_traefik_an_added_route_is_a_timeout_and_is_kept(without_traefik: Place) -> None:
    async def story(proxy: BarehubProxy) -> None:
        with pytest.raises(TimeoutError, match="not available"):  # what a hub that starts is told
            await proxy.check_routes({}, {})
        with pytest.raises(TimeoutError, match="/user/alice/"):
            await proxy.add_route("/user/alice/", "http://127.0.0.1:9", {})
        await proxy.delete_route("/user/bob/")
        assert list(await proxy.get_all_routes()) == ["/user/alice/"]

    without_traefik.run(story, check_route_timeout=1)


def test_routes_outlive_the_hub_and_all_else_follows_its_traits(place: Place) -> None:
    async def first(proxy: BarehubProxy) -> None:
        await proxy.add_route("/user/alice/", "http://127.0.0.1:9", {"user": "alice"})

    async def second(proxy: BarehubProxy) -> None:
        assert (await proxy.get_all_routes())["/user/alice/"]["data"] == {"user": "alice"}
        await proxy.add_route("/user/bob/", "http://127.0.0.1:9", {})

    place.run(first, extra_dynamic_config={"http": {"middlewares": {"passing": {"stripPrefix": {"prefixes": ["/x"]}}}}})
    assert "passing" in place.rules.read_text()
    place.run(second)
    written = json.loads(place.rules.read_text())
    assert len(written["http"]["services"]) == 2
    assert "passing" not in written["http"]["middlewares"]


@pytest.mark.parametrize("damage", ["", '{"http": {"rou', "[]", '{"http": {}}', "a: [b"])
def test_damaged_rules_are_set_aside_and_the_hub_starts(place: Place, damage: str) -> None:
    place.rules.write_text(damage)

    async def story(proxy: BarehubProxy) -> None:
        assert await proxy.get_all_routes() == {}
        await proxy.add_route("/", "http://127.0.0.1:9", {})

    place.run(story)
    assert Path(f"{place.rules}.damaged").read_text() == damage


def test_rules_are_for_the_proxys_group_alone(place: Place) -> None:
    if os.geteuid() == 0:
        os.chown(place.rules.parent, 0, 33)
        place.rules.parent.chmod(0o2750)

    async def story(proxy: BarehubProxy) -> None:
        await proxy.add_route("/", "http://127.0.0.1:9", {})

    place.run(story)
    entries = sorted(place.rules.parent.rglob("*"))
    assert [(entry.name, oct(entry.stat().st_mode & 0o7777)) for entry in entries] == [
        (".new", "0o2750"), ("rules.yaml", "0o640"),
    ]  # fmt: skip
    assert {entry.stat().st_gid for entry in entries} == {place.rules.parent.stat().st_gid}


ODD_NAMES = (
    "{{", "{{ .X }}", "}}", "${x}", "^a.*$", "a`b", 'a"b', r"a\b", "'", "a+b", "a&b", "a@b", "100%", "a%2Fb", "a b",
    "jürgen", "😀", "\x7f\x85\u2028", "a,b", "a*b", r"DOM\ada", "ada@dom.example", "dom\\*,@ada", "~ada", "-rf",
)  # fmt: skip


def test_names_of_users_and_servers_break_nothing(place: Place) -> None:
    async def story(proxy: BarehubProxy) -> None:
        with named_server("hub") as hub, named_server("odd") as odd:
            await proxy.add_route("/", hub, {})
            for name in ODD_NAMES:
                for spec in (f"/user/alice/{url_escape_path(name)}/", f"/user/{url_escape_path(name)}/"):
                    await proxy.add_route(spec, odd, {"server_name": name})
                    assert (await proxy.get_route(spec))["data"] == {"server_name": name}
                    assert await asyncio.to_thread(get, place.web, spec) == (200, "odd"), name
                assert await asyncio.to_thread(get, place.web, "/hub/login") == (200, "hub"), name

    place.run(story)


def test_a_server_name_cannot_become_part_of_a_rule(place: Place) -> None:
    async def story(proxy: BarehubProxy) -> None:
        with named_server("hub") as hub, named_server("evil") as evil:
            await proxy.add_route("/", hub, {})
            for name in ("x`) || HostRegexp(`.*", 'x") || HostRegexp(".*', 'x\\") || HostRegexp(".*'):
                await proxy.add_route(f"/user/eve/{url_escape_path(name)}/", evil, {})
            assert await asyncio.to_thread(get, place.web, "/hub/login") == (200, "hub")

    place.run(story)


def test_the_api_password_is_private_and_stays_the_same(place: Place) -> None:
    hashes = []

    async def story(proxy: BarehubProxy) -> None:
        await proxy.add_route("/", "http://127.0.0.1:9", {})
        hashes.append(proxy.traefik_api_hashed_password)

    place.run(story)
    place.run(story)
    stored = place.base / "state/hub/traefik-api.json"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert hashes[0] == hashes[1]
    assert hashes[0].startswith("$2b$04$")
    assert len(json.loads(stored.read_text())["password"]) >= 43  # 32 bytes
    assert get(place.api, "/api/overview")[0] == 401


def test_a_password_of_the_administrators_is_used(place: Place) -> None:
    async def story(proxy: BarehubProxy) -> None:
        await proxy.add_route("/", "http://127.0.0.1:9", {})

    place.run(story, traefik_api_username="me", traefik_api_password="mine")
    assert "me:$2b$12$" in place.rules.read_text()
