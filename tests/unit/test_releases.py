"""barehub.lifecycle.releases: one becomes active by a rename, and older ones are removed."""

import shutil
import subprocess
from pathlib import Path

import pytest
from barehub.layout import Layout, release_key
from barehub.lifecycle import releases
from barehub.settings import Installation

from tests.unit.installations import ME, NEW, OLD, fake_command, make_release


def test_a_switch_is_one_rename_and_idempotent(layout: Layout) -> None:
    for release in ("2026.10.24", "2026.11.24"):
        layout.release(release).mkdir(exist_ok=True)
        releases.switch(layout, release)
        inode = layout.hub.lstat().st_ino
        releases.switch(layout, release)
        assert layout.active == release
        assert layout.hub.lstat().st_ino == inode
    assert str(layout.hub.readlink()) == "releases/2026.11.24"


def make_releases(layout: Layout, *labels: str) -> None:
    """Complete releases with a backup each; the last one is active."""
    layout.backups.mkdir(parents=True)
    for label in labels:
        make_release(layout, label)
        layout.backup(label).touch()
        releases.switch(layout, label)


def test_releases_of_a_day_are_sorted_by_number() -> None:
    labels = ["2026.11.01", "2026.10.24.10", "2026.10.24.2", "2026.10.24"]
    assert sorted(labels, key=release_key) == labels[::-1]


def test_the_oldest_releases_go_with_their_backups(layout: Layout) -> None:
    labels = ["2026.07.01", "2026.08.01", OLD, NEW]
    make_releases(layout, *labels)
    layout.backup("before-2026.07.01").touch()  # of data that came from elsewhere
    said: list[str] = []
    releases.remove_older(Installation(layout, ME), OLD, keep=3, say=said.append)
    assert layout.complete == labels[1:]
    assert not layout.release(labels[0]).exists()
    assert not layout.backup(labels[0]).exists()
    assert layout.backup("before-2026.07.01").exists()
    assert said == [f"removing release {labels[0]}", f"removed backup {layout.backup(labels[0])}"]
    releases.remove_older(Installation(layout, ME), labels[1], keep=2, say=said.append)
    assert layout.complete == [labels[1], NEW]  # the one before stays, not the newest
    releases.remove_older(Installation(layout, ME), labels[1], keep=0, say=said.append)
    assert layout.complete == [NEW]


def test_a_release_that_the_proxy_runs_from_stays(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_releases(layout, "2026.08.01", OLD, NEW)
    program = layout.release("2026.08.01") / "bin/traefik"
    program.parent.mkdir()
    shutil.copyfile(shutil.which("sleep") or "", program)
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as proxy:
        fake_command(tmp_path / "bin", "systemctl", f"echo {proxy.pid}", monkeypatch)
        said: list[str] = []
        releases.remove_older(Installation(layout, ME), OLD, keep=1, say=said.append)
        proxy.kill()
    assert layout.complete == ["2026.08.01", NEW]
    assert "kept 2026.08.01: the proxy runs from it until its next restart" in said


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ("conda-meta/traefik-3.6.1-h1.json", True),
        ("conda-meta/python-3.11.9-h1.json", True),
        ("lib/python3.11/site-packages/barehub/proxy_unit/sockets.py", True),
        ("conda-meta/jupyterhub-6.0-h1.json", False),
        ("conda-meta/python-dateutil-2.9-h1.json", False),
        ("lib/python3.11/site-packages/barehub/status.py", False),
    ],
)
def test_the_proxy_is_restarted_only_for_programs_that_it_runs(tmp_path: Path, changed: str, differs: bool) -> None:
    for prefix in ("old", "new"):
        path = tmp_path / prefix / "lib/python3.11/site-packages/barehub/proxy_unit/supervisor.py"
        path.parent.mkdir(parents=True)
        path.write_text("same")
    extra = tmp_path / "new" / changed
    extra.parent.mkdir(parents=True, exist_ok=True)
    extra.write_text("new")
    assert releases.proxy_differs(tmp_path / "old", tmp_path / "new") is differs
