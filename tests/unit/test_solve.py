"""construct.solve: a build that would differ from the lock fails."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rattler import Channel, RepoDataRecord

from construct.solve import lock_lines, require_locked, solve_environment, virtual_package
from recipe.errors import UserError
from recipe.lock_file import Line, Lock
from tests.unit.channels import write_channel

OWN = {"ours"}
PACKAGES = [("one", "1.0", ("two >=1", "__glibc >=2.98")), ("two", "1.0", ()), ("three", "1.0", ())]


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    """A channel of three packages, of which one needs another one and a glibc that no system has yet."""
    return write_channel(tmp_path / "channel", PACKAGES)


@pytest.fixture
def records(channel: Path) -> list[RepoDataRecord]:
    return solve(channel, "one")


def solve(channel: Path, *specs: str) -> list[RepoDataRecord]:
    return solve_environment([Channel(channel.as_uri())], specs, "linux-64")


def locked(**versions: str) -> Lock:
    """Return a lock like the repository's, which pins versions only."""
    return Lock({name: Line(name, version) for name, version in versions.items()})


def test_only_what_is_needed_is_in_the_environment(records: list[RepoDataRecord]) -> None:
    assert [record.name.normalized for record in records] == ["one", "two"]


def test_specs_without_a_solution_are_an_error_for_people(channel: Path) -> None:
    with pytest.raises(UserError, match="four"):
        solve(channel, "four")


def test_an_environment_like_its_lock_passes(records: list[RepoDataRecord]) -> None:
    require_locked(records, locked(one="1.0", two="1.0"), OWN)


def test_what_is_made_here_need_not_be_locked(records: list[RepoDataRecord]) -> None:
    require_locked(records, locked(two="1.0", ours="7"), OWN | {"one"})


def test_another_build_than_the_locked_one_is_a_difference(records: list[RepoDataRecord]) -> None:
    lock = Lock(lock_lines(records))
    require_locked(records, lock, OWN)
    other = replace(lock.lines["two"], sha256="0" * 64)
    with pytest.raises(UserError, match=r"two ==1\.0 is locked, but 1\.0 h"):
        require_locked(records, Lock({**lock.lines, "two": other}), OWN)


@pytest.mark.parametrize(
    ("versions", "complaint"),
    [
        ({"one": "1.0"}, "two 1.0 is not locked"),
        ({"one": "1.0", "two": "1.1"}, r"two ==1\.1 is locked, but 1\.0 h\w+ would be built"),
        ({"one": "1.0", "two": "1.0", "three": "1.0"}, "three ==1.0 is locked, but nothing needs it"),
    ],
)
def test_each_difference_is_named_with_the_way_to_lock_again(
    records: list[RepoDataRecord], versions: dict[str, str], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        require_locked(records, locked(**versions), OWN)
    assert "release.py lock" in caught.value.fix


def test_the_installers_lock_is_a_plain_environment_with_hashes(channel: Path, records: list[RepoDataRecord]) -> None:
    document = yaml.safe_load(Lock(lock_lines(records), comments=("of this release",)).render())
    assert sorted(document) == ["channels", "dependencies", "name"]
    [archive] = channel.glob("linux-64/one-*.conda")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert document["dependencies"][0] == f"one==1.0[build={records[0].build},sha256={sha256}]"
    # The spelling is py-rattler's too, and enforced.
    again = solve(channel, *document["dependencies"])
    assert [record.name.normalized for record in again] == ["one", "two"]
    with pytest.raises(UserError):
        solve(channel, document["dependencies"][0].replace(sha256, "0" * 64))


def test_a_python_of_the_recipe_channel_may_be_newer(records: list[RepoDataRecord]) -> None:
    require_locked(records, Lock({"one": Line("one", ">=0.9"), "two": Line("two", ">=1.0")}), OWN)
    with pytest.raises(UserError, match=r"one >=1\.1 is locked"):
        require_locked(records, Lock({"one": Line("one", ">=1.1"), "two": Line("two", "1.0")}), OWN)


@pytest.mark.parametrize("text", ["glibc=2.28", "__glibc", "__glibc=new"])
def test_what_is_not_a_virtual_package_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a virtual package"):
        virtual_package(text)
