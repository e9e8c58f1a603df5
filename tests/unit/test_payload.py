"""construct.payload and sbom: what describes a release."""

import gzip
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from barehub.manifest import describe
from rattler import Channel, RepoDataRecord

from construct.build import distribution_name
from construct.engines import Engine
from construct.installer import MARGIN_KB
from construct.measure import Measured
from construct.payload import Release, header_values, render_packages, write_descriptions, write_locked, write_manifest
from construct.sbom import render_sbom
from construct.solve import lock_lines, solve_environment
from recipe.channel import TIMESTAMP
from recipe.errors import UserError
from recipe.libraries import Library
from recipe.lock_file import Lock
from recipe.overlay import Stack
from recipe.pins import Pin
from tests.unit.channels import write_channel

ROOT = Path(__file__).parents[2]
ENGINE = cast(Engine, SimpleNamespace(NAME="stand-in", COPIES=3, version=lambda: "1.2"))
MEASURED = Measured(kilobytes=1000, inodes=100, glibc=(2, 17))


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    write_channel(tmp_path / "payload/channel", [("one", "1.0", ("two >=1",)), ("two", "1.0", ())])
    return tmp_path / "payload"


@pytest.fixture
def records(payload: Path) -> list[RepoDataRecord]:
    return solve_environment([Channel((payload / "channel").as_uri())], ["one"], "linux-64")


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


def test_the_sbom_has_what_the_interpreter_brings(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [("python", "3.12.1", ())])
    records = solve_environment([Channel(channel.as_uri())], ["python"], "linux-64")
    libraries = [Library("xz", "5.6", "0BSD"), Library("libbz2-1.0")]
    [python] = json.loads(render_sbom("barehub", "2026.11.24", TIMESTAMP, records, {}, libraries))["components"]
    assert python["components"] == [
        {"type": "library", "name": "xz", "version": "5.6", "licenses": [{"license": {"id": "0BSD"}}]},
        {"type": "library", "name": "libbz2-1.0"},
    ]


def test_everything_in_the_payload_is_listed(tmp_path: Path, payload: Path, records: list[RepoDataRecord]) -> None:
    release = Release(Stack(tmp_path), "myhpc", "2026.11.24.1")
    write_locked(payload, release, records)
    write_descriptions(payload, release, Lock(lock_lines(records)), records, ENGINE, MEASURED)
    files = {path.relative_to(payload).as_posix() for path in payload.rglob("*") if path.is_file()}
    described = json.loads((payload / "release.json").read_text())
    assert {one["path"] for one in described["files"]} == files - {"release.json", "SHA256SUMS"}
    assert {one.split("  ")[1] for one in (payload / "SHA256SUMS").read_text().splitlines()} == files - {"SHA256SUMS"}
    assert (described["name"], described["version"], described["date"]) == ("myhpc", "2026.11.24.1", "2026-11-24")
    assert described["engine"] == {"name": "stand-in", "version": "1.2"}
    assert described["glibc"] == "2.17"
    assert Lock.read(payload / "environment.lock.yml").lines == lock_lines(records)
    values = header_values(payload, release, ENGINE, MEASURED)
    size = sum(path.stat().st_size for path in payload.rglob("*") if path.is_file())
    assert values["NEEDED_KB"] == 1000 + 3 * (size // 1024) + MARGIN_KB


def test_the_manifest_is_what_the_releases_own_code_says_of_a_prefix(tmp_path: Path) -> None:
    prefix, payload = tmp_path / "prefix", tmp_path / "payload"
    code = prefix / "lib/python3.12/site-packages/barehub"
    for directory in (code, prefix / "conda-meta", payload):
        directory.mkdir(parents=True)
    for name in ("__init__.py", "manifest.py"):
        shutil.copy(ROOT / "post_install/barehub" / name, code)
    write_manifest(payload, prefix)
    assert gzip.decompress((payload / "manifest.gz").read_bytes()).decode() == describe(prefix)
    assert sorted(path.name for path in code.iterdir()) == ["__init__.py", "manifest.py"]  # no bytecode
    content = (payload / "manifest.gz").read_bytes()
    write_manifest(payload, prefix)
    assert (payload / "manifest.gz").read_bytes() == content


def test_a_release_has_the_time_and_the_name_of_its_label(tmp_path: Path) -> None:
    release = Release(Stack(tmp_path), "myhpc", "2026.11.24.1")
    assert release.moment == datetime(2026, 11, 24, tzinfo=UTC)
    assert release.file_name == "myhpc-2026.11.24.1-Linux-x86_64.sh"


@pytest.mark.parametrize("name", ["", "My", "1st", "a_b", "a/b"])
def test_a_name_that_no_unit_could_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot be named"):
        distribution_name(name)
