"""An installation with all that a backup holds, and what is in a backup."""

import shutil
import sys
import tarfile
from pathlib import Path

import jupyterhub.dbutil
import pytest
from barehub.layout import Layout
from barehub.lifecycle.database import own_database

from tests.unit.installations import database_template, make_active, make_release, worker

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
