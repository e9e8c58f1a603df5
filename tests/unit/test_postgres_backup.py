"""A backup has PostgreSQL's data in it, and `--restore` puts them into an empty database: with a real server."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.lifecycle import backup, database
from barehub.lifecycle.archive import DUMP

from tests.unit import postgres_server
from tests.unit.backups import another_machine, hub_at_work, in_the_backup, put_back
from tests.unit.installations import NEW, OLD, OLD_SCHEMA
from tests.unit.postgres_server import Server, execute, users

ADD_BOB = "insert into users (name, admin, cookie_id) values ('bob', false, 'y')"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server.running() as new:
        yield new


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    (tmp_path / "safe").mkdir()
    return tmp_path / "safe/hub.tar"


def hub_with(url: str, layout: Layout, label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    hub = hub_at_work(layout, label, tmp_path, monkeypatch, OLD_SCHEMA if label == OLD else None)
    name_database(hub, url)
    return hub


def name_database(hub: Layout, url: str) -> None:
    (hub.config / "60-database.py").write_text(f"c.JupyterHub.db_url = {url!r}\n")


def back_up(hub: Layout, saved: Path) -> list[str]:
    said: list[str] = []
    backup.back_up(hub, saved, overwrite=True, say=said.append)
    return said


def emptied(server: Server, url: str) -> None:
    """Create the database again, as the guide says."""
    name = url.partition("@/")[2].partition("?")[0]
    for statement in (f"drop database {name} (force)", f"create database {name} owner hub template template0"):
        server.run("psql", "--dbname=postgres", f"--command={statement}")


@pytest.mark.parametrize("label", [OLD, NEW])
def test_the_data_are_in_the_backup_and_come_back_on_an_empty_machine(
    layout: Layout, server: Server, tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    newest = database.newest_revision()
    url = server.new_database(OLD_SCHEMA if label == OLD else newest)
    hub = hub_with(url, layout, label, tmp_path, monkeypatch)
    said = back_up(hub, saved)
    assert not [line for line in said if "the database" in line]
    assert list(hub.backups.iterdir()) == []
    with tarfile.open(saved) as tar:
        assert (tar.getmember(DUMP).mode, tar.getmember(str(Path(DUMP).parent)).mode) == (0o600, 0o700)
    emptied(server, url)
    monkeypatch.undo()
    bare = another_machine(layout, monkeypatch)
    monkeypatch.setattr("sys.executable", str(tmp_path / "worker/worker"))
    said = put_back(bare, saved)
    assert f"restored the database at {url.partition('://')[0]}://localhost/" in "\n".join(said)
    assert (users(url), execute(url, "select version_num from alembic_version")) == (["alice"], [(newest,)])
    assert not (bare.base / DUMP).exists()
    assert bare.active == NEW
    execute(url, ADD_BOB)
    put_back(bare, "")  # the next run of the installer restores nothing
    assert users(url) == ["alice", "bob"]


def test_a_database_that_is_not_empty_is_not_touched_and_the_next_run_goes_on(
    layout: Layout, server: Server, tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.new_database(database.newest_revision())
    hub = hub_with(url, layout, NEW, tmp_path, monkeypatch)
    back_up(hub, saved)
    execute(url, ADD_BOB)
    execute(url, "drop table alembic_version")  # the hub's other tables count as well
    monkeypatch.undo()
    bare = another_machine(layout, monkeypatch)
    monkeypatch.setattr("sys.executable", str(tmp_path / "worker/worker"))
    with pytest.raises(UserError, match="cannot be restored: it is not empty") as caught:
        put_back(bare, saved)
    assert caught.value.fix == "create the database again, empty, then run this again"
    assert (users(url), bare.active) == (["alice", "bob"], None)
    with monkeypatch.context() as without:
        without.setattr(os, "defpath", "")
        with pytest.raises(UserError, match="pg_dump and pg_restore and psql cannot be found") as caught:
            put_back(bare, saved)
        assert caught.value.fix.startswith("install PostgreSQL's client programs, then run this again; or begin with")
    emptied(server, url)
    put_back(bare, saved)
    assert (users(url), bare.active) == (["alice"], NEW)


def test_another_kind_of_database_gets_no_dump(
    layout: Layout, server: Server, tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_with(server.new_database(), layout, NEW, tmp_path, monkeypatch)
    back_up(hub, saved)
    monkeypatch.undo()
    bare = another_machine(layout, monkeypatch)
    monkeypatch.setattr("sys.executable", str(tmp_path / "worker/worker"))
    with pytest.MonkeyPatch.context() as without:
        without.setattr(os, "defpath", "")
        with pytest.raises(UserError, match="cannot be found"):
            put_back(bare, saved)
    name_database(bare, f"sqlite:///{tmp_path}/hub.sqlite")
    with pytest.raises(UserError, match="it is no PostgreSQL") as caught:
        put_back(bare, saved)
    assert f"or begin without the data: rm {bare.base / DUMP}" in caught.value.fix
    (bare.base / DUMP).unlink()
    put_back(bare, saved)
    assert bare.active == NEW


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("echo 'aborting because of server version mismatch' >&2; exit 1", "cannot be copied: aborting because of"),
        ('exec /usr/bin/pg_dump "$@" --file=/dev/full', "No space left on device"),
    ],
)
def test_a_dump_that_fails_leaves_no_backup_without_the_data(
    layout: Layout,
    server: Server,
    tmp_path: Path,
    saved: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    what: str,
) -> None:
    hub = hub_with(server.new_database(), layout, NEW, tmp_path, monkeypatch)
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs/pg_dump").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "programs/pg_dump").chmod(0o755)
    monkeypatch.setattr(os, "defpath", f"{tmp_path}/programs:/usr/bin:/bin")
    with pytest.raises(UserError, match=what) as caught:
        back_up(hub, saved)
    assert caught.value.code == (Exit.SPACE if "full" in script else Exit.HOOK)
    assert (list(saved.parent.iterdir()), list(hub.backups.iterdir())) == ([], [])


def test_a_database_that_the_hub_has_not_filled_yet_is_no_obstacle(
    layout: Layout, server: Server, tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_with(server.new_database(schema=None), layout, NEW, tmp_path, monkeypatch)
    back_up(hub, saved)
    assert DUMP not in in_the_backup(saved)
