"""barehub.manifest: what a linker leaves, wherever it leaves it, has one description."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub.differences import differences
from barehub.manifest import describe, parse, walk
from rattler import Channel, install

from construct.solve import solve_environment
from recipe.files import file_sha256

BUILT = "/home/builder/" + "placehold_" * 12
FILES = {
    "bin/script": (f"#!{BUILT}/bin/python\nprint('{BUILT}')\n".encode(), "text"),
    "lib/library.so": (b"\x7fELF\0" + f"{BUILT}/lib:{BUILT}/lib64\0\0end\0{BUILT}\0".encode() + bytes(8), "binary"),
    "share/plain": (b"no path\n", None),
}


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    """A channel of a package in conda's older format, whose files hold the path where it was built."""
    subdir = tmp_path / "channel/linux-64"
    subdir.mkdir(parents=True)
    (tmp_path / "channel/noarch").mkdir()
    (tmp_path / "channel/noarch/repodata.json").write_text('{"packages": {}}')
    paths = [
        {
            "_path": name,
            "path_type": "hardlink",
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_in_bytes": len(content),
        }
        | ({"prefix_placeholder": BUILT, "file_mode": mode} if mode else {})
        for name, (content, mode) in FILES.items()
    ]
    index = {"name": "one", "version": "1.0", "build": "0", "build_number": 0, "depends": [], "subdir": "linux-64"}
    members = {
        **{name: content for name, (content, _) in FILES.items()},
        "info/index.json": json.dumps(index).encode(),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
        "info/files": "".join(f"{name}\n" for name in FILES).encode(),
    }
    archive = subdir / "one-1.0-0.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if name.startswith("bin/") else 0o644
            tar.addfile(member, io.BytesIO(content))
    index |= {"sha256": file_sha256(archive), "size": archive.stat().st_size}
    (subdir / "repodata.json").write_text(json.dumps({"packages": {archive.name: index}}))
    return tmp_path / "channel"


def link(channel: Path, prefix: Path) -> Path:
    """Fill a prefix with it, as conda's tools do."""
    records = solve_environment([Channel(channel.as_uri())], ["one"], "linux-64")
    asyncio.run(install(records, prefix, prefix.with_name("cache"), show_progress=False))
    return prefix


def test_the_place_of_a_prefix_makes_no_difference(channel: Path, tmp_path: Path) -> None:
    here, there = link(channel, tmp_path / "a/prefix"), link(channel, tmp_path / "another/place/releases/2026.11.24")
    assert str(there).encode() in (there / "bin/script").read_bytes()
    assert describe(here) == describe(there)
    manifest = parse(describe(here))
    owners = frozenset((there.stat().st_uid,))
    assert differences(there, manifest, {}, owners) == []
    for path in ("bin/script", "lib/library.so"):
        good = (there / path).read_bytes()
        for evil in (good.replace(bytes(there), bytes(here)), good.replace(bytes(there), b"", 1), good[:-1] + b"x"):
            (there / path).write_bytes(evil)
            assert [(one.what, one.path) for one in differences(there, manifest, {}, owners)] == [("modified", path)]
        (there / path).write_bytes(good)
    assert differences(there, manifest, {}, owners) == []


def test_the_systems_own_tools_can_check_it(channel: Path, tmp_path: Path) -> None:
    """But for files that hold the path, and links, which are comments to them."""
    prefix = link(channel, tmp_path / "prefix")
    (prefix / "lib/alias.so").symlink_to("library.so")
    text = describe(prefix)
    assert "# link lib/alias.so -> library.so\n" in text
    assert len([line for line in text.splitlines() if line.startswith("# prefix ")]) == 2
    check = ["sha256sum", "--check", "--strict", "-"]
    done = subprocess.run(check, input=text, cwd=prefix, capture_output=True, text=True, check=True)
    assert done.stdout == "share/plain: OK\n"
    (prefix / "share/plain").write_text("")
    assert subprocess.run(check, input=text, cwd=prefix, capture_output=True, text=True, check=False).returncode == 1


def test_a_name_may_hold_what_ends_a_line_elsewhere(tmp_path: Path) -> None:
    names = {"a\x85b", "a\u2028b", "a\x1cb", os.fsdecode(b"a\xffb")}
    for name in names:
        (tmp_path / name).touch()
    assert set(parse(describe(tmp_path))) == names


def test_a_file_that_goes_meanwhile_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python writes bytecode under another name first."""
    for name in ("first", "gone", "last"):
        (tmp_path / name).touch()

    @contextlib.contextmanager
    def listed(place: Path) -> Iterator[list[os.DirEntry[str]]]:
        with os_scandir(place) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        (tmp_path / "gone").unlink(missing_ok=True)
        yield found

    os_scandir = os.scandir
    monkeypatch.setattr(os, "scandir", listed)
    assert [path for path, _ in walk(tmp_path)] == ["first", "last"]


def test_names_that_the_format_cannot_hold_are_refused(tmp_path: Path) -> None:
    for name in ("a\nb", "a\\b", "a -> b"):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match="a package has a file of this name"):
            describe(tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file capabilities")
def test_a_program_that_gives_whoever_runs_it_rights_of_roots_is_named(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_text("x")
    manifest = {"program": parse(describe(tmp_path))["program"]}
    assert differences(tmp_path, manifest, {}, frozenset({0})) == []
    # linux/capability.h, vfs_cap_data of revision 2: CAP_SETUID, effective at once.
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 7, 0, 0, 0))
    (wrong,) = differences(tmp_path, manifest, {}, frozenset({0}))
    assert (wrong.path, wrong.what) == ("program", "exposed")
    os.removexattr(path, "security.capability")
    path.unlink()
    (path / "program").mkdir(parents=True)  # a directory in its place
    (tmp_path / "other").write_text("x")
    (tmp_path / "hard").hardlink_to(tmp_path / "other")
    found = {(one.path, one.what) for one in differences(tmp_path, manifest, {}, frozenset({0}))}
    assert found == {("program", "missing"), ("other", "extra"), ("hard", "extra")}
