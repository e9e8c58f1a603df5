"""What is done to a database, as the hub's own account: copy it, migrate it, print its schema.

The database belongs to that account, so for root its files might be traps. One task, a JSON object, is read from
stdin: a URL may hold a password, and every account can read a command line.

    {"do": "copy", "source": PATH, "target": PATH}
    {"do": "migrate", "source": PATH, "target": PATH}
    {"do": "upgrade", "url": URL, "revision": "head"}
    {"do": "downgrade", "url": URL, "revision": REVISION}
    {"do": "print_schema", "url": URL}                          prints nothing if there is no schema yet
    {"do": "dump", "url": URL, "target": PATH}                  of PostgreSQL; so are those below
    {"do": "restore", "url": URL, "source": PATH}
    {"do": "fill", "url": URL, "source": PATH}
    {"do": "print_dump_schema", "source": PATH}
    {"do": "print_losses", "url": URL, "source": PATH}          as JSON: what is not in the dump
"""

import contextlib
import errno
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from barehub.config import leave_out_grammars
from barehub.errors import Exit
from barehub.lifecycle import postgres
from barehub.process import sync_directory


def copy(source: str, target: str) -> None:
    """Copy a SQLite database, in use or not, and check the copy. Afterwards `target` is whole, on disk, or unchanged.

    SQLite's own backup: a plain copy of a file in use, or of one that a power cut left with a journal, is damaged.
    """
    with staged(Path(target)) as new:
        back_up(Path(source), new)


def migrate(source: str, target: str) -> None:
    """Make `target` from `source`, with the newest schema.

    A copy is migrated: SQLite's migrations are not transactional, so an interrupted one must not touch the original.
    """
    with staged(Path(target)) as new:
        back_up(Path(source), new)
        upgrade(f"sqlite:///{new}")


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate the database at a URL to a newer schema, in place."""
    from alembic import command

    with alembic_config(url) as config:
        command.upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    """Migrate the database at a URL to an older schema, in place."""
    from alembic import command

    with alembic_config(url) as config:
        command.downgrade(config, revision)


def print_schema(url: str) -> None:
    """Print the schema revision of the database at a URL."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    if sqlalchemy.inspect(engine).has_table("alembic_version"):
        with engine.connect() as connection:
            print(connection.execute(sqlalchemy.text("select version_num from alembic_version")).scalar() or "")


def dump(url: str, target: str) -> None:
    """Write a dump of the database at a URL, in use or not, and check it. Then `target` is whole, or unchanged."""
    with staged(Path(target)) as new:
        postgres.dump(url, new)


def restore(url: str, source: str) -> None:
    """Replace the hub's tables in the database at a URL by those of a dump, all or nothing."""
    postgres.restore(url, Path(source))


def fill(url: str, source: str) -> None:
    """Restore a dump into the database at a URL, which has no tables of the hub's role, all or nothing."""
    if postgres.tables_of(url):
        raise postgres.ProgramError("it is not empty, and a restore replaces nothing")
    restore(url, source)


def print_dump_schema(source: str) -> None:
    """Print the schema revision of the data in a dump."""
    print(postgres.schema_in(Path(source)))


def print_losses(url: str, source: str) -> None:
    """Print what the database at a URL has that a dump lacks."""
    from barehub.lifecycle.rollback import lost_between

    now, then = postgres.content_of(url), postgres.content_of_dump(Path(source))
    print(json.dumps(lost_between(now, then)))


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give a path beside `target`, which is renamed over it, durably, unless an error is raised."""
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
    """Copy a SQLite database and check the copy. Raises sqlite3.DatabaseError if it is damaged."""
    source.stat()  # sqlite3 would create it
    with contextlib.closing(sqlite3.connect(source)) as there, contextlib.closing(sqlite3.connect(target)) as here:
        there.backup(here)
        damage = [line for (line,) in here.execute("pragma quick_check") if line != "ok"]
    if damage:
        raise sqlite3.DatabaseError(f"{source}: {damage[0]}")


@contextlib.contextmanager
def alembic_config(url: str) -> Iterator[Any]:
    """Give alembic's configuration as JupyterHub writes it for its database: a file that only this account can read."""
    from alembic.config import Config
    from jupyterhub.dbutil import write_alembic_ini

    leave_out_grammars()  # JupyterHub's migrations import all of it
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/alembic.ini"
        write_alembic_ini(path, url)
        yield Config(path)


def main() -> int:
    os.umask(0o077)
    task = json.load(sys.stdin)
    functions: tuple[Callable[..., None], ...] = (
        *(copy, migrate, upgrade, downgrade, print_schema),
        *(dump, restore, fill, print_dump_schema, print_losses),
    )
    do = {one.__name__: one for one in functions}[task.pop("do")]
    try:
        do(**task)
    except Exception as error:
        print(text_of(error), file=sys.stderr)
        full = ("disk is full", "No space left on device")
        if any(one in str(error) for one in full) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return Exit.SPACE
        return Exit.ERROR
    return 0


def text_of(error: Exception) -> str:
    """Return what an error says, on one line. Of a database's driver, without what SQLAlchemy has added."""
    error = getattr(error, "orig", None) or error
    what = "" if isinstance(error, postgres.ProgramError) else f"{type(error).__name__}: "
    return what + "; ".join(line.strip() for line in str(error).splitlines())


if __name__ == "__main__":
    sys.exit(main())
