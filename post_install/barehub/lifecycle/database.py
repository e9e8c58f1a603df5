"""The hub's database: which one a release uses, backups of it, and how a release gets the schema it needs.

A release keeps its data in `state/hub/jupyterhub-REVISION.sqlite`, named after the schema it works with, and opens no
other file. So a migration makes a new file beside the old one, and the rename that switches `hub` to another release
switches the database with it: no power cut can leave a release with a schema that is not its own.

A database of the administrator's choice (`c.JupyterHub.db_url`) is migrated in place, with the hub stopped as well. Of
PostgreSQL, a dump is the backup (barehub.lifecycle.postgres).
"""

import contextlib
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barehub.accounts import ensure_directory, ids
from barehub.errors import Exit, UserError
from barehub.layout import Layout, release_key
from barehub.lifecycle.database_urls import SQLITE, can_dump, fix_for, sqlite_file, why_no_dump, without_password
from barehub.process import attempt_as, call_as
from barehub.settings import Installation, Settings
from barehub.untrusted import UntrustedError, parse_json

# The name that releases before this scheme used, and the one for a copy from another hub.
FIRST = "jupyterhub.sqlite"
VERBS = {"copy": "copied", "dump": "copied", "restore": "restored"} | dict.fromkeys(
    ("print_schema", "print_dump_schema", "print_losses"), "read"
)
SECONDS = 60.0  # for a question that SQLite answers at once, if nobody holds a lock


def schemas(scripts: Path | None = None) -> Any:
    """Return the alembic scripts of this release's JupyterHub, or these ones: a `ScriptDirectory`."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from jupyterhub.dbutil import ALEMBIC_DIR

    config = Config()
    config.set_main_option("script_location", str(scripts or ALEMBIC_DIR))
    return ScriptDirectory.from_config(config)


def newest_revision(scripts: Path | None = None) -> str:
    """Return the schema revision that this release's JupyterHub needs, or the one these alembic scripts lead to."""
    return str(schemas(scripts).get_current_head())


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
            what = f"{layout.hub_state} holds {' and '.join(path.name for path in found)}"
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


def revision_of(installation: Installation, url: str) -> str | None:
    """Return the schema revision of the database at a URL, None if it has none yet. Raises UserError if unreadable."""
    if file := sqlite_file(url, installation.layout):
        found = asked(installation.settings, revision, file)
        return str(found) if found else None
    return run_as_hub_user(installation.settings, "print_schema", url=url).strip() or None


