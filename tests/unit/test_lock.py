"""construct.lock and recipe.lock: what `release.py lock` writes, and what stays as it was."""

import functools
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from construct.lock import lock_environment
from recipe import pins
from recipe.errors import UserError
from recipe.lock import held, lock_of, lock_wheels, locked_wheels
from recipe.lock_file import Lock
from recipe.metadata import PLATFORM
from recipe.overlay import Stack
from recipe.pins import Pin, render
from tests.unit.channels import BASE, FORGE, ROOT, write_channel, write_overlay, write_repository
from tests.unit.wheels import make


@pytest.fixture
def forge(tmp_path: Path) -> Path:
    return write_channel(tmp_path / "forge", FORGE)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "repository")


def lock(
    stack: Stack,
    *channels: Path,
    update: list[str] | None = None,
    stated: Sequence[str] = (),
    platform: str = "linux-64",
    days_old: int = 0,
) -> dict[str, str]:
    """Lock, and return the version of each package."""
    path = lock_environment(stack, platform, stated, update, [str(one) for one in channels], days_old)
    return {name: line.version for name, line in Lock.read(path).lines.items()}


def test_a_lock_holds_the_newest_that_the_target_can_run_with_all_hashes(forge: Path, repository: Path) -> None:
    versions = lock(Stack(repository), forge)
    assert versions["tornado"] == "6.0"
    assert versions["jupyterhub-base"] == "2.0"
    assert versions.keys() == {"python", *BASE}
    text = (repository / "environment.lock.yml").read_text()
    assert "__glibc=2.28" in text
    assert sorted(yaml.safe_load(text)) == ["channels", "dependencies", "name"]
    assert all(line.sha256 and line.build for line in Lock.read(repository / "environment.lock.yml").lines.values())
    assert lock(Stack(repository), forge, stated=["__glibc=2.34"])["tornado"] == "7.0"


def test_what_was_built_today_is_not_locked_yet(forge: Path, repository: Path) -> None:
    write_channel(forge, [("traitlets", "9.0", ())], timestamp=datetime.now(UTC))
    assert lock(Stack(repository), forge, days_old=5)["traitlets"] == "2.0"
    assert lock(Stack(repository), forge)["traitlets"] == "9.0"


def test_each_platform_has_a_lock_of_its_own(tmp_path: Path, forge: Path, repository: Path) -> None:
    arm = write_channel(
        tmp_path / "arm", [("python", "3.13.0", ()), *((name, "3.0", ()) for name in BASE)], "linux-aarch64"
    )
    lock(Stack(repository), forge)
    before = (repository / "environment.lock.yml").read_text()
    assert lock(Stack(repository), arm, platform="linux-aarch64")["tornado"] == "3.0"
    assert (repository / "construct/environment.linux-aarch64.lock.yml").exists()
    assert (repository / "environment.lock.yml").read_text() == before


def test_the_first_channel_that_has_a_package_is_the_one_it_comes_from(
    tmp_path: Path, forge: Path, repository: Path
) -> None:
    site = write_channel(tmp_path / "site", [("jupyterhub-base", "1.5", ())])
    assert lock(Stack(repository), site, forge)["jupyterhub-base"] == "1.5"
    assert lock(Stack(repository), forge, site)["jupyterhub-base"] == "2.0"


def test_only_what_is_named_moves(tmp_path: Path, forge: Path, repository: Path) -> None:
    stack = Stack(repository)
    before = lock(stack, forge)
    newer = write_channel(tmp_path / "forge", [(name, "3.0", ()) for name in BASE])
    assert lock(stack, newer, update=["bcrypt"]) == before | {"bcrypt": "3.0"}
    with pytest.raises(UserError, match="bcript: not in"):
        lock(stack, newer, update=["bcript"])
    assert lock(stack, newer, update=[])["traitlets"] == "3.0"


def test_an_overlay_moves_what_it_names_and_holds_the_rest(tmp_path: Path, forge: Path, repository: Path) -> None:
    before = lock(Stack(repository), forge)
    newer = write_channel(tmp_path / "forge", [(name, "3.0", ()) for name in BASE])
    old = write_overlay(tmp_path / "old", "jupyterhub-base <2", "extra")
    assert lock(Stack.of(repository, [old]), newer) == before | {"jupyterhub-base": "1.0", "extra": "1.0"}
    assert (old / "environment.lock.yml").exists()


def test_an_overlays_lock_holds_the_bases_versions_but_for_what_it_names(tmp_path: Path, repository: Path) -> None:
    pinned = {name: Pin("1.0", {"a" * 64}) for name in ("jupyterhub", "tornado", "traitlets")}
    (repository / "recipe/wheels.txt").write_text(render(pinned, "title"))
    stack = Stack.of(repository, [write_overlay(tmp_path / "old", "jupyterhub-base <6")])
    base = Stack(repository)
    assert held(stack, "linux-64", None, locked_wheels).keys() == {"tornado", "traitlets"}
    assert held(base, "linux-64", None, locked_wheels) == {}
    assert held(base, "linux-64", [], locked_wheels) == {}
    assert held(base, "linux-64", ["tornado"], locked_wheels).keys() == {"jupyterhub-base", "traitlets"}
    with pytest.raises(UserError, match="tornada: not in"):
        held(base, "linux-64", ["tornada"], locked_wheels)


def test_there_has_to_be_a_lock_to_update(forge: Path, repository: Path) -> None:
    with pytest.raises(UserError, match="to update") as caught:
        lock(Stack(repository), forge, update=["tornado"])
    assert caught.value.fix == "leave out --update"
    with pytest.raises(UserError, match="to update"):
        lock_wheels(Stack(repository), "linux-64", (), ["tornado"])


def test_the_repositorys_lock_is_what_its_wheels_give() -> None:
    stack = Stack(ROOT)
    written = (ROOT / "environment.lock.yml").read_text()
    assert lock_of(stack, pins.read(stack.wheels)).render() == written
    assert not Lock.parse(written, "it").lines.keys() & {"nodejs", "barehub"}


def test_a_lock_of_wheels_is_for_no_one_platform(repository: Path) -> None:
    for platform, virtual in (("linux-aarch64", ()), ("linux-64", ("__glibc=2.34",))):
        with pytest.raises(UserError, match="a lock of wheels is for all machines"):
            lock_environment(Stack(repository), platform, virtual, None, ())


def test_an_index_that_does_not_tell_how_old_a_version_is_is_refused_with_the_way_out(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = tmp_path / "simple/demo"
    pages.mkdir(parents=True)
    make(pages)
    stack = Stack.of(repository, [], write_overlay(tmp_path / "users", "demo"))
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_UPLOADED_PRIOR_TO", "")  # so that what the lock sets is undone
    monkeypatch.delenv("PIP_UPLOADED_PRIOR_TO")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        with pytest.raises(UserError, match="does not provide upload-time metadata") as caught:
            lock_environment(stack, PLATFORM, (), None, (), days_old=5)
        server.shutdown()
    assert caught.value.fix.endswith("lock --days-old 0")


def test_overlays_without_packages_have_nothing_to_lock(tmp_path: Path, repository: Path) -> None:
    stack = Stack.of(repository, [write_overlay(tmp_path / "site", examples__1="")])
    with pytest.raises(UserError, match="nothing to lock"):
        lock_environment(stack, "linux-64", (), None, ["conda-forge"])
