"""construct.locked: a build that would differ from the lock fails."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from rattler import Channel, RepoDataRecord

from construct.locked import read_lock, render_lock, render_packages, require_locked, solve_environment
from construct.sbom import render_sbom
from recipe.channel import TIMESTAMP, write_index
from recipe.convert import assemble
from recipe.errors import UserError
from recipe.metadata import CondaMetadata, Target
from recipe.pins import Pin

OWN = {"ours"}


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    """A channel of three packages, of which one needs another and a glibc that nobody has yet."""
    channel = tmp_path / "channel"
    (channel / "noarch").mkdir(parents=True)
    (channel / "linux-64").mkdir()
    (tmp_path / "empty").mkdir()
    for name, depends in (("one", ("two >=1", "__glibc >=2.98")), ("two", ()), ("three", ())):
        stage = tmp_path / name
        stage.mkdir()
        (stage / name).write_text(name)
        metadata = CondaMetadata(name, "1.0", "", depends, license="MIT")
        assemble(metadata, Target("3.11"), stage, tmp_path / "empty", channel / "linux-64", TIMESTAMP)
    write_index(channel)
    return channel


@pytest.fixture
def records(channel: Path) -> list[RepoDataRecord]:
    return solve(channel, "one")


def solve(channel: Path, *specs: str) -> list[RepoDataRecord]:
    return solve_environment([Channel(channel.as_uri())], specs, "linux-64")


def locked(tmp_path: Path, versions: dict[str, str]) -> Path:
    """A lock like the repository's, of versions alone."""
    lock = tmp_path / "environment.lock.yml"
    lock.write_text("dependencies:\n" + "".join(f"  - {name}=={version}\n" for name, version in versions.items()))
    return lock


def test_only_what_is_needed_is_in_the_environment(records: list[RepoDataRecord]) -> None:
    assert [record.name.normalized for record in records] == ["one", "two"]


def test_the_index_is_the_same_whenever_it_is_made(channel: Path) -> None:
    before = (channel / "linux-64/repodata.json").read_bytes()
    write_index(channel)
    assert (channel / "linux-64/repodata.json").read_bytes() == before
    assert sorted(path.name for path in channel.iterdir()) == ["linux-64", "noarch"]


def test_specs_without_a_solution_are_an_error_for_people(channel: Path) -> None:
    with pytest.raises(UserError, match="four"):
        solve(channel, "four")


def test_an_environment_like_its_lock_passes(tmp_path: Path, records: list[RepoDataRecord]) -> None:
    require_locked(records, locked(tmp_path, {"one": "1.0", "two": "1.0"}), OWN)


def test_what_is_made_here_need_not_be_locked(tmp_path: Path, records: list[RepoDataRecord]) -> None:
    require_locked(records, locked(tmp_path, {"two": "1.0", "ours": "7"}), OWN | {"one"})


def test_another_build_than_the_locked_one_is_a_difference(tmp_path: Path, records: list[RepoDataRecord]) -> None:
    lock = tmp_path / "environment.lock.yml"
    lock.write_text(text := render_lock(records, "barehub", ["somewhere"]))
    require_locked(records, lock, OWN)
    lock.write_text(text.replace(records[1].sha256.hex(), "0" * 64))
    with pytest.raises(UserError, match=r"two ==1\.0 is locked, but 1\.0 h"):
        require_locked(records, lock, OWN)


@pytest.mark.parametrize(
    ("versions", "complaint"),
    [
        ({"one": "1.0"}, "two 1.0 is not locked"),
        ({"one": "1.0", "two": "1.1"}, r"two ==1\.1 is locked, but 1\.0 h\w+ would be built"),
        ({"one": "1.0", "two": "1.0", "three": "1.0"}, "three ==1.0 is locked, but nothing needs it"),
    ],
)
def test_each_difference_is_named_with_the_way_to_lock_again(
    tmp_path: Path, records: list[RepoDataRecord], versions: dict[str, str], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        require_locked(records, locked(tmp_path, versions), OWN)
    assert "release.py lock" in caught.value.fix


def test_the_installers_lock_is_a_plain_environment_with_hashes(channel: Path, records: list[RepoDataRecord]) -> None:
    document = yaml.safe_load(render_lock(records, "barehub", ["./channel"], "of this release"))
    assert sorted(document) == ["channels", "dependencies", "name"]
    [archive] = channel.glob("linux-64/one-*.conda")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert document["dependencies"][0] == f"one==1.0[build={records[0].build},sha256={sha256}]"
    # The spelling is py-rattler's too, and enforced.
    again = solve(channel, *document["dependencies"])
    assert [record.name.normalized for record in again] == ["one", "two"]
    with pytest.raises(UserError):
        solve(channel, document["dependencies"][0].replace(sha256, "0" * 64))


def test_the_repositorys_lock_is_read_back() -> None:
    lines = read_lock(Path(__file__).parents[2] / "environment.lock.yml")
    assert lines["python"].version == ">=3.11"
    assert lines["jupyterhub-base"].version.startswith("==")
    assert not lines.keys() & {"nodejs", "barehub"}


def test_the_package_list_is_for_grep(records: list[RepoDataRecord]) -> None:
    rows = [line.split() for line in render_packages(records).splitlines()]
    builds = [str(record.build) for record in records]
    assert [row[:4] for row in rows] == [["one", "1.0", builds[0], "linux-64"], ["two", "1.0", builds[1], "linux-64"]]


def test_the_sbom_names_packages_their_wheels_and_what_needs_what(records: list[RepoDataRecord]) -> None:
    text = render_sbom("barehub", "2026.11.24", TIMESTAMP, records, {"one": Pin("1.0", {"a" * 64})})
    assert text == render_sbom("barehub", "2026.11.24", TIMESTAMP, records, {"one": Pin("1.0", {"a" * 64})})
    sbom = json.loads(text)
    one = sbom["components"][0]
    assert one["purl"].startswith("pkg:conda/one@1.0?")
    assert one["pedigree"]["ancestors"][0]["purl"] == "pkg:pypi/one@1.0"
    assert one["licenses"] == [{"license": {"name": "MIT"}}]
    edges = {edge["ref"]: edge["dependsOn"] for edge in sbom["dependencies"]}
    assert edges[one["bom-ref"]] == [sbom["components"][1]["bom-ref"]]
