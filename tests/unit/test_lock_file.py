"""recipe.lock_file: the one reader and writer of environment.lock.yml."""

from pathlib import Path

import pytest
import yaml

from recipe.errors import UserError
from recipe.lock_file import Line, Lock
from tests.unit.channels import ROOT

LOCKS = sorted(path for path in ROOT.rglob("*.lock.yml") if not {".venv", ".cache"} & set(path.parts))
SHA256 = "ab" * 32
FULL = Lock(
    {"one": Line("one", "1!1.0+x", "h0_0", SHA256), "_two": Line("_two", "2.0", "h1_0", "cd" * 32)},
    "myhpc",
    ("conda-forge", "/srv/mirror"),
    ("of this release", ""),
)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_lock_of_the_repository_is_read_and_written_unchanged(path: Path) -> None:
    lock = Lock.read(path)
    assert lock.render() == path.read_text()
    assert lock.lines["python"] == Line("python", ">=3.11")
    assert lock.pins_versions_only
    assert lock.wheels_sha256


def test_what_is_rendered_is_read_back_and_is_yaml() -> None:
    text = FULL.render()
    assert Lock.parse(text, "it") == FULL
    assert not FULL.pins_versions_only
    document = yaml.safe_load(text)
    assert document["dependencies"] == [str(line) for line in FULL.lines.values()]
    assert document["channels"] == list(FULL.channels)


def test_the_wheels_of_a_lock_are_found_in_its_comments() -> None:
    comments = ("The wheels are in wheels.txt, whose own sha256 is", "Another line.")
    lock = Lock({"one": Line("one", "1.0")}, comments=comments, wheels_sha256=SHA256)
    assert Lock.parse(lock.render(), "it") == lock
    assert Lock.parse(lock.render().replace(SHA256, "none"), "it").wheels_sha256 is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it is not a lock"),
        ("dependencies: []\n", "it is not a lock"),
        ("dependencies:\n  - one >=1,<2\n", "not a locked package: one >=1,<2"),
        ("dependencies:\n  - one=1.0\n", "not a locked package"),
        ("dependencies:\n  - pip:\n    - two\n", "not a locked package"),
        ('dependencies:\n  - "one==1.0\n', "not a locked package"),
        (f"dependencies:\n  - one==1.0[build=h0_0,sha256={SHA256[1:]}]\n", "not a locked package"),
        ("dependencies:\n  - one==1.0\nprefix: /x\n", "it is not a lock: prefix"),
        ("dependencies:\n  - one==1.0\n  - one==1.1\n", "it locks one twice"),
    ],
)
def test_what_is_not_a_lock_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        Lock.parse(text, "it")
    assert caught.value.fix


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")
    for name in ("missing", "binary"):
        with pytest.raises(UserError, match=f"cannot read .*{name}"):
            Lock.read(tmp_path / name)
