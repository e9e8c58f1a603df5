"""What is done to a database, as the hub's own account: copied, asked for its schema, migrated.

The database belongs to that account, so for root its files might be traps. One order, a JSON object, is read from
stdin: a URL may hold a password, and a command line is everybody's.

    {"do": "copy", "source": PATH, "target": PATH}
    {"do": "migrate", "source": PATH, "target": PATH}
    {"do": "upgrade", "url": URL, "revision": "head"}
    {"do": "downgrade", "url": URL, "revision": REVISION}
    {"do": "revision", "url": URL}                              prints it; nothing if there is no schema yet
"""

import contextlib
import errno
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from barehub.errors import ERROR, SPACE
from barehub.process import sync_directory


def copy(source: str, target: str) -> None:
    """Copy a SQLite database, in use or not, and check the copy. `target` is there whole, on disk, or not at all.

    SQLite's own backup, since a plain copy of a file in use, or of one that a power cut left a journal of, is damaged.
    """
    with staged(Path(target)) as new:
        back_up(Path(source), new)


def migrate(source: str, target: str) -> None:
    """Make `target` of `source`, with the newest schema.

    A copy is migrated: SQLite's migrations are not transactional, so one that breaks off must not touch the original.
    """
    with staged(Path(target)) as new:
        back_up(Path(source), new)
        upgrade(f"sqlite:///{new}")


def upgrade(url: str, revision: str = "head") -> None:
    from alembic import command

    with alembic_config(url) as config:
        command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    from alembic import command

    with alembic_config(url) as config:
        command.downgrade(config, revision)


def revision(url: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    if sqlalchemy.inspect(engine).has_table("alembic_version"):
        with engine.connect() as connection:
            print(connection.execute(sqlalchemy.text("select version_num from alembic_version")).scalar() or "")


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A path beside `target`, which is renamed over it, durably, if all goes well."""
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    try:
        yield new
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
    sync_directory(target.parent)


def back_up(source: Path, target: Path) -> None:
    source.stat()  # sqlite3 would make it
    with contextlib.closing(sqlite3.connect(source)) as there, contextlib.closing(sqlite3.connect(target)) as here:
        there.backup(here)
        damage = [line for (line,) in here.execute("pragma quick_check") if line != "ok"]
    if damage:
        raise sqlite3.DatabaseError(f"{source}: {damage[0]}")


@contextlib.contextmanager
def alembic_config(url: str) -> Iterator[Any]:
    """alembic's configuration for a JupyterHub database, as JupyterHub makes it: in a file, for this account alone."""
    from alembic.config import Config
    from jupyterhub.dbutil import write_alembic_ini

    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/alembic.ini"
        write_alembic_ini(path, url)
        yield Config(path)


def main() -> int:
    os.umask(0o077)
    order = json.load(sys.stdin)
    do = {one.__name__: one for one in (copy, migrate, upgrade, downgrade, revision)}[order.pop("do")]
    try:
        do(**order)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        full = "disk is full" in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        return SPACE if full else ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
