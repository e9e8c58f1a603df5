"""PostgreSQL as the hub's database, with a real server: backups, migrations, the way back, and what goes wrong."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.lifecycle import database, postgres
from barehub.lifecycle.migration import Migration
from barehub.lifecycle.rollback import rollback
from barehub.settings import Installation

from tests.unit import postgres_server
from tests.unit.installations import ME, NEW, OLD, OLD_SCHEMA, make_upgraded, worker
from tests.unit.postgres_server import PASSWORD, Server, execute, users

ADD_BOB = r"insert into users (name, admin, cookie_id) values (E'b\\o\tb\\.', false, 'y')"
BOB = "b\\o\tb\\."  # what means something in a dump


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server.running() as new:
        yield new


@pytest.fixture(autouse=True)
def _worker_of_this_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", worker(tmp_path / "bin"))


def plan(layout: Layout, url: str) -> Migration:
    layout.hub_state.mkdir(parents=True, exist_ok=True)
    return Migration.plan(Installation(layout, ME), url, NEW, OLD)


def in_place_of(program: str, script: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shell script, in which REAL is the program, be found before it."""
    directory.mkdir(exist_ok=True)
    (directory / program).write_text(f"#!/bin/sh\nREAL=/usr/bin/{program}\n{script}\n")
    (directory / program).chmod(0o755)
    monkeypatch.setattr(os, "defpath", f"{directory}:/usr/bin:/bin")


