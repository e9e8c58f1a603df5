"""Every single change that an upgrade makes fails once: the old release stays active, with its data and settings."""

import contextlib
import errno
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle import database, install
from barehub.lifecycle import database_worker as schema
from barehub.lifecycle.install import Request
from barehub.settings import Settings
from jupyterhub import orm

OLD, NEW = "2026.10.24", "2026.11.24"
OLD_SCHEMA = "4621fec11365"  # JupyterHub 5's
SHARE = Path(__file__).parents[2] / "post_install/data/share/barehub"
CHANGES = ("os.rename", "os.symlink", "os.mkdir", "os.chmod", "sqlite3.connect")


class Faults:
    """Fails the change number `at` below a directory, once; counts them all. Audit hooks (PEP 578) stay for ever."""

    def __init__(self) -> None:
        self.below, self.at, self.count, self.failed = "", 0, 0, ""
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.below:
            return
        written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (written or event in CHANGES) or self.below not in str(arguments):
            return
        if event == "os.mkdir" and os.path.isdir(arguments[0]):  # noqa: PTH112 - Path.mkdir(exist_ok=True)
            return
        self.count += 1
        if self.count == self.at:
            self.failed = f"{event} {arguments}"
            raise OSError(errno.ENOSPC, "No space left on device")

    @contextlib.contextmanager
    def failing(self, below: Path, at: int) -> Iterator[None]:
        self.below, self.at, self.count, self.failed = str(below), at, 0, ""
        try:
            yield
        finally:
            self.below = ""


@pytest.fixture(scope="module")
def faults() -> Faults:
    return Faults()


def carry_out(_: Settings, what: str, **details: str) -> str:
    """What `database.order` has another process do, here, with its errors."""
    try:
        getattr(schema, what)(**details)
    except (OSError, sqlite3.Error) as error:
        raise UserError(str(error)) from error
    return ""


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An installation of an older release, with an older database that has a user, and a newer release beside it."""
    monkeypatch.setattr(database, "order", carry_out)
    base = tmp_path / "base"
    monkeypatch.setenv("BAREHUB_BASE", str(base))
    old, new = (Layout(base, root=tmp_path, prefix=base / "releases" / label) for label in (OLD, NEW))
    for one in (old, new):
        shutil.copytree(SHARE, one.share)
        one.receipt(one.prefix.name).write_text(json.dumps({"files": []}))
    scripts = Path(orm.__file__).parent / "alembic"
    there = old.prefix / "lib/python3.11/site-packages/jupyterhub/alembic"
    shutil.copytree(scripts, there, ignore=shutil.ignore_patterns("__pycache__"))
    keep_history_until(there / "versions", OLD_SCHEMA)
    monkeypatch.setattr("barehub.layout.sys.prefix", str(old.prefix))
    install.install(old, Request(OLD, bind_url="http://:8080"), say=lambda _: None)
    make_old_database(old)
    monkeypatch.setattr("barehub.layout.sys.prefix", str(new.prefix))
    return new


def keep_history_until(versions: Path, head: str) -> None:
    """Remove the migrations that came after `head`."""
    later = {head}
    while True:
        found = [
            path
            for path in versions.glob("*.py")
            if any(f"down_revision = {q}{one}{q}" in path.read_text() for one in later for q in "'\"")
        ]
        if not found:
            return
        later = {path.name.partition("_")[0] for path in found}
        for path in found:
            path.unlink()


def make_old_database(layout: Layout) -> None:
    place = database.own_database(layout, OLD_SCHEMA)
    orm.new_session_factory(f"sqlite:///{place}")
    schema.downgrade(f"sqlite:///{place}", OLD_SCHEMA)
    with sqlite3.connect(place) as connection:
        connection.execute("insert into users (id, name, admin, cookie_id) values (1, 'alice', 0, 'x')")


def everything(layout: Layout) -> dict[str, str]:
    """What an administrator or the hub would miss: settings, configuration, links, data."""
    place = database.own_database(layout, OLD_SCHEMA)
    with sqlite3.connect(place) as connection:
        users = str(connection.execute("select name from users").fetchall())
    files = (layout.record, layout.installer_config, *sorted(layout.units.iterdir()))
    return {
        "active": str(layout.hub.readlink()),
        "schema": database.revision(place) or "",
        "users": users,
        **{path.name: path.read_text() for path in files},
    }


def test_a_disk_that_is_full_at_any_step_leaves_the_old_release_as_it_was(layout: Layout, faults: Faults) -> None:
    before = everything(layout)
    pristine = layout.base.with_name("pristine")
    shutil.copytree(layout.base, pristine, symlinks=True)
    request = Request(NEW, bind_url="http://:9090", proxy_user="nobody" if os.geteuid() == 0 else None)
    failed: list[str] = []
    while True:
        with faults.failing(layout.base, len(failed) + 1):
            try:
                install.install(layout, request, say=lambda _: None)
            except UserError:
                failed.append(faults.failed)
            else:
                assert not faults.failed, f"nobody noticed that this failed: {faults.failed}"
                break
        assert everything(layout) == before, f"after {faults.failed}"
        shutil.rmtree(layout.base)
        shutil.copytree(pristine, layout.base, symlinks=True)
    # Or the enumeration has missed what counts.
    for path in ("install.json", "10-install.py", "backups", f"jupyterhub-{OLD_SCHEMA}.sqlite", "systemd", "base/hub"):
        assert any(path in step for step in failed), path
    assert layout.active == NEW
    assert "9090" in layout.installer_config.read_text()
    new = replace(layout, prefix=layout.release(NEW))
    assert database.revision(database.own_database(new)) == database.newest_revision()
    assert not database.own_database(layout, OLD_SCHEMA).exists()