@dataclass
class Migration:
    """Moves the data from the database that was used before to the one that this release uses.

    Both are URLs, most often of the same database. `have` is the schema of the data, None if there are none; `needed`
    is False if `migrate` has nothing to do.
    """

    installation: Installation
    source: str
    target: str
    have: str | None
    needed: bool
    done: bool = False

    @classmethod
    def plan(cls, installation: Installation, url: str, release: str, previous: str | None) -> "Migration":
        """Check the database that the configuration names, by its `url`, and that of the release before it.

        For a release that is older than `previous`, its data must have been prepared (`rollback`). Changes nothing.
        Raises UserError if the data cannot be read, have no room, or are not prepared.
        """
        layout = installation.layout
        source = target = url
        if sqlite_file(target, layout) == own_database(layout):
            source = f"{SQLITE}{used_by(layout, previous)}"
        file, have = sqlite_file(source, layout), revision_of(installation, source)
        needed = have is not None and (source != target or have != newest_revision())
        if needed and previous and release_key(release) < release_key(previous):
            prepared = sqlite_file(target, layout)
            if prepared is None or asked(installation.settings, revision, prepared) != newest_revision():
                fix = f"{layout.hub}/bin/barehub rollback"
                raise UserError(f"{release} is older than {previous}", fix, Exit.HOOK)
            needed = False
        if needed and have not in {one.revision for one in schemas().walk_revisions()}:
            what = f"{without_password(source)} has schema {have}, which {release} does not know"
            raise UserError(what, "install the release that wrote it, or restore an older backup", Exit.HOOK)
        if file and have and shutil.disk_usage(layout.hub_state).free < 3 * file.stat().st_size:
            raise UserError(f"no room in {layout.hub_state} for copies of the database", "make room", Exit.SPACE)
        return cls(installation, source, target, have, needed)

    @property
    def source_file(self) -> Path | None:
        """The file of the database that was used before; None if it is not SQLite's."""
        return sqlite_file(self.source, self.installation.layout)

    @property
    def target_file(self) -> Path | None:
        """The file of the database that this release uses; None if it is not SQLite's."""
        return sqlite_file(self.target, self.installation.layout)

    def backup_of(self, label: str) -> Path:
        """Return where the backup of the data is as the release with this label left them."""
        return self.installation.layout.backup(label, ".sqlite" if self.source_file else ".dump")

    def back_up(self, label: str, *, required: bool = True) -> Path | None:
        """Copy the data, in use or at rest, to backups/ under the label of the release that used them.

        Returns the backup. Returns None if there are no data, or if they are in a database server and `required` is
        False; raises UserError for a server that we cannot copy from otherwise.
        """
        if self.have is None:
            return None
        layout, settings, place = self.installation.layout, self.installation.settings, self.backup_of(label)
        if self.source_file is None:
            if not required:
                return None
            if not can_dump(self.source):
                raise UserError(*why_no_dump(self.source), Exit.HOOK)
            if place.exists() and self.schema_of(place) != self.have:
                return None  # an interrupted run has migrated the data, which are not as that release left them
        ensure_directory(layout.backups, 0o700, *ids(settings.hub_user))
        self.save(place)
        return place

    def save(self, place: Path) -> None:
        """Copy the data to a backup."""
        if file := self.source_file:
            run_as_hub_user(self.installation.settings, "copy", source=str(file), target=str(place))
        else:
            run_as_hub_user(self.installation.settings, "dump", url=self.source, target=str(place))

    def put_back(self, backup: Path) -> None:
        """Replace the data, where they are, by those of a backup."""
        if file := self.target_file:
            run_as_hub_user(self.installation.settings, "copy", source=str(backup), target=str(file))
        else:
            run_as_hub_user(self.installation.settings, "restore", url=self.target, source=str(backup))

    def schema_of(self, backup: Path) -> str | None:
        """Return the schema revision of the data in a backup, None if there is none. Raises UserError if unreadable."""
        settings = self.installation.settings
        if self.target_file is None:
            return run_as_hub_user(settings, "print_dump_schema", source=str(backup)).strip() or None
        found = asked(settings, revision, backup)
        return str(found) if found else None

    def migrate(self) -> None:
        """Bring the data into this release's database, with this release's schema. The hub must be stopped.

        Raises UserError if that fails.
        """
        source, target, settings = self.source_file, self.target_file, self.installation.settings
        if source and target:
            run_as_hub_user(settings, "migrate", source=str(source), target=str(target))
        else:
            self.done = True  # in part, if it is interrupted
            run_as_hub_user(settings, "upgrade", url=self.target, revision="head")
        self.done = True

    def undo(self, backup: Path | None, *, data_changed: bool = False) -> None:
        """Restore the data as they were before `migrate`; `backup` was made before it, with the data at rest.

        `data_changed` tells that data may have been lost even if their schema is the same.
        """
        if not (self.done or data_changed):
            return
        target = self.target_file
        if target and self.source != self.target:
            target.unlink(missing_ok=True)
        elif backup:
            self.put_back(backup)
        elif target is None and self.have:
            run_as_hub_user(self.installation.settings, "downgrade", url=self.target, revision=self.have)
        self.done = False

    def servers_in_backup(self) -> set[str] | None:
        """Return the servers that run according to the backup that a rollback restored; None if the data stay."""
        prepared = self.have is not None and self.source != self.target and not self.needed
        if not (prepared and self.target_file):
            return None
        return set(asked(self.installation.settings, running_servers, self.target_file))

    def finish(self) -> None:
        """Remove the database that is no longer used: its content is in the new one, and in backups/ as it was."""
        if self.source_file and self.source != self.target:
            self.source_file.unlink(missing_ok=True)


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