def test_an_upgrade_dumps_migrates_in_place_and_can_go_back(layout: Layout, server: Server) -> None:
    url = server.new_database()
    migration = plan(layout, url)
    backup = migration.back_up(OLD)
    assert backup == layout.backup(OLD, ".dump")
    assert (backup.stat().st_mode & 0o777, backup.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    migration.migrate()
    assert database.revision_of(migration.installation, url) == database.newest_revision() != OLD_SCHEMA
    execute(url, ADD_BOB)
    migration.undo(backup)
    assert (users(url), database.revision_of(migration.installation, url)) == (["alice"], OLD_SCHEMA)
    execute(url, ADD_BOB)  # the numbers go on
    assert users(url) == ["alice", BOB]
    migration.migrate()  # nothing of the newer schema was left
    assert users(url) == ["alice", BOB]


def test_without_a_backup_an_upgrade_is_taken_back_by_a_migration(layout: Layout, server: Server) -> None:
    url = server.new_database()
    migration = plan(layout, url)
    assert migration.back_up(OLD, required=False) is None
    migration.migrate()
    migration.undo(None)
    assert (users(url), database.revision_of(migration.installation, url)) == (["alice"], OLD_SCHEMA)


def test_the_password_is_on_no_command_line_and_in_no_file(
    layout: Layout, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    for program in postgres.PROGRAMS:
        script = f'{{ tr "\\0" "\\n" </proc/$$/cmdline; env; }} >>{seen}\nexec $REAL "$@"'
        in_place_of(program, script, tmp_path / "programs", monkeypatch)
    migration = plan(layout, server.new_database())
    backup = migration.back_up(OLD)
    migration.put_back(backup)
    assert seen.read_text().count("--dbname=") == 2
    assert "wonder" in PASSWORD
    assert "wonder" not in seen.read_text() + backup.read_bytes().decode(errors="replace")


def test_a_rollback_gives_the_older_release_the_data_it_had(
    layout: Layout, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # here the worker is the older release's
    new = make_upgraded(layout, tmp_path, monkeypatch)
    url = server.new_database()
    (new.config / "50-site.py").write_text(f"c.JupyterHub.db_url = {url!r}\n")
    migration = plan(layout, url)
    migration.back_up(OLD)
    migration.migrate()
    execute(url, ADD_BOB)
    works = (new.release(OLD) / "bin/python").read_text()
    (new.release(OLD) / "bin/python").write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(UserError, match=f"{OLD} did not come up"):
        rollback(new, OLD, sure=True, wait=60, ask=pytest.fail, say=lambda _: None)
    found = users(url), database.revision_of(migration.installation, url)
    assert found == (["alice", BOB], database.newest_revision())
    (new.release(OLD) / "bin/python").write_text(works)
    said: list[str] = []
    rollback(new, OLD, sure=True, wait=60, ask=pytest.fail, say=said.append)
    assert r"  lost: users: b\o\tb\." in said
    assert (new.active, users(url)) == (OLD, ["alice"])
    assert database.revision_of(migration.installation, url) == OLD_SCHEMA
    migration.put_back(new.backups / f"jupyterhub-{NEW}-rolled-back.dump")
    assert users(url) == ["alice", BOB]


def test_a_run_after_an_interrupted_one_keeps_the_dump_from_before_it(layout: Layout, server: Server) -> None:
    url = server.new_database()
    migration = plan(layout, url)
    backup = migration.back_up(OLD)
    migration.migrate()
    again = plan(layout, url)
    assert not again.needed
    assert again.back_up(OLD) is None
    assert again.schema_of(backup) == OLD_SCHEMA


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ('$REAL "$@" | head -c 3000; echo broken >&2; exit 1', "the database cannot be restored: broken"),
        ('$REAL "$@" | head -c 3000; kill -KILL $PPID', "the database cannot be restored"),  # the worker
        ('$REAL "$@"; echo "select no_such_function();"', "function no_such_function\\(\\) does not exist"),
    ],
)
def test_a_restore_that_is_cut_short_changes_nothing(
    layout: Layout, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, what: str
) -> None:
    url = server.new_database()
    migration = plan(layout, url)
    backup = migration.back_up(OLD)
    execute(url, ADD_BOB)
    in_place_of("pg_restore", script, tmp_path / "programs", monkeypatch)
    with pytest.raises(UserError, match=what):
        migration.put_back(backup)
    assert users(url) == ["alice", BOB]


def test_what_belongs_to_others_is_left_alone(layout: Layout, server: Server) -> None:
    url = server.new_database()
    name = url.partition("@/")[2].partition("?")[0]
    server.run("psql", f"--dbname={name}", "--command=create table theirs as select 1 as one")
    server.run("psql", f"--dbname={name}", "--command=create view names as select name from users")
    migration = plan(layout, url)
    backup = migration.back_up(OLD)
    with pytest.raises(UserError, match="view names depends on table users"):
        migration.put_back(backup)
    server.run("psql", f"--dbname={name}", "--command=drop view names")
    migration.put_back(backup)
    server.run("psql", f"--dbname={name}", "--command=select one from theirs")


def test_tables_of_another_role_are_not_dumped_with_all_that_is_there(layout: Layout, server: Server) -> None:
    url = server.new_database()
    migration = plan(layout, url)
    name = url.partition("@/")[2].partition("?")[0]
    for statement in ("reassign owned by hub to postgres", "grant select on all tables in schema public to hub"):
        server.run("psql", f"--dbname={name}", f"--command={statement}")
    with pytest.raises(UserError, match="the hub's role must be owner") as caught:
        migration.back_up(OLD)
    assert caught.value.fix == "let the hub's role own its tables, then run this again"
    assert list(layout.backups.iterdir()) == []


def test_a_server_that_is_down_is_one_line(layout: Layout) -> None:
    url = f"postgresql+psycopg://hub:wonder@/hub?host={layout.base}"
    with pytest.raises(UserError, match="the database cannot be read: OperationalError: connection") as caught:
        plan(layout, url)
    assert "\n" not in str(caught.value)
    assert "wonder" not in str(caught.value)
    assert caught.value.fix == "start the database server, or correct c.JupyterHub.db_url, then run this again"


def test_an_empty_database_needs_nothing(layout: Layout, server: Server) -> None:
    migration = plan(layout, server.new_database(schema=None))
    assert not migration.needed
    assert migration.back_up(OLD) is None


def test_the_schema_of_a_later_release_is_refused(layout: Layout, server: Server) -> None:
    url = server.new_database()
    execute(url, "update alembic_version set version_num = 'ffffffffffff'")
    with pytest.raises(UserError, match=f"has schema ffffffffffff, which {NEW} does not know"):
        plan(layout, url)


def test_programs_that_are_too_old_are_named(
    layout: Layout, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'echo "pg_dump: error: aborting because of server version mismatch" >&2; exit 1'  # pg_dump's own words
    migration = plan(layout, server.new_database())
    in_place_of("pg_dump", script, tmp_path / "programs", monkeypatch)
    with pytest.raises(UserError, match="cannot be copied: pg_dump: error: aborting because of") as caught:
        migration.back_up(OLD)
    assert "(pg_dump) of the server's version" in caught.value.fix
    assert list(layout.backups.iterdir()) == []


def test_without_the_programs_the_administrator_dumps(
    layout: Layout, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = plan(layout, server.new_database())
    monkeypatch.setattr(os, "defpath", "")
    with pytest.raises(UserError, match="yours to back up, since pg_dump and pg_restore and psql cannot") as caught:
        migration.back_up(OLD)
    assert caught.value.fix.startswith("install PostgreSQL's client programs; or pg_dump --format=custom")
    assert "wonder" not in f"{caught.value} {caught.value.fix}"


def test_a_full_disk_is_said_to_be_one(
    layout: Layout, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = plan(layout, server.new_database())
    in_place_of("pg_dump", 'exec $REAL "$@" --file=/dev/full', tmp_path / "programs", monkeypatch)
    with pytest.raises(UserError, match=r"cannot be copied: pg_dump: error: .*No space left on device") as caught:
        migration.back_up(OLD)
    assert (caught.value.code, caught.value.fix) == (Exit.SPACE, "make room, then run this again")
    assert list(layout.backups.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://u:p@db/hub?sslmode=verify-full", "host='db' dbname='hub' user='u' sslmode='verify-full'"),
        ("postgresql+psycopg2://u@/h?host=a:1&host=b:2", "dbname='h' user='u' host='a,b' port='1,2'"),
        ("postgresql+pg8000://u@db:5433/h%27b?unix_sock=x", r"host='db' dbname='h\'b' user='u' port='5433'"),
        ("postgresql+psycopg:///?service=hub&passfile=/etc/p", "service='hub' passfile='/etc/p'"),
    ],
)
def test_the_programs_connect_as_the_hub_does(url: str, where: str) -> None:
    with postgres.connection_to(url) as (quiet, words):
        assert quiet == "--no-password"
        assert words.partition(" passfile='/proc/self/fd/")[0] == f"--dbname={where}"
