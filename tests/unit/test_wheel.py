"""A wheel that is damaged, malformed or not the pinned one is refused, with its name and a fix."""

import pickle
import stat
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from recipe.errors import UserError
from recipe.wheel import Wheel
from tests.unit.wheels import make, open_wheel, record_row, wheel_files, write_wheel


def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path).path
    with pytest.raises(UserError, match=r"demo-1\.0-py3-none-any\.whl has sha256 .* is pinned") as caught:
        Wheel.open(path, "0" * 64)
    assert "delete the file" in caught.value.fix


INFO = "demo-1.0.dist-info"
METADATA = f"{INFO}/METADATA"
Content = dict[str, bytes]


def renamed(content: Content, old: str, new: str) -> Content:
    """Rename members, in RECORD too."""
    return {k.replace(old, new): v.replace(old.encode(), new.encode()) for k, v in content.items()}


def without(content: Content, name: str) -> Content:
    """Remove a member, but not its row in RECORD."""
    return {key: value for key, value in content.items() if key != name}


def recorded(content: Content, name: str, data: bytes = b"") -> Content:
    """Add or replace a member, with its row in RECORD."""
    content = unrecorded(content, name)
    record = content[f"{INFO}/RECORD"] + record_row(name, data).encode()
    return content | {name: data, f"{INFO}/RECORD": record}


def unrecorded(content: Content, name: str) -> Content:
    """Remove a member and its row in RECORD."""
    rows = content[f"{INFO}/RECORD"].splitlines(keepends=True)
    record = b"".join(row for row in rows if not row.startswith(f"{name},".encode()))
    return without(content, name) | {f"{INFO}/RECORD": record}


def hashed(content: Content, start: bytes) -> Content:
    """Let the hash of demo.py start in another way."""
    record = content[f"{INFO}/RECORD"].replace(b"demo.py,sha256=", b"demo.py," + start)
    return content | {f"{INFO}/RECORD": record}


def described(content: Content, line: str) -> Content:
    """Add a line to METADATA."""
    return recorded(content, METADATA, line.encode() + b"\n" + content[METADATA])


def entry_point(content: Content, line: str) -> Content:
    return recorded(content, f"{INFO}/entry_points.txt", f"[console_scripts]\n{line}\n".encode())


DAMAGE: dict[str, tuple[Callable[[Content], Content], str]] = {
    "another's directory": (lambda c: renamed(c, "demo-1.0.", "x-1.0."), "disagrees with x-1.0.dist-info"),
    "another version's": (lambda c: renamed(c, "demo-1.0.", "demo-2."), "disagrees with demo-2.dist-info"),
    "another's metadata": (lambda c: recorded(c, METADATA, b"Name: x\nVersion: 1"), "with METADATA (x 1)"),
    "no name": (lambda c: recorded(c, METADATA, b"Version: 1.0"), "'name' is a required field"),
    "two dist-infos": (lambda c: c | {"x-1.dist-info/METADATA": b""}, "2 .dist-info directories"),
    "no dist-info": (lambda c: {"demo.py": b""}, "0 .dist-info directories"),
    "another's data": (lambda c: recorded(c, "x-1.data/data/a"), "x-1.data does not belong"),
    "an absolute path": (lambda c: recorded(c, "/etc/passwd"), "unsafe path '/etc/passwd'"),
    "a path that leads out": (lambda c: recorded(c, "a/../../b"), "unsafe path 'a/../../b'"),
    "a path spelled otherwise": (lambda c: recorded(c, "./a"), "unsafe path './a'"),
    "a path for Windows": (lambda c: recorded(c, "a\\b"), "unsafe path 'a"),
    "a changed file": (lambda c: c | {"demo.py": b"evil"}, "demo.py does not have the hash in RECORD"),
    "an unlisted file": (lambda c: c | {"evil.pth": b""}, "disagree about evil.pth"),
    "a missing file": (lambda c: without(c, "demo.py"), "disagree about demo.py"),
    "no hash": (lambda c: hashed(c, b","), "no strong hash for demo.py"),
    "a weak hash": (lambda c: hashed(c, b"md5="), "no strong hash for demo.py"),
    "no RECORD": (lambda c: without(c, f"{INFO}/RECORD"), "no item named"),
    "no WHEEL": (lambda c: unrecorded(c, f"{INFO}/WHEEL"), "no item named"),
    "the next format": (lambda c: recorded(c, f"{INFO}/WHEEL", b"Wheel-Version: 2.0\n"), "-Version is 2.0"),
    "no requirement": (lambda c: described(c, "Requires-Dist: a b c"), "'a b c' is invalid"),
    "no Python version": (lambda c: described(c, "Requires-Python: three"), "'three' is invalid"),
    "a URL": (lambda c: described(c, "Requires-Dist: x @ https://example.org/x"), "requires x from a URL"),
    "a script that leads out": (lambda c: entry_point(c, "../x = demo:main"), "makes no script"),
    "a script with code": (lambda c: entry_point(c, "x = demo:main;evil()"), "makes no script"),
    "no ini file": (lambda c: recorded(c, f"{INFO}/entry_points.txt", b"x"), "entry_points.txt: "),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_unsound_wheel_is_refused_by_name_with_the_cure(tmp_path: Path, damage: str) -> None:
    change, expected = DAMAGE[damage]
    content = change(wheel_files("demo", "1.0", {"demo.py": "pass"}, ""))
    path = write_wheel(tmp_path / "demo-1.0-py3-none-any.whl", content)
    with pytest.raises(UserError) as caught:
        open_wheel(path)
    assert str(caught.value).startswith("demo-1.0-py3-none-any.whl is not a valid wheel: ")
    assert expected in str(caught.value)
    assert "release.py lock" in caught.value.fix


def test_a_member_that_is_a_link_or_comes_twice_is_refused(tmp_path: Path) -> None:
    content = wheel_files("demo", "1.0", {"demo.py": "/etc/passwd"}, "")
    path = write_wheel(tmp_path / "demo-1.0-py3-none-any.whl", content, {"demo.py": stat.S_IFLNK | 0o777})
    with pytest.raises(UserError, match=r"demo\.py is neither a file nor a directory"):
        open_wheel(path)
    write_wheel(path, content)
    with ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("demo.py", "/etc/passwd")
    with pytest.raises(UserError, match=r"demo\.py is in it twice"):
        open_wheel(path)


@pytest.mark.parametrize("name", ["demo-1.0.whl", "demo-one-py3-none-any.whl", "demo-1.0-py3-none-any.zip"])
def test_a_name_that_is_no_wheels_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=name):
        open_wheel(make(tmp_path).path.rename(tmp_path / name))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    path.write_bytes(b"<html>503 Service Unavailable</html>")
    with pytest.raises(UserError, match=r"demo-1\.0-py3-none-any\.whl .* not a zip file"):
        open_wheel(path)


def test_a_wheel_can_be_handed_to_another_process(tmp_path: Path) -> None:
    wheel = make(tmp_path, metadata="Requires-Dist: a>=1\n")
    assert pickle.loads(pickle.dumps(wheel)).requires == wheel.requires
