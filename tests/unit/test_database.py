"""barehub.lifecycle.database: a release gets the schema it needs, and the way back stays open."""

import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from barehub.errors import SPACE, UserError
from barehub.layout import Layout
from barehub.lifecycle import database
from barehub.lifecycle.database import Move
from barehub.settings import Settings
from jupyterhub import dbutil, orm

OLD = "4621fec11365"  # JupyterHub 5's schema
LABEL = "2026.10.24"
ELSEWHERE = Path("elsewhere.sqlite")  # from the hub's directory


@pytest.fixture(autouse=True)
def _barehub_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real code runs `python -I -m ...database_worker`, which sees no PYTHONPATH: give it this tree's."""
    source = Path(database.__file__).parents[2]
    load = "from barehub.lifecycle.database_worker import main; sys.exit(main())"
    start = f"import sys; sys.path.insert(0, {str(source)!r}); {load}"
    run = subprocess.run

    def run_here(words: list[str], **more: object) -> subprocess.CompletedProcess[str]:
        return run([sys.executable, "-c", start] if "barehub.lifecycle.database_worker" in words else words, **more)

    monkeypatch.setattr(database.subprocess, "run", run_here)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.hub_state.mkdir(parents=True)
    return layout


def plan(layout: Layout, url: str = "", previous: str | None = None, release: str = "2026.11.24") -> Move:
    hub = SimpleNamespace(db_url=url or f"sqlite:///{database.own_database(layout)}")
    return Move.plan(layout, Settings(hub_user="root"), hub, release, previous)


def make_database(path: Path, revision: str = OLD) -> Path:
    """A database with that schema and a user in it."""
    url = f"sqlite:///{path}"
    orm.new_session_factory(url)
    if revision != database.newest_revision():
        with dbutil._temp_alembic_ini(url) as ini:
            subprocess.run(["alembic", "-c", ini, "downgrade", revision], check=True, capture_output=True)
    with sqlite3.connect(path) as connection:
        connection.execute("insert into users (id, name, admin, cookie_id) values (1, 'alice', 0, 'x')")
    return path


def test_there_is_nothing_to_do_without_a_database(layout: Layout) -> None:
    move = plan(layout)
    assert not move.needed
    assert move.back_up(LABEL) is None


def test_an_older_schema_becomes_a_new_file_and_the_old_one_stays_until_the_end(layout: Layout) -> None:
    old = make_database(layout.hub_state / f"jupyterhub-{OLD}.sqlite")
    move = plan(layout)
    assert move.needed
    backup = move.back_up(LABEL)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert backup.parent.stat().st_mode & 0o777 == 0o700
    move.carry_out()
    new = database.own_database(layout)
    assert database.revision(new) == database.newest_revision() != OLD
    assert users(new) == users(old) == users(backup) == ["alice"]
    move.undo(backup)
    assert not new.exists()
    assert database.revision(old) == OLD
    move.carry_out()
    move.finish()
    assert not old.exists()
    assert users(new) == ["alice"]
    assert not plan(layout).needed


def test_a_database_of_the_administrators_is_migrated_where_it_is_and_restored(layout: Layout) -> None:
    place = make_database(layout.hub_state / ELSEWHERE)
    move = plan(layout, f"sqlite:///{ELSEWHERE}")
    backup = move.back_up(LABEL)
    move.carry_out()
    assert database.revision(place) == database.newest_revision()
    move.undo(backup)
    assert database.revision(place) == OLD
    assert users(place) == ["alice"]
    move.carry_out()
    move.finish()
    assert users(place) == ["alice"]


def test_a_backup_can_be_made_while_the_hub_writes(layout: Layout) -> None:
    place = make_database(database.own_database(layout), database.newest_revision())
    with sqlite3.connect(place) as connection:
        connection.execute("insert into users (id, name, admin, cookie_id) values (2, 'bob', 0, 'y')")
        connection.commit()
        connection.execute("begin")
        connection.execute("select * from users").fetchone()
        assert users(plan(layout).back_up(LABEL)) == ["alice", "bob"]


def test_a_migration_that_fails_leaves_everything_as_it_was(layout: Layout) -> None:
    old = make_database(layout.hub_state / f"jupyterhub-{OLD}.sqlite")
    with sqlite3.connect(old) as connection:
        connection.execute("drop table spawners")  # the last migration adds a column to it
    before = old.read_bytes()
    move = plan(layout)
    backup = move.back_up(LABEL)
    with pytest.raises(UserError, match="the database cannot be migrated"):
        move.carry_out()
    move.undo(backup)
    assert old.read_bytes() == before
    assert sorted(path.name for path in layout.hub_state.iterdir()) == ["backups", old.name]


def test_another_schema_than_the_one_of_an_older_release_must_be_prepared(layout: Layout) -> None:
    newer = "2026.12.24"
    make_database(layout.hub_state / "jupyterhub.sqlite")  # `newer` is unknown here, so this is what is found
    with pytest.raises(UserError, match="is older than"):
        plan(layout, previous=newer)
    make_database(database.own_database(layout), database.newest_revision())
    (layout.hub_state / "jupyterhub.sqlite").unlink()
    assert not plan(layout, previous=newer).needed


def test_several_databases_to_choose_from_are_the_administrators_choice(layout: Layout) -> None:
    for name in ("jupyterhub.sqlite", f"jupyterhub-{OLD}.sqlite"):
        make_database(layout.hub_state / name)
    with pytest.raises(UserError, match=r"holds jupyterhub-4621fec11365\.sqlite and jupyterhub\.sqlite"):
        plan(layout)


def test_a_damaged_database_is_an_error_for_people(layout: Layout) -> None:
    place = database.own_database(layout)
    place.write_text("not a database, but long enough to be taken for one" * 10)
    with pytest.raises(UserError, match="cannot be read"):
        plan(layout)


def test_damage_inside_is_found_before_anything_is_stopped(layout: Layout) -> None:
    place = make_database(database.own_database(layout), database.newest_revision())
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
    make_database(database.own_database(layout))
    monkeypatch.setattr(database.shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(UserError, match="no room") as caught:
        plan(layout)
    assert caught.value.code == SPACE


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
    layout: Layout, url: str, command: str
) -> None:
    move = Move(layout, Settings(hub_user="root"), url, url, have=OLD, needed=True)
    with pytest.raises(UserError) as caught:
        move.back_up(LABEL)
    assert command in caught.value.fix
    assert "secret" not in f"{caught.value} {caught.value.fix}"
    assert move.back_up(LABEL, required=False) is None


def test_a_database_that_is_not_a_file_is_migrated_and_taken_back(layout: Layout) -> None:
    """SQLite stands in for a server, under a URL that names no plain file."""
    place = make_database(layout.hub_state / ELSEWHERE)
    url = f"sqlite+pysqlite:///{place}"
    move = plan(layout, url)
    assert move.have == OLD
    assert move.back_up(LABEL, required=False) is None
    move.carry_out()
    assert database.revision(place) == database.newest_revision()
    move.undo(None)
    assert database.revision(place) == OLD
    assert users(place) == ["alice"]


def users(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        return [name for (name,) in connection.execute("select name from users")]
