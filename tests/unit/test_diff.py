"""`release.py diff`: what an administrator reads about two releases."""

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from construct import diff as differences
from construct.diff import diff
from construct.installer import write_installer
from recipe.errors import UserError
from tests.unit.test_verify import NUMBERS, describe, write_payload

OLD = ["aiohttp==3.14.5", "gone==1.0", "jupyterhub-base==5.5.4", "python>=3.11", "requests==2.34.2", "zlib==1.3"]
NEW = ["aiohttp==3.14.5", "jupyterhub-base==6.1.1", "new==0.1", "python>=3.11", "requests==2.34.1", "zlib==2.0"]


def lock(path: Path, lines: list[str]) -> Path:
    path.write_text(
        "# the lock\nname: barehub\nchannels:\n  - ./channel\ndependencies:\n"
        + "".join(f"  - {line}\n" for line in lines)
    )
    return path


def test_two_locks(tmp_path: Path) -> None:
    old, new = lock(tmp_path / "old.yml", OLD), lock(tmp_path / "new.yml", NEW)
    assert (
        diff(old, new, markdown=False)
        == f"""\
from {old} to {new}

changed:
  jupyterhub-base  5.5.4 -> 6.1.1    major
  requests         2.34.2 -> 2.34.1  older
  zlib             1.3 -> 2.0

added:
  new  0.1

removed:
  gone  1.0

JupyterHub 5.5.4 -> 6.1.1 is a new major version: read its upgrade notes.
An upgrade migrates the hub's database and keeps a copy; `barehub rollback` goes back to that.
"""
    )


def test_the_same_as_notes(tmp_path: Path) -> None:
    old, new = lock(tmp_path / "old.yml", OLD), lock(tmp_path / "new.yml", NEW)
    notes = diff(old, new, markdown=True)
    assert notes.startswith(f"## Changes since {old}\n")
    assert "| requests | 2.34.2 | 2.34.1 | older |\n" in notes
    assert "Added: new 0.1.\n" in notes
    assert "Removed: gone 1.0.\n" in notes


def test_nothing_changed(tmp_path: Path) -> None:
    old = lock(tmp_path / "old.yml", OLD)
    assert "no differences" in diff(old, old, markdown=False)
    assert "The packages are the same" in diff(old, old, markdown=True)


def test_a_lock_with_builds_and_hashes_against_one_of_versions(tmp_path: Path) -> None:
    """Of what only one of them says nothing is made up."""
    full = lock(tmp_path / "full.yml", [f'"one==1.0[build=h0_0,sha256={"0" * 64}]"'])
    assert "no differences" in diff(full, lock(tmp_path / "plain.yml", ["one==1.0"]), markdown=False)
    rebuilt = lock(tmp_path / "rebuilt.yml", [f'"one==1.0[build=h0_1,sha256={"1" * 64}]"'])
    assert re.search(r"one +1.0 h0_0 -> 1.0 h0_1 +rebuilt", diff(full, rebuilt, markdown=False))


def test_two_installers(tmp_path: Path) -> None:
    """What they need of a machine is reported as well."""
    paths = []
    for name, version, engine in (("old", "1.0", '"conda-ship"'), ("new", "2.0", '"constructor"')):
        payload = tmp_path / name
        write_payload(payload, {"one": version})
        text = (payload / "release.json").read_text()
        (payload / "release.json").write_text(text.replace('"conda-ship"', engine))
        paths.append(tmp_path / f"{name}.sh")
        write_installer(paths[-1], payload, NUMBERS, datetime(2026, 11, 24, tzinfo=UTC))
    text = diff(*paths, markdown=False)
    assert re.search(r"one +1.0 -> 2.0", text)
    assert re.search(r"engine +conda-ship 1 -> constructor 1", text)
    assert "glibc" not in text


def test_an_installer_against_the_lock(tmp_path: Path) -> None:
    payload = tmp_path / "payload"
    write_payload(payload, {"one": "1.0"})
    describe(payload)
    assert re.search("one +1.0 -> 1.1", diff(payload, lock(tmp_path / "new.yml", ["one==1.1"]), markdown=False))


@pytest.mark.parametrize(
    "text", ["", "dependencies: []\n", "name: x\ndependencies:\n  - one >=1,<2\n", "name: x\ndependencies:\n  - pip:\n"]
)
def test_what_is_no_lock_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "environment.yml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"environment\.yml"):
        diff(path, path, markdown=False)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for name in ("none.yml", "none.sh"):
        with pytest.raises(UserError, match=f"cannot read .*{name}"):
            diff(tmp_path / name, tmp_path / name, markdown=False)


def test_notes_have_the_subjects_of_the_commits_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@localhost"]
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    commits = []
    for subject in ("First", "Fix `this`", "Then that"):
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", f"--message={subject}\n\nWhy."], check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        commits.append(head.stdout.strip())
    assert differences.commit_subjects(tmp_path, commits[0], commits[2]) == ["Then that", "Fix `this`"]
    assert differences.commit_subjects(tmp_path, commits[0], "0" * 40) == []
    assert differences.commit_subjects(tmp_path, "", commits[2]) == []

    monkeypatch.setattr(differences, "ROOT", tmp_path)
    sides = []
    for label, commit in (("2026.10.24", commits[0]), ("2026.11.24", f"{commits[2]}-dirty")):
        sides.append(tmp_path / label)
        sides[-1].mkdir()
        lock(sides[-1] / "environment.lock.yml", OLD)
        (sides[-1] / "release.json").write_text(json.dumps({"name": "barehub", "version": label, "commit": commit}))
    assert diff(*sides, markdown=True).endswith("### Changes to barehub itself\n\n- Then that\n- Fix `this`\n")
