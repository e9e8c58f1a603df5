"""The hub's SQLite database: its revision, and a migration that can be undone.

The schema is migrated here, with the hub stopped, and never by the hub's unit: with Restart=always that would leave
one backup for each failed attempt.
"""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barehub.accounts import ensure_directory, give, ids
from barehub.errors import HOOK, SPACE, UserError
from barehub.layout import Layout
from barehub.process import sync_directory
from barehub.settings import Settings


def revision(database: Path) -> str | None:
    """The schema revision of a JupyterHub database, or None where there is none yet. Raises UserError if unreadable."""
    if not database.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            row = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.Error as error:
        raise UserError(f"{database} cannot be read: {error}", "restore a copy from state/hub/backups", HOOK) from None
    return row[0] if row else None


def newest_revision() -> str:
    """The schema revision that this release's JupyterHub works with."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from jupyterhub.dbutil import ALEMBIC_DIR

    config = Config()
    config.set_main_option("script_location", ALEMBIC_DIR)
    return ScriptDirectory.from_config(config).get_current_head()


# Run as the hub's account: what it owns may be a trap for root, and alembic opens what it is told to.
UPGRADE = "import sys; from jupyterhub.dbutil import upgrade; upgrade(sys.argv[1])"


@dataclass
class Migration:
    """What must happen to the database so that this release can use it; nothing if `needed` is False.

    `backup` is the copy made in this run, `done` tells that the database is now another one.
    """

    layout: Layout
    settings: Settings
    needed: bool
    backup: Path | None = None
    done: bool = False

    @classmethod
    def plan(cls, layout: Layout, settings: Settings, hub: Any) -> "Migration":
        """Look at the database that `hub`, a configured JupyterHub application, names. Changes nothing.

        A database that is not ours, by `c.JupyterHub.db_url`, is the administrator's to back up and migrate. Raises
        UserError if ours cannot be read, or if there is no room for the copies.
        """
        if hub.db_url != f"sqlite:///{layout.database}":
            return cls(layout, settings, needed=False)
        have = revision(layout.database)
        needed = have is not None and have != newest_revision()
        if needed and shutil.disk_usage(layout.hub_state).free < 3 * layout.database.stat().st_size:
            raise UserError(f"no room in {layout.hub_state} for copies of the database", "make room", SPACE)
        return cls(layout, settings, needed)

    def back_up(self, label: str) -> Path:
        """Copy the database, at rest, to backups/ under the name of the release that used it; return the copy."""
        uid, gid = ids(self.settings.hub_user)
        ensure_directory(self.layout.backups, 0o700, uid, gid)
        place = self.layout.backups / f"jupyterhub-{label}.sqlite"
        copy_durably(self.layout.database, place, uid, gid)
        self.backup = place
        return place

    def migrate(self) -> None:
        """Bring the database to this release's schema: a copy is migrated and renamed over it.

        SQLite's migrations are not transactional, so a failure or power cut half-way must not touch the original.
        """
        uid, gid = ids(self.settings.hub_user)
        staged = self.layout.database.with_name("jupyterhub.sqlite.migrating")
        copy_durably(self.layout.database, staged, uid, gid)
        # alembic is run by name
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        done = subprocess.run(
            [sys.executable, "-I", "-c", UPGRADE, f"sqlite:///{staged}"],
            **({"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}),
            env={"PATH": path}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            staged.unlink(missing_ok=True)
            why = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-5:])
            raise UserError(
                f"the database cannot be migrated:\n{why}", "the release that was active stays active", HOOK
            )
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.replace(self.layout.database)
        self.done = True
        sync_directory(self.layout.hub_state)

    def undo(self) -> None:
        """Put this run's backup in the database's place, in one rename, if the database was replaced."""
        if not (self.done and self.backup):
            return
        uid, gid = ids(self.settings.hub_user)
        staged = self.layout.database.with_name("jupyterhub.sqlite.restoring")
        copy_durably(self.backup, staged, uid, gid)
        staged.replace(self.layout.database)
        self.done = False
        sync_directory(self.layout.hub_state)


def copy_durably(source: Path, target: Path, uid: int, gid: int) -> None:
    """Copy a file that nobody writes to; the copy is private from the start, and on disk when this returns."""
    staged = target.with_name(f".{target.name}.new")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    opened = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)  # a link would be somebody's trap for root
    with open(descriptor, "wb") as out, open(opened, "rb") as content:
        shutil.copyfileobj(content, out)
        out.flush()
        os.fsync(descriptor)
    give(staged, uid, gid)
    staged.replace(target)
    sync_directory(target.parent)
