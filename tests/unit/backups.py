"""An installation with all that a backup holds, what is in a backup, and machines that restore one."""

import hashlib
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import jupyterhub.dbutil
import pytest
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle.archive import MANIFEST
from barehub.lifecycle.database import own_database
from barehub.lifecycle.install import install
from barehub.lifecycle.options import Request

from tests.unit.installations import NEW, belongs_to, database_template, make_active, make_release, worker

Member = tuple[tarfile.TarInfo, bytes]
COOKIE = "0" * 64


def hub_at_work(
    layout: Layout, label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: str | None = None
) -> Layout:
    """A release that is active, with a database of this schema, by default the newest, and files of every kind."""
    database = database_template(schema)  # before this JupyterHub knows no later one
    shutil.rmtree(layout.base, ignore_errors=True)
    release = make_release(layout, label, schema)
    monkeypatch.setattr(sys, "executable", worker(tmp_path / "worker"))
    if schema:
        scripts = next(release.prefix.glob("lib/python3*/site-packages/jupyterhub/alembic"))
        monkeypatch.setattr(jupyterhub.dbutil, "ALEMBIC_DIR", str(scripts))
    make_active(release, monkeypatch)
    own_database(release).write_bytes(database)
    for path, text, mode in (
        (release.cookie_secret, COOKIE, 0o600),
        (release.hub_state / "site/notes", "kept", 0o640),
        (release.hub_state / "jupyterhub-unused.sqlite", "SQLite format 3\0 of another release", 0o600),
        (release.backups / "jupyterhub-2026.09.24.sqlite", "old", 0o600),
        (release.acme_store, "{}", 0o600),
        (release.config / "secrets/ldap", "password", 0o640),
        (release.announcement, "Hello", 0o644),
        (release.allowed_signers, "barehub ssh-ed25519 AAAA\n", 0o644),
        (release.system_units / "barehub-hub.service.d/site.conf", "[Service]\nEnvironment=SITE=ours\n", 0o644),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    shutil.rmtree(release.backups)
    (release.prefix / "lib/python3.11/site-packages/site_spawner-1.2.dist-info").mkdir()
    return release


def in_the_backup(path: Path) -> dict[str, bytes]:
    """The files in a backup."""
    with tarfile.open(path) as tar:
        files = ((member.name, tar.extractfile(member)) for member in tar.getmembers())
        return {name: file.read() for name, file in files if file}


def another_machine(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    shutil.rmtree(layout.base)
    shutil.rmtree(layout.root, ignore_errors=True)
    release = make_release(layout, NEW)
    belongs_to(release, monkeypatch)
    return release


def put_back(layout: Layout, saved: Path, **options: object) -> list[str]:
    said: list[str] = []
    request = Request(layout.prefix.name, restore=str(saved), **options)  # type: ignore[arg-type]
    install(layout, request, say=said.append)
    return said


def refused(layout: Layout, saved: Path, what: str, **options: object) -> UserError:
    """Nothing of the backup is there after the refusal."""
    before = sorted(layout.base.rglob("*"))
    with pytest.raises(UserError, match=what) as caught:
        put_back(layout, saved, **options)
    assert sorted(layout.base.rglob("*")) == before
    assert not list(layout.root.rglob("*.conf"))
    assert caught.value.fix
    return caught.value


def edited(saved: Path, change: Callable[[list[Member]], list[Member]]) -> Path:
    """The backup with other members."""
    with tarfile.open(saved) as tar:
        members = [(member, file.read() if (file := tar.extractfile(member)) else b"") for member in tar]
    with tarfile.open(saved, "w") as tar:
        for member, content in change(members):
            tar.addfile(member, io.BytesIO(content))
    return saved


def with_manifest(saved: Path, **changes: object) -> Path:
    """The backup with another manifest."""

    def change(members: list[Member]) -> list[Member]:
        member, text = members[-1]
        text = json.dumps({**json.loads(text), **changes}, indent=1).encode()
        member.size = len(text)
        return [*members[:-1], (member, text)]

    return edited(saved, change)


def with_file(saved: Path, name: str, content: bytes) -> Path:
    """The backup with another file, or with another content of it."""

    def change(members: list[Member]) -> list[Member]:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        return [(member, content), *(one for one in members if one[0].name != name)]

    with tarfile.open(edited(saved, change)) as tar:
        files = {member.name: file.read() for member in tar if (file := tar.extractfile(member))}
    sums = {name: hashlib.sha256(text).hexdigest() for name, text in files.items() if name != MANIFEST}
    return with_manifest(saved, sha256=sums)
