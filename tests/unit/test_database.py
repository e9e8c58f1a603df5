"""barehub.database: a migration that can be undone."""

import sqlite3
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from barehub import database
from barehub.database import Migration
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.settings import Settings
from jupyterhub import dbutil, orm

OLD = "4621fec11365"  # JupyterHub 5's schema


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.hub_state.mkdir(parents=True)
    return layout


def plan(layout: Layout) -> Migration:
    hub = SimpleNamespace(db_url=f"sqlite:///{layout.database}")
    return Migration.plan(layout, Settings(hub_user="root"), hub)


@pytest.fixture
def old_database(layout: Layout) -> Path:
    """A database with JupyterHub 5's schema and a user in it."""
    url = f"sqlite:///{layout.database}"
    orm.new_session_factory(url)
    with dbutil._temp_alembic_ini(url) as ini:
        subprocess.run(["alembic", "-c", ini, "downgrade", OLD], check=True, capture_output=True)
    with sqlite3.connect(layout.database) as connection:
        connection.execute("insert into users (id, name, admin, cookie_id) values (1, 'alice', 0, 'x')")
    return layout.database


def test_there_is_nothing_to_do_without_a_database(layout: Layout) -> None:
    assert database.revision(layout.database) is None
    assert not plan(layout).needed


def test_an_old_database_is_migrated_with_its_users_and_can_be_restored(layout: Layout, old_database: Path) -> None:
    migration = plan(layout)
    assert migration.needed
    backup = migration.back_up("2026.10.24")
    assert backup.stat().st_mode & 0o777 == 0o600
    assert backup.parent.stat().st_mode & 0o777 == 0o700
    migration.migrate()
    assert database.revision(old_database) == database.newest_revision() != OLD
    assert users(old_database) == ["alice"]
    assert not plan(layout).needed
    migration.undo()
    assert database.revision(old_database) == OLD
    assert users(old_database) == ["alice"]


def test_a_migration_that_fails_leaves_the_original(
    layout: Layout, old_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1][10:]).execute('drop table users'); sys.exit('half-way')"
    monkeypatch.setattr(database, "UPGRADE", program)
    migration = plan(layout)
    migration.back_up("2026.10.24").write_text("of no use")
    with pytest.raises(UserError, match="half-way"):
        migration.migrate()
    migration.undo()  # the database was not replaced, so this must leave it alone
    assert database.revision(old_database) == OLD
    assert users(old_database) == ["alice"]


def test_a_damaged_database_is_an_error_for_people(layout: Layout) -> None:
    layout.database.write_text("not a database, but long enough to be taken for one" * 10)
    with pytest.raises(UserError, match="cannot be read"):
        plan(layout)


def test_another_database_is_the_administrators_own(layout: Layout) -> None:
    hub = SimpleNamespace(db_url="postgresql://db/hub")
    assert not Migration.plan(layout, Settings(), hub).needed


def users(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        return [name for (name,) in connection.execute("select name from users")]
