"""Every single change that an upgrade makes fails once: the old release stays active, with its data and settings."""

import contextlib
import errno
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle import database, database_worker
from barehub.lifecycle.install import install
from barehub.lifecycle.options import Request
from barehub.settings import Settings

from tests.unit.installations import NEW, OLD, OLD_SCHEMA, belongs_to, make_active, make_database, make_release, users

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


def in_this_process(_: Settings, what: str, **details: str) -> str:
    """What `database.run_as_hub_user` lets another process do, here, with its errors."""
    try:
        getattr(database_worker, what)(**details)
    except (OSError, sqlite3.Error) as error:
        raise UserError(str(error)) from error
    return ""


def answered_in_this_process(_: Settings, question: Callable[..., Any], *databases: Path) -> Any:
    """What `database.asked` lets a child do, whose faults would not be counted here."""
    try:
        return question(*databases)
    except (OSError, sqlite3.Error) as error:
        raise UserError(str(error)) from error


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An installation of an older release, with an older database that has a user, and a newer release beside it."""
    # Everything in a release is compiled; the copy that a test makes of a new .venv is not.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(database, "run_as_hub_user", in_this_process)
    monkeypatch.setattr(database, "asked", answered_in_this_process)
    base = Layout(tmp_path / "base", root=tmp_path)
    base.config.mkdir(parents=True)
    old, new = make_release(base, OLD, OLD_SCHEMA), make_release(base, NEW)
    make_active(old, monkeypatch)
    make_database(database.own_database(old, OLD_SCHEMA))
    belongs_to(new, monkeypatch)
    return new


def everything(layout: Layout) -> dict[str, str]:
    """What an administrator or the hub would miss: settings, configuration, links, data."""
    place = database.own_database(layout, OLD_SCHEMA)
    files = (layout.record, layout.installer_config, *sorted(layout.units.iterdir()))
    return {
        "active": str(layout.hub.readlink()),
        "schema": database.revision(place) or "",
        "users": ", ".join(users(place)),
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
                install(layout, request, say=lambda _: None)
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
