"""barehub.lifecycle.database: a release gets the schema it needs, and the way back stays open."""

import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from barehub import process
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.lifecycle import database
from barehub.lifecycle.migration import Migration
from barehub.settings import Installation, Settings

from tests.unit.installations import ME, OLD_SCHEMA, add_user, make_database, users, worker

LABEL = "2026.10.24"
ELSEWHERE = Path("elsewhere.sqlite")  # from the hub's directory


@pytest.fixture(autouse=True)
def _worker_of_this_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", worker(tmp_path / "bin"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.hub_state.mkdir(parents=True)
    return layout


def plan(layout: Layout, url: str = "", previous: str | None = None, release: str = "2026.11.24") -> Migration:
    url = url or f"sqlite:///{database.own_database(layout)}"
    return Migration.plan(Installation(layout, Settings(hub_user="root")), url, release, previous)


def test_the_worker_is_a_program_of_its_own(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests fork it, see `forked_worker`."""
    monkeypatch.setattr(database, "attempt_as", process.attempt_as)
    old = make_database(layout.hub_state / f"jupyterhub-{OLD_SCHEMA}.sqlite")
    plan(layout).migrate()
    assert users(database.own_database(layout)) == users(old) == ["alice"]
    old.write_bytes(b"no database")
    with pytest.raises(UserError, match=r"the database cannot be copied: DatabaseError: .*not a database"):
        database.run_as_hub_user(ME, "copy", source=str(old), target=str(layout.hub_state / "copy"))


def test_there_is_nothing_to_do_without_a_database(layout: Layout) -> None:
    migration = plan(layout)
    assert not migration.needed
    assert migration.back_up(LABEL) is None


def test_an_older_schema_becomes_a_new_file_and_the_old_one_stays_until_the_end(layout: Layout) -> None:
    old = make_database(layout.hub_state / f"jupyterhub-{OLD_SCHEMA}.sqlite")
    migration = plan(layout)
    assert migration.needed
    backup = migration.back_up(LABEL)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert backup.parent.stat().st_mode & 0o777 == 0o700
    migration.migrate()
    new = database.own_database(layout)
    assert database.revision(new) == database.newest_revision() != OLD_SCHEMA
    assert users(new) == users(old) == users(backup) == ["alice"]
    migrated = new.read_bytes()
    migration.undo(backup)
    assert not new.exists()
    assert database.revision(old) == OLD_SCHEMA
    new.write_bytes(migrated)  # as another `migrate` would, which takes seconds
    migration.finish()
    assert not old.exists()
    assert users(new) == ["alice"]
    assert not plan(layout).needed


def test_a_database_of_the_administrators_is_migrated_where_it_is_and_restored(layout: Layout) -> None:
    place = make_database(layout.hub_state / ELSEWHERE)
    migration = plan(layout, f"sqlite:///{ELSEWHERE}")
    backup = migration.back_up(LABEL)
    migration.migrate()
    assert database.revision(place) == database.newest_revision()
    migration.finish()  # there is no other database to remove
    assert users(place) == ["alice"]
    migration.undo(backup)
    assert database.revision(place) == OLD_SCHEMA
    assert users(place) == ["alice"]


def test_a_backup_can_be_made_while_the_hub_writes(layout: Layout) -> None:
    place = make_database(database.own_database(layout), None)
    add_user(place, 2, "bob")
    with sqlite3.connect(place) as connection:
        connection.execute("begin")
        connection.execute("select * from users").fetchone()
        assert users(plan(layout).back_up(LABEL)) == ["alice", "bob"]


def test_a_migration_that_fails_leaves_everything_as_it_was(layout: Layout) -> None:
    old = make_database(layout.hub_state / f"jupyterhub-{OLD_SCHEMA}.sqlite")
    with sqlite3.connect(old) as connection:
        connection.execute("drop table spawners")  # the last migration adds a column to it
    before = old.read_bytes()
    migration = plan(layout)
    backup = migration.back_up(LABEL)
    with pytest.raises(UserError, match="the database cannot be migrated"):
        migration.migrate()
    migration.undo(backup)
    assert old.read_bytes() == before
    assert sorted(path.name for path in layout.hub_state.iterdir()) == ["backups", old.name]


def test_another_schema_than_the_one_of_an_older_release_must_be_prepared(layout: Layout) -> None:
    newer = "2026.12.24"
    make_database(layout.hub_state / "jupyterhub.sqlite")  # `newer` is unknown here, so this is what is found
    with pytest.raises(UserError, match="is older than"):
        plan(layout, previous=newer)
    make_database(database.own_database(layout), None)
    (layout.hub_state / "jupyterhub.sqlite").unlink()
    assert not plan(layout, previous=newer).needed


def test_several_databases_to_choose_from_are_the_administrators_choice(layout: Layout) -> None:
    for name in ("jupyterhub.sqlite", f"jupyterhub-{OLD_SCHEMA}.sqlite"):
        make_database(layout.hub_state / name)
    with pytest.raises(UserError, match=r"holds jupyterhub-4621fec11365\.sqlite and jupyterhub\.sqlite"):
        plan(layout)


def test_a_damaged_database_is_an_error_for_people(layout: Layout) -> None:
    place = database.own_database(layout)
    place.write_text("not a database, but long enough to be taken for one" * 10)
    with pytest.raises(UserError, match="cannot be read"):
        plan(layout)


def test_damage_inside_is_found_before_anything_is_stopped(layout: Layout) -> None:
    place = make_database(database.own_database(layout), None)
    with sqlite3.connect(place) as connection:
        (page,) = connection.execute("select rootpage from sqlite_master where name = 'users'").fetchone()
        (size,) = connection.execute("pragma page_size").fetchone()
    with place.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises(UserError, match="the database cannot be copied"):
        plan(layout).back_up(LABEL)
    assert not layout.backup(LABEL).exists()


def test_a_full_disk_is_said_to_be_one(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    make_database(database.own_database(layout), None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(UserError, match="no room") as caught:
        plan(layout)
    assert caught.value.code == Exit.SPACE


@pytest.mark.parametrize(
    ("url", "command"),
    [
        (
            "postgresql+psycopg2://hub:secret@db.local/hubdb",
            "pg_dump --format=custom --file=jupyterhub.dump --host=db.local --username=hub hubdb",
        ),
        ("mysql+pymysql://hub:secret@db/hubdb", "mysqldump --single-transaction --host=db --user=hub --password hubdb"),
    ],
)
def test_a_database_that_is_not_ours_to_copy_stops_an_upgrade_with_the_command(
    layout: Layout, url: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.defpath", "/nonexistent")
    migration = Migration(Installation(layout, Settings(hub_user="root")), url, url, have=OLD_SCHEMA, needed=True)
    with pytest.raises(UserError) as caught:
        migration.back_up(LABEL)
    assert command in caught.value.fix
    assert "secret" not in f"{caught.value} {caught.value.fix}"
    assert migration.back_up(LABEL, required=False) is None


def test_a_database_that_is_not_a_file_is_migrated_and_taken_back(layout: Layout) -> None:
    """SQLite stands in for a server, under a URL that names no plain file."""
    place = make_database(layout.hub_state / ELSEWHERE)
    url = f"sqlite+pysqlite:///file:{place}?uri=true"
    migration = plan(layout, url)
    assert migration.have == OLD_SCHEMA
    assert migration.back_up(LABEL, required=False) is None
    migration.migrate()
    assert database.revision(place) == database.newest_revision()
    migration.undo(None)
    assert database.revision(place) == OLD_SCHEMA
    assert users(place) == ["alice"]


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///hub.sqlite", "hub.sqlite"),
        ("sqlite+pysqlite:///hub.sqlite?timeout=30", "hub.sqlite"),
        ("sqlite:////srv/hub.sqlite", "/srv/hub.sqlite"),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("postgresql+psycopg://hub:x@db/hub", None),
    ],
)
def test_a_sqlite_database_is_known_in_every_spelling(layout: Layout, url: str, file: str | None) -> None:
    assert database.sqlite_file(url, layout) == (layout.hub_state / file if file else None)


def test_what_a_killed_hub_left_in_a_journal_is_played_back(layout: Layout) -> None:
    """Read-only, SQLite refuses such a file; it is not damaged."""
    place = make_database(database.own_database(layout), None)
    program = (
        "import os, sqlite3, sys\n"
        "one = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "one.execute('pragma cache_size=1'); one.execute('begin'); one.execute('create table t (x)')\n"
        "for _ in range(200): one.execute('insert into t values (randomblob(4000))')\n"
        "os._exit(0)\n"
    )
    subprocess.run(["python3", "-c", program, place], check=True)
    assert Path(f"{place}-journal").exists()
    assert database.asked(ME, database.revision, place) == database.newest_revision()


def test_a_question_that_takes_for_ever_is_given_up(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "SECONDS", 0.1)
    with pytest.raises(UserError, match=r"cannot be read by \S+ within 0 s"):
        database.asked(ME, lambda path: time.sleep(60), layout.hub_state)
