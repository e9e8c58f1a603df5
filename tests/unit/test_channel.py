"""recipe.channel: the caches of wheels and of packages. construct's tests and the builds have the rest."""

import shutil
from pathlib import Path

import pytest

from recipe import channel, pins
from recipe.channel import fetch_wheels, find_wheel, into_cache
from recipe.errors import UserError
from recipe.metadata import Target
from recipe.pins import Pin
from tests.unit.wheels import make

PY311 = Target("3.11")


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    """A wheels.txt that pins one wheel; it is in the directory `index`."""
    (tmp_path / "index").mkdir()
    wheel = make(tmp_path / "index")
    path = tmp_path / "wheels.txt"
    path.write_text(pins.render({"demo": Pin("1.0", {wheel.sha256})}, "title"))
    return path


@pytest.fixture(autouse=True)
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let pip be a copy from `index`, which like pip keeps a file that is there; return the names it was called for."""
    called: list[str] = []

    def download(requirements: Path, directory: Path, python: str) -> None:
        called.append(requirements.name)
        for path in (tmp_path / "index").glob("*.whl"):
            if not (directory / path.name).exists():
                shutil.copyfile(path, directory / path.name)

    monkeypatch.setattr(channel.pins, "download", download)
    return called


def test_a_wheel_is_downloaded_once(tmp_path: Path, requirements: Path, downloads: list[str]) -> None:
    cache = tmp_path / "cache"
    for _ in range(2):
        assert fetch_wheels(requirements, cache, PY311).keys() == {"demo"}
    assert downloads == ["wheels.txt"]


def test_a_truncated_wheel_is_downloaded_again(tmp_path: Path, requirements: Path, downloads: list[str]) -> None:
    cache = tmp_path / "cache"
    [path] = [wheel.path for wheel in fetch_wheels(requirements, cache, PY311).values()]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    fetch_wheels(requirements, cache, PY311)
    assert path.read_bytes() == content
    assert len(downloads) == 2


def test_finding_a_wheel_changes_nothing(tmp_path: Path, requirements: Path) -> None:
    other = Pin("1.0", {"0" * 64})
    before = sorted((tmp_path / "index").iterdir())
    assert find_wheel(tmp_path / "index", "demo", other, PY311) is None
    assert find_wheel(tmp_path / "index", "demo", pins.read(requirements)["demo"], PY311) == before[0]
    assert sorted((tmp_path / "index").iterdir()) == before


def test_a_python_without_a_pinned_wheel_is_named(tmp_path: Path) -> None:
    make(tmp_path, tag="cp312-cp312-manylinux_2_17_x86_64")
    (tmp_path / "index").mkdir()
    path = tmp_path / "wheels.txt"
    path.write_text(pins.render({"demo": Pin("1.0", {"0" * 64})}, "title"))
    with pytest.raises(UserError, match=r"no wheel of demo 1\.0 for Python 3\.11 is pinned"):
        fetch_wheels(path, tmp_path / "cache", PY311)


def test_a_package_is_in_the_cache_whole_or_not_at_all(tmp_path: Path) -> None:
    def build(text: str, directory: Path) -> Path:
        path = directory / "one-1.0-h0_0.conda"
        path.write_text(text)
        if text == "broken":
            raise UserError("broken")
        return path

    place = tmp_path / "key"
    with pytest.raises(UserError):
        into_cache(place, build, "broken")
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        assert into_cache(place, build, text).read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
