"""The hub's database: which one a release uses, backups of it, and how a release gets the schema it needs.

A release keeps its data in `state/hub/jupyterhub-REVISION.sqlite`, named after the schema it works with, and opens no
other. So a migration makes a new file beside the old one, and the rename that switches `hub` to another release
switches the database with it: no power cut can leave a release with a schema that is not its own.

A database of the administrator's choice (`c.JupyterHub.db_url`) is migrated where it is, and with the hub stopped too.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from barehub.accounts import ensure_directory, ids
from barehub.errors import HOOK, SPACE, UserError
from barehub.layout import Layout, age
from barehub.settings import Settings

FIRST = "jupyterhub.sqlite"  # the name that releases before this scheme used, and the one for a copy to be taken over
SQLITE = "sqlite:///"


def newest_revision(scripts: Path | None = None) -> str:
    """The schema revision that this release's JupyterHub works with, or the one that these alembic scripts are for."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from jupyterhub.dbutil import ALEMBIC_DIR

    config = Config()
    config.set_main_option("script_location", str(scripts or ALEMBIC_DIR))
    return ScriptDirectory.from_config(config).get_current_head()


def own_database(layout: Layout, schema: str | None = None) -> Path:
    """Where a release with this schema, by default this release, keeps its data unless `db_url` says otherwise."""
    return layout.hub_state / f"jupyterhub-{schema or newest_revision()}.sqlite"


def used_by(layout: Layout, release: str | None) -> Path:
    """Where `release` keeps its data; where data lies that wait for a first release, if there was none (or no more).

    Raises UserError if there are several to choose from.
    """
    scripts = layout.release(release or "none").glob("lib/python3*/site-packages/jupyterhub/alembic")
    theirs = next(scripts, None)
    if theirs is None:
        own = own_database(layout)
        found = [own] if own.exists() else sorted(layout.hub_state.glob("jupyterhub*.sqlite"))
        if len(found) > 1:
            what = f"{layout.hub_state} holds {' and '.join(path.name for path in found)}"
            raise UserError(what, "move away all but the one to be used", HOOK)
        return found[0] if found else own
    named = own_database(layout, newest_revision(theirs))
    return named if named.exists() else layout.hub_state / FIRST


def sqlite_file(url: str, layout: Layout) -> Path | None:
    """The file of a SQLite URL as SQLAlchemy spells it, seen from the hub's directory; None for other databases."""
    return layout.hub_state / url.removeprefix(SQLITE) if url.startswith(SQLITE) else None


def revision(database: Path) -> str | None:
    """The schema revision of a JupyterHub database, or None where there is none yet. Raises UserError if unreadable."""
    if not database.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.Error as error:
        raise UserError(f"{database} cannot be read: {error}", "restore a copy from state/hub/backups", HOOK) from None
    return row[0] if row else None


