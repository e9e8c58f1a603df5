"""What the installer's shell half refuses of a backup before its first write, and what it tells the hooks."""

import io
import json
import os
import socket
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from barehub.lifecycle.archive import MANIFEST, Manifest
from barehub.settings import Settings

from tests.unit.installers import SHELLS, refused, run, write

ROOT = os.geteuid() == 0


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    return write(tmp_path)


def make(tmp_path: Path, settings: Settings | None = None, **changes: Any) -> Path:
    """A backup, as far as the shell reads it."""
    settings = settings or Settings(proxy_user="barehub-proxy")
    told = {"distribution": "barehub", "release": "2026.10.24", "made": "2026-10-25T00:00:00Z", "name": settings.name}
    told |= {"base": str(tmp_path / "base"), "schema": "4621fec11365"}
    manifest = Manifest(**{**told, **changes}, outside=(), added=(), sha256={"install.json": "0" * 64})
    path = tmp_path / "hub.tar"
    with tarfile.open(path, "w") as tar:
        for name, text in (
            ("install.json", json.dumps({"schema": 1, **asdict(settings)}, indent=2).encode()),
            (MANIFEST, manifest.to_json()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    path.chmod(0o600)
    return path


def words(tmp_path: Path) -> list[str]:
    """The words that the hooks got."""
    return [os.fsdecode(word) for word in (tmp_path / "base/releases/2026.11.24/words").read_bytes().split(b"\0")]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_backup_that_fits_is_the_hooks_to_restore(
    installer: Path, tmp_path: Path, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("", 8000)) if shell == "sh" else socket.socket():  # the backup says where it answers
        done = run(installer, "-b", "-p", str(tmp_path / "base"), "--restore", "hub.tar", shell=shell)
    assert done.returncode == 0, done
    assert words(tmp_path)[-3:-1] == ["--restore", "hub.tar"]


def test_a_dry_run_says_so(installer: Path, tmp_path: Path) -> None:
    path = make(tmp_path)
    done = run(installer, "-b", "-p", str(tmp_path / "base"), "--restore", str(path), "--dry-run")
    assert f"  restore  state and configuration from {path}\n" in done.stdout
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    ("changes", "code", "what", "fix"),
    [
        ({"release": "2026.12.24"}, 6, "is of 2026.12.24, which is newer", "use the installer of 2026.12.24"),
        ({"release": "2026.11.24.1"}, 6, "is of 2026.11.24.1, which is newer", "use the installer of 2026.11.24.1"),
        ({"distribution": "slurm"}, 6, "is of slurm, not of barehub", "use an installer of slurm"),
        ({"base": "/srv/hub"}, 6, "is of /srv/hub, not of", "give -p /srv/hub"),
    ],
)
def test_a_backup_for_somewhere_else_is_refused(
    installer: Path, tmp_path: Path, changes: dict[str, str], code: int, what: str, fix: str
) -> None:
    path = make(tmp_path, **changes)
    done = run(installer, "-b", "-p", str(tmp_path / "base"), "--restore", str(path))
    refused(done, code, what)
    assert fix in done.stderr
    assert not (tmp_path / "base").exists()


def test_no_value_of_it_is_run(installer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in ("$(touch oops)", "`touch oops`", '"; touch oops; "', "'; touch oops; '"):
        path = make(tmp_path, Settings(hub_user=value, proxy_user=value), base=value, name=value, distribution=value)
        refused(run(installer, "-b", "-p", str(tmp_path / "base"), "--restore", str(path)), 6, "the backup is of")
        assert not list(tmp_path.rglob("oops"))


def test_its_name_and_its_accounts_count_as_if_they_were_given(installer: Path, tmp_path: Path) -> None:
    base = ("-b", "-p", str(tmp_path / "base"), "--dry-run", "--restore")
    path = make(tmp_path, Settings(name="dev", hub_user="root", proxy_user="dev-proxy"))
    assert f"write    {tmp_path}/base/systemd/dev-hub.service\n" in run(installer, *base, str(path)).stdout
    refused(run(installer, *base, str(path), "--name", "other"), 2, "the backup's units are named dev")
    path = make(tmp_path, Settings(hub_user="nobody-here", proxy_user="daemon"))
    if ROOT:
        refused(run(installer, *base, str(path)), 2, "there is no account 'nobody-here'")
        assert run(installer, *base, str(path), "--hub-user", "root").returncode == 0


def test_what_is_no_backup_or_was_cut_off_is_refused(installer: Path, tmp_path: Path) -> None:
    path = make(tmp_path)
    options = ("-b", "-p", str(tmp_path / "base"), "--restore")
    refused(run(installer, *options, str(tmp_path / "nowhere")), 2, "cannot read")
    refused(run(installer, *options, str(tmp_path)), 2, "cannot read")
    whole = path.read_bytes()
    for content in (b"", b"not a tar" * 100, whole[:1024], whole[: whole.index(MANIFEST.encode())]):
        path.write_bytes(content)
        refused(run(installer, *options, str(path)), 5, "is no backup of barehub, or was cut off")
    assert not (tmp_path / "base").exists()


def test_a_file_that_others_can_change_is_refused(installer: Path, tmp_path: Path) -> None:
    path = make(tmp_path)
    options = ("-b", "-p", str(tmp_path / "base"), "--restore", str(path))
    for mode in (0o620, 0o602):
        path.chmod(mode)
        refused(run(installer, *options), 2, "others can change")
    path.chmod(0o600)
    if ROOT:
        os.chown(path, 1, 0)
        refused(run(installer, *options), 2, "others can change")


def test_an_installation_is_not_replaced_but_an_interrupted_restore_goes_on(installer: Path, tmp_path: Path) -> None:
    path, base = make(tmp_path), tmp_path / "base"
    base.mkdir()
    (base / "install.json").write_text('{"name": "barehub", "proxy_user": "x"}\n')
    options = ("-b", "-p", str(base), "--restore", str(path))
    refused(run(installer, *options), 6, "holds an installation already, and a restore replaces nothing")
    (base / ".restored").mkdir()
    assert run(installer, *options).returncode == 0
