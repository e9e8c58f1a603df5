"""The hub's database: which one a release uses, and what is in it.

A release keeps its data in `state/hub/jupyterhub-REVISION.sqlite`, named after the schema it works with, and opens no
other file. So a migration makes a new file beside the old one, and the rename that switches `hub` to another release
switches the database with it: no power cut can leave a release with a schema that is not its own.
"""

import contextlib
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from barehub.errors import Exit, UserError, printable
from barehub.layout import Layout
from barehub.lifecycle.database_urls import fix_for, sqlite_file
from barehub.process import attempt_as, call_as
from barehub.settings import Installation, Settings
from barehub.untrusted import UntrustedError, parse_json

# The name that releases before this scheme used, and the one for a copy from another hub.
FIRST = "jupyterhub.sqlite"
VERBS = {"copy": "copied", "dump": "copied", "restore": "restored", "fill": "restored"} | dict.fromkeys(
    ("print_schema", "print_dump_schema", "print_losses"), "read"
)
SECONDS = 60.0  # for a question that SQLite answers at once, if nobody holds a lock


def migrations(scripts: Path | None = None) -> Any:
    """Return alembic's view of this release's JupyterHub's migrations, or of those in another directory."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from jupyterhub.dbutil import ALEMBIC_DIR

    config = Config()
    config.set_main_option("script_location", str(scripts or ALEMBIC_DIR))
    return ScriptDirectory.from_config(config)


def newest_revision(scripts: Path | None = None) -> str:
    """Return the schema revision that this release's JupyterHub needs, or the one these alembic scripts lead to."""
    return str(migrations(scripts).get_current_head())


def known_revisions() -> set[str]:
    """Return the schema revisions that this release can migrate from, and its own."""
    return {str(one.revision) for one in migrations().walk_revisions()}


def own_database(layout: Layout, schema: str | None = None) -> Path:
    """Return where a release with this schema, by default this one, keeps its data unless `db_url` says otherwise."""
    return layout.hub_state / f"jupyterhub-{schema or newest_revision()}.sqlite"


def used_by(layout: Layout, release: str | None) -> Path:
    """Return where `release` keeps its data; if it is not there (any more), the database that a first release will use.

    Raises UserError if there are several to choose from.
    """
    scripts = layout.release(release or "none").glob("lib/python3*/site-packages/jupyterhub/alembic")
    theirs = next(scripts, None)
    if theirs is None:
        own = own_database(layout)
        found = [own] if own.exists() else sorted(layout.hub_state.glob("jupyterhub*.sqlite"))
        if len(found) > 1:
            what = f"{layout.hub_state} holds {' and '.join(printable(path.name, keep='') for path in found)}"
            raise UserError(what, f"copy the one to use to {own}", Exit.HOOK)
        return found[0] if found else own
    named = own_database(layout, newest_revision(theirs))
    return named if named.exists() else layout.hub_state / FIRST


def revision(database: Path) -> str | None:
    """Return the schema revision of a SQLite database, None if it has none yet. Raises UserError if unreadable."""
    if not database.is_file():
        return None
    try:
        with opened(database) as connection:
            row = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.Error as error:
        fix = "see whether another program has it open; if it is damaged, state/hub/backups has copies"
        raise UserError(f"{database} cannot be read: {error}", fix, Exit.HOOK) from None
    return str(row[0]) if row else None


@contextlib.contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a SQLite database that exists. Not read-only: what a killed hub left in a journal has to be played back."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection:
        yield connection


def asked(settings: Settings, question: Callable[..., Any], *databases: Path) -> Any:
    """Return the answer of `question(*databases)`, which has to be JSON's, as the hub's account finds it.

    The files are that account's, so for root they might be traps. Raises UserError if the question does, or if there is
    no answer within SECONDS.
    """

    def work() -> str:
        try:
            return json.dumps({"answer": question(*databases)})
        except UserError as error:
            return json.dumps({"error": [str(error), error.fix]})
        except (OSError, sqlite3.Error) as error:
            fix = f"check its owner, its disk, and that it is a SQLite database: ls -l {databases[0]}"
            return json.dumps({"error": [f"{databases[0]} cannot be read: {error}", fix]})

    try:
        told = parse_json(call_as(settings.hub_user, work, {}, SECONDS), databases[0])
        if "error" in told:
            what, fix = told["error"]
            raise UserError(str(what), str(fix), Exit.HOOK)
        return told["answer"]
    except (ValueError, KeyError, TypeError, UntrustedError):
        names = " and ".join(str(path) for path in databases)
        what = f"{names} cannot be read by {settings.hub_user} within {SECONDS:.0f} s"
        raise UserError(what, "see whether another program has it open: fuser -v FILE", Exit.HOOK) from None


def running_servers(database: Path) -> list[str]:
    """Return the servers that run according to a hub's SQLite database, as `user` or `user/name`, sorted."""
    with opened(database) as connection:
        return servers_in(connection)


def servers_in(connection: sqlite3.Connection) -> list[str]:
    """The same of an open database."""
    rows = connection.execute(
        "select users.name, spawners.name from spawners join users on users.id = spawners.user_id "
        "where spawners.server_id is not null"
    )
    return sorted(f"{user}/{name}".rstrip("/") for user, name in rows)


def forget_servers(database: Path) -> list[str]:
    """Remove all servers from a copy of a hub's SQLite database; return those that ran, as `running_servers` does.

    What their users have chosen for them stays.
    """
    with opened(database) as connection, connection:
        running = servers_in(connection)
        connection.execute("delete from servers where id in (select server_id from spawners)")
        connection.execute("update spawners set server_id = null, state = null")
    return running


def require_room(database: Path, place: Path) -> None:
    """Check that a directory has room for copies of a SQLite database. Raises UserError if not."""
    if shutil.disk_usage(place).free < 3 * database.stat().st_size:
        raise UserError(f"no room in {place} for copies of the database", "make room", Exit.SPACE)


def revision_of(installation: Installation, url: str) -> str | None:
    """Return the schema revision of the database at a URL, None if it has none yet. Raises UserError if unreadable."""
    if file := sqlite_file(url, installation.layout):
        found = asked(installation.settings, revision, file)
    else:
        found = run_as_hub_user(installation.settings, "print_schema", url=url).strip()
    return printable(str(found), keep="") if found else None


def run_as_hub_user(settings: Settings, what: str, **details: str) -> str:
    """Run one function of the database worker as the hub's account; return what it printed.

    Raises UserError if it fails; then the database is as it was.
    """
    worker = (sys.executable, "-I", "-m", "barehub.lifecycle.database_worker")
    done = attempt_as(settings.hub_user, *worker, text=json.dumps({"do": what, **details}))
    if done.returncode:
        why = "; ".join(line.strip() for line in done.stderr.strip().splitlines()[-5:])
        verb = VERBS.get(what, "migrated")
        code = Exit.SPACE if done.returncode == Exit.SPACE else Exit.HOOK
        fix = "make room" if code == Exit.SPACE else fix_for(why)
        raise UserError(f"the database cannot be {verb}: {why}", f"{fix}, then run this again", code)
    return done.stdout
