"""recipe.channel: the caches of wheels and of packages. construct's tests and the builds have the rest."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recipe import pins
from recipe.channel import build_barehub, fetch_wheels, find_wheel, into_cache
from recipe.errors import UserError
from recipe.metadata import Target
from recipe.pins import Pin
from tests.unit.wheels import make

PY311 = Target("3.11")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one place where pip looks for wheels."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


@pytest.fixture
def requirements(tmp_path: Path, index: Path) -> Path:
    """A wheels.txt that pins the one wheel there."""
    path = tmp_path / "wheels.txt"
    path.write_text(pins.render({"demo": Pin("1.0", {make(index).sha256})}, "title"))
    return path


def test_a_wheel_is_downloaded_once(tmp_path: Path, index: Path, requirements: Path) -> None:
    assert fetch_wheels(requirements, tmp_path / "cache", PY311).keys() == {"demo"}
    shutil.rmtree(index)
    assert fetch_wheels(requirements, tmp_path / "cache", PY311).keys() == {"demo"}


def test_a_truncated_wheel_is_downloaded_again(tmp_path: Path, requirements: Path) -> None:
    cache = tmp_path / "cache"
    path = fetch_wheels(requirements, cache, PY311)["demo"].path
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    fetch_wheels(requirements, cache, PY311)
    assert path.read_bytes() == content


def test_finding_a_wheel_changes_nothing(index: Path, requirements: Path) -> None:
    [path] = index.iterdir()
    assert find_wheel(index, "demo", Pin("1.0", {"0" * 64}), PY311) is None
    assert find_wheel(index, "demo", pins.read(requirements)["demo"], PY311) == path
    assert [*index.iterdir()] == [path]


def test_a_python_that_the_pinned_wheels_do_not_fit_is_named(tmp_path: Path, index: Path, requirements: Path) -> None:
    cache = tmp_path / "cache"
    fetch_wheels(requirements, cache, PY311)
    [path] = cache.iterdir()
    path.rename(cache / "demo-1.0-cp312-cp312-manylinux_2_17_x86_64.whl")
    [path] = index.iterdir()
    path.rename(index / "demo-1.0-cp312-cp312-manylinux_2_17_x86_64.whl")
    with pytest.raises(UserError) as caught:
        fetch_wheels(requirements, cache, PY311)
    assert caught.value.fix


def test_a_package_is_in_the_cache_whole_or_not_at_all(tmp_path: Path) -> None:
    def build(text: str, directory: Path) -> Path:
        path = directory / "one-1.0-h0_0.conda"
        path.write_text(text)
        if text == "broken":
            raise UserError("broken")
        return path

    cache = tmp_path / "packages"
    cache.mkdir()
    place = cache / "key"
    with pytest.raises(UserError):
        into_cache(place, build, "broken")
    assert list(cache.iterdir()) == []
    for text in ("first", "second"):
        assert into_cache(place, build, text).read_text() == text
    assert [path.name for path in cache.iterdir()] == ["key"]


def test_two_builds_at_once_do_not_remove_each_others_wheel(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: build_barehub(ROOT, tmp_path), range(2)))
    assert made[0].path == made[1].path
    assert [path.name for path in made[0].path.parent.iterdir()] == [made[0].path.name]
