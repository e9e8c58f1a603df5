"""construct.channels and packages: a small channel stands in for conda-forge."""

import json
import shutil
from pathlib import Path

import pytest

from construct.channels import channel_name, open_channel
from construct.lock import lock_environment
from construct.packages import fill_channel, read_lock
from recipe.errors import UserError
from recipe.lock_file import Lock
from recipe.overlay import Stack
from tests.unit.channels import BASE, FORGE, write_channel, write_overlay, write_repository


@pytest.fixture
def forge(tmp_path: Path) -> Path:
    return write_channel(tmp_path / "forge", FORGE)


@pytest.fixture
def repository(tmp_path: Path, forge: Path) -> Path:
    """A repository with a lock of that channel."""
    root = write_repository(tmp_path / "repository")
    lock_environment(Stack(root), "linux-64", (), None, [str(forge)])
    return root


def fill(stack: Stack, *channels: Path, into: Path) -> list[str]:
    """Gather the locked packages; return their names."""
    given = [str(one) for one in channels]
    lock = read_lock(stack, stack.root / "environment.lock.yml", given)
    return [one.name.normalized for one in fill_channel(stack, lock, given, stack.root / ".cache", into)]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("conda-forge", "conda-forge"),
        ("https://me:secret@host.invalid/t/token/team/main/", "team/main"),
        ("file:///srv/mirror", "/srv/mirror"),
        ("../mirror", "../mirror"),
    ],
)
def test_a_lock_names_no_host(given: str, written: str) -> None:
    assert channel_name(given) == written


def test_exactly_the_locked_packages_are_gathered_with_our_own(tmp_path: Path, forge: Path, repository: Path) -> None:
    stack = Stack.of(repository, [write_overlay(tmp_path / "site", **{"jupyterhub_config.d__60-site": "c.x = 1\n"})])
    shutil.copytree(forge, tmp_path / "mirror")  # another place, the same files
    names = fill(stack, tmp_path / "mirror", into=tmp_path / "payload")
    assert set(names) == {"python", *BASE, "barehub", "barehub-overlay-site"}
    assert len([*(tmp_path / "payload").glob("*/*.conda")]) == len(names)


def test_what_a_channel_has_corrected_stays_so(tmp_path: Path, forge: Path, repository: Path) -> None:
    """conda-forge patches its index when a package turns out to need something else than it says."""
    index = forge / "linux-64/repodata.json"
    [name] = [one.name for one in forge.glob("linux-64/bcrypt-2.0-*.conda")]
    repodata = json.loads(index.read_text())
    repodata["packages.conda"][name]["depends"] = ["tornado <7"]
    index.write_text(json.dumps(repodata))
    fill(Stack(repository), forge, into=tmp_path / "payload")
    written = json.loads((tmp_path / "payload/linux-64/repodata.json").read_text())["packages.conda"]
    assert written[name]["depends"] == ["tornado <7"]
    assert all("constrains" not in record for other, record in written.items() if other != name)


def test_a_damaged_archive_of_a_file_channel_is_refused(tmp_path: Path, forge: Path, repository: Path) -> None:
    [archive] = forge.glob("linux-64/bcrypt-2.0-*.conda")
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"bcrypt-2\.0-h[0-9a-f]+_0\.conda has sha256"):
        fill(Stack(repository), forge, into=tmp_path / "payload")


def test_another_archive_than_the_locked_one_is_refused(tmp_path: Path, forge: Path, repository: Path) -> None:
    """The channel's index and file agree with each other, and not with the lock."""
    path = repository / "environment.lock.yml"
    sha256 = Lock.read(path).lines["bcrypt"].sha256
    assert sha256
    path.write_text(path.read_text().replace(sha256, "0" * 64))
    with pytest.raises(UserError, match="bcrypt"):
        fill(Stack(repository), forge, into=tmp_path / "payload")


def test_a_lock_of_a_channel_is_not_for_wheels(tmp_path: Path, forge: Path, repository: Path) -> None:
    with pytest.raises(UserError, match="is of conda channels") as caught:
        fill(Stack(repository), into=tmp_path / "payload")
    assert f"build --channel {forge}" in caught.value.fix


def test_a_lock_that_belongs_to_other_wheels_is_refused(tmp_path: Path, repository: Path) -> None:
    (repository / "recipe/wheels.txt").write_text("")
    (repository / "environment.lock.yml").write_text("name: barehub\ndependencies:\n  - bcrypt==2.0\n")
    with pytest.raises(UserError, match=r"was made with another wheels\.txt") as caught:
        fill(Stack(repository), into=tmp_path / "payload")
    assert "python3 release.py lock" in caught.value.fix


def test_a_missing_lock_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*environment\.lock\.yml") as caught:
        read_lock(Stack(tmp_path), None, ["conda-forge"])
    assert "python3 release.py lock --channel conda-forge" in caught.value.fix


def test_a_path_that_is_not_a_directory_is_not_a_channel(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a directory"):
        open_channel(str(tmp_path / "missing"))
