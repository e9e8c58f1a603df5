"""construct.index and add_to_channel.sh: both write the same lines."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from construct.index import add_to_channel, write_archive_sums, write_index
from recipe.errors import UserError
from tests.unit.channels import write_channel

OLD = [("one", "1.0", ()), ("two", "1.0", ())]
NEW = [("two", "1.0", ()), ("one", "1.1", ("two",))]
# What a head node has at least.
TOOLS = "sh awk sort sed mv rm cat dd wc mkdir basename dirname sha256sum sync"


def staged(channel: Path, tmp_path: Path) -> Path:
    """Copy a channel for `add_to_channel`, which empties its source."""
    copy = tmp_path / "new"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(channel, copy)
    write_archive_sums(copy)
    return copy


def files(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("tools", ["all", "no zstd"])
def test_channels_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: str) -> None:
    """The shell script merges two indexes into what Python writes for the packages of both."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    channels = [write_channel(tmp_path / "forge", OLD), write_channel(tmp_path / "other", NEW)]
    if tools != "all":
        (tmp_path / "bin").mkdir()
        for tool in TOOLS.split():
            (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for channel in (*channels, channels[0]):
        add_to_channel(staged(channel, tmp_path), mirror)
    monkeypatch.undo()
    merged = {subdir: (mirror / subdir / "repodata.json").read_text() for subdir in ("noarch", "linux-64")}
    names = sorted(name.rpartition("-")[0] for name in json.loads(merged["linux-64"])["packages.conda"])
    assert names == ["one-1.0", "one-1.1", "two-1.0"]
    for subdir, index in merged.items():
        words = ["zstd", "-dcq", str(mirror / subdir / "repodata.json.zst")]
        assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == index
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=mirror, check=True)
    assert len((mirror / "SHA256SUMS").read_text().splitlines()) == 3
    write_index(mirror)
    assert {subdir: (mirror / subdir / "repodata.json").read_text() for subdir in merged} == merged


def test_the_index_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "forge", OLD)
    before = files(channel)
    write_index(channel)
    assert files(channel) == before
    assert sorted(path.name for path in channel.iterdir()) == ["linux-64", "noarch"]


def test_an_archive_that_differs_or_a_foreign_index_stops_it_before_anything_changes(tmp_path: Path) -> None:
    mirror, channel = tmp_path / "mirror", write_channel(tmp_path / "forge", OLD)
    shutil.copytree(channel, mirror)
    [archive] = mirror.glob("linux-64/two-*.conda")
    archive.write_bytes(b"other")
    before = files(mirror)
    with pytest.raises(UserError, match="differs from the package of the same name"):
        add_to_channel(staged(channel, tmp_path), mirror)
    assert files(mirror) == before
    index = mirror / "linux-64/repodata.json"
    index.write_text(json.dumps(json.loads(index.read_text())))
    with pytest.raises(UserError, match="written by another tool"):
        add_to_channel(staged(channel, tmp_path), mirror)