def running_servers(database: Path) -> set[str]:
    """The servers that run, by a SQLite database of a hub, as `user` or `user/name`."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "select users.name, spawners.name from spawners join users on users.id = spawners.user_id "
            "where spawners.server_id is not null"
        )
        return {f"{user}/{name}".rstrip("/") for user, name in rows}


def revision_of(layout: Layout, settings: Settings, url: str) -> str | None:
    """The schema revision of the database at a URL, or None where there is none yet. Raises UserError if unreadable."""
    file = sqlite_file(url, layout)
    return revision(file) if file else order(settings, "revision", url=url).strip() or None


@dataclass
class Move:
    """The way of the data from the database that was used before to the one that this release uses.

    Both are URLs, most often of the same database. `have` is the schema it has, None if there are no data; `needed`
    tells whether `carry_out` has anything to do.
    """

    layout: Layout
    settings: Settings
    source: str
    target: str
    have: str | None
    needed: bool
    done: bool = False

    @classmethod
    def plan(cls, layout: Layout, settings: Settings, hub: Any, release: str, previous: str | None) -> "Move":
        """Look at the databases of `hub`, a configured JupyterHub application, and of the release before it.

        A release that is older than `previous` finds its data prepared (`rollback`). Changes nothing. Raises
        UserError if the data cannot be read, have no room, or are not prepared.
        """
        source = target = hub.db_url
        if sqlite_file(target, layout) == own_database(layout):
            source = f"{SQLITE}{used_by(layout, previous)}"
        file, have = sqlite_file(source, layout), revision_of(layout, settings, source)
        needed = have is not None and (source != target or have != newest_revision())
        if needed and previous and age(release) < age(previous):
            if revision(sqlite_file(target, layout) or Path()) != newest_revision():
                raise UserError(f"{release} is older than {previous}", f"{layout.hub}/bin/barehub rollback", HOOK)
            needed = False
        if file and have and shutil.disk_usage(layout.hub_state).free < 3 * file.stat().st_size:
            raise UserError(f"no room in {layout.hub_state} for copies of the database", "make room", SPACE)
        return cls(layout, settings, source, target, have, needed)

    def back_up(self, label: str, *, required: bool = True) -> Path | None:
        """Copy the data, in use or at rest, to backups/ under the name of the release that used it.

        Returns the copy; None if there are no data, or if they are in a database that is not ours to copy and
        `required` is False. Raises UserError for such a one otherwise.
        """
        if self.have is None:
            return None
        file = sqlite_file(self.source, self.layout)
        if file is None:
            if required:
                what = f"the database at {without_password(self.source)} is yours to back up"
                raise UserError(what, f"{dump_command(self.source)}; then run this again with --no-db-backup", HOOK)
            return None
        place = self.layout.backup(label)
        ensure_directory(self.layout.backups, 0o700, *ids(self.settings.hub_user))
        order(self.settings, "copy", source=str(file), target=str(place))
        return place

    def carry_out(self) -> None:
        """Have the data in this release's database with this release's schema. The hub must be stopped."""
        source, target = sqlite_file(self.source, self.layout), sqlite_file(self.target, self.layout)
        if source and target:
            order(self.settings, "migrate", source=str(source), target=str(target))
        else:
            self.done = True  # in parts, if it breaks off
            order(self.settings, "upgrade", url=self.target, revision="head")
        self.done = True

    def undo(self, backup: Path | None, *, spoilt: bool = False) -> None:
        """Have the data as they were before `carry_out`; `backup` is a copy at rest of the time before.

        `spoilt` tells that the data were changed for the worse even if their schema was not.
        """
        target = sqlite_file(self.target, self.layout)
        if not (self.done or spoilt):
            return
        if self.source != self.target:
            target.unlink(missing_ok=True)
        elif target and backup:
            order(self.settings, "copy", source=str(backup), target=str(target))
        elif target is None:
            order(self.settings, "downgrade", url=self.target, revision=self.have)
        self.done = False

    def remembered(self) -> set[str] | None:
        """The servers that run by the backup that a rollback has put in place; None where the data stay."""
        prepared = self.have is not None and self.source != self.target and not self.needed
        return running_servers(sqlite_file(self.target, self.layout)) if prepared else None

    def finish(self) -> None:
        """Remove the database that is no longer used: its content is in the new one, and in backups/ as it was."""
        if self.source != self.target:
            sqlite_file(self.source, self.layout).unlink(missing_ok=True)


def order(settings: Settings, what: str, **details: str) -> str:
    """Have the database worker do something to a database, as the hub's account; return what it printed.

    Raises UserError if it fails; then the database is as it was.
    """
    uid, gid = ids(settings.hub_user)
    done = subprocess.run(
        [sys.executable, "-I", "-m", "barehub.lifecycle.database_worker"],
        **({"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}),
        input=json.dumps({"do": what, **details}),
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        why = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-5:])
        room = done.returncode == SPACE
        verb = {"copy": "copied", "revision": "read"}.get(what, "migrated")
        raise UserError(
            f"the database cannot be {verb}:\n{why}",
            "make room, then run this again" if room else "mend that, then run this again",
            SPACE if room else HOOK,
        )
    return done.stdout


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or 'localhost'}{parts.path}"


def dump_command(url: str) -> str:
    """The command with which an administrator copies a database that is not SQLite's; it asks for the password."""
    parts = urlsplit(url)
    host, user, name = parts.hostname or "localhost", parts.username or "jupyterhub", parts.path.strip("/")
    if parts.scheme.startswith("postgresql"):
        return f"pg_dump --format=custom --file=jupyterhub.dump --host={host} --username={user} {name}"
    if parts.scheme.startswith(("mysql", "mariadb")):
        return f"mysqldump --single-transaction --host={host} --user={user} --password {name} > jupyterhub.sql"
    return f"copy the database {name} with the tools of {parts.scheme}"
