"""PostgreSQL as the hub's database: dumps of it, and what they hold. For the database worker.

A dump has pg_dump's own format and holds the hub's tables: those of its role, in its schema. pg_dump, pg_restore, and
psql are the system's. They get the password in a file without a name, never on a command line.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

PROGRAMS = ("pg_dump", "pg_restore", "psql")
LIBPQ = ("postgresql", "postgresql+psycopg", "postgresql+psycopg2")  # drivers whose parameters the programs know
# pg_restore from 17 on writes this for each server; an older one does not know it.
NOT_FOR_OLDER = b"SET transaction_timeout = 0;\n"
PROCESS: dict[str, Any] = {
    "env": {**os.environ, "PGCLIENTENCODING": "UTF8"},
    "close_fds": False,  # for the password; other files of Python's do not outlive an exec
}
ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class ProgramError(Exception):
    """One of the programs has failed; what it printed."""


def dump(url: str, target: Path) -> None:
    """Write a dump of the hub's tables, in use or at rest, and read it once. Raises ProgramError."""
    with connection_to(url) as where:
        run("pg_dump", "--format=custom", f"--file={target}", *where, *only_tables(url))
        run("pg_restore", "--file=/dev/null", str(target))


def restore(url: str, source: Path) -> None:
    """Replace the hub's tables by those of a dump, all or nothing. Raises ProgramError."""
    tables = ", ".join(tables_of(url))
    first = "begin; set local lock_timeout = '60s';" + (f" drop table {tables};" if tables else "")
    words = ("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null")
    with connection_to(url) as where, tempfile.TemporaryFile() as errors:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": errors}
        with contextlib.suppress(BrokenPipeError), subprocess.Popen([*words, *where], **pipes, **PROCESS) as psql:
            assert psql.stdin  # noqa: S101 - a pipe
            psql.stdin.write(f"{first}\n".encode())
            with script_of(source) as lines:
                psql.stdin.writelines(line for line in lines if line != NOT_FOR_OLDER)
            psql.stdin.write(b"commit;\n")  # without this line, as after a kill, nothing has changed
        require_success("psql", psql.returncode, errors)


def schema_in(source: Path) -> str:
    """Return the schema revision of the data in a dump; empty if it has none. Raises ProgramError."""
    with script_of(source, "--data-only", "--table=alembic_version") as lines:
        found = loaded(lines).execute("select version_num from alembic_version").fetchone()
    return str(found[0]) if found else ""


def content_of(url: str) -> sqlite3.Connection:
    """Return the hub's tables as they are now, as `loaded` gives them. Raises ProgramError."""
    with connection_to(url) as where, lines_of("pg_dump", "--data-only", *where, *only_tables(url)) as lines:
        return loaded(lines)


def content_of_dump(source: Path) -> sqlite3.Connection:
    """Return the hub's tables as a dump has them, as `loaded` gives them. Raises ProgramError."""
    with script_of(source, "--data-only") as lines:
        return loaded(lines)


def only_tables(url: str) -> list[str]:
    """Return pg_dump's options for the hub's tables. Raises ProgramError if there is none: it would dump all others."""
    if tables := tables_of(url):
        return [f"--table={name}" for name in tables]
    raise ProgramError("the hub's role must be owner of the hub's tables, but owns none")


def tables_of(url: str) -> list[str]:
    """Return the hub's tables, with their schema and as SQL spells them: those that its role has made."""
    import sqlalchemy

    mine = "select quote_ident(schemaname) || '.' || quote_ident(tablename) from pg_tables"
    mine += " where schemaname = current_schema() and tableowner = current_user"
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        return [str(name) for (name,) in connection.execute(sqlalchemy.text(mine))]


@contextlib.contextmanager
def connection_to(url: str) -> Iterator[list[str]]:
    """Give the options with which the programs connect as SQLAlchemy does with this URL.

    https://www.postgresql.org/docs/current/libpq-connect.html and libpq-pgpass.html say how both are written.
    """
    from sqlalchemy import make_url

    parts = make_url(url)
    if parts.drivername not in LIBPQ:
        parts = parts.set(query={})
    parts = parts.set(drivername="postgresql+psycopg")
    values = dict(parts.get_dialect()().create_connect_args(parts)[1])
    # It has no name, so a kill leaves nothing, and the mode that libpq wants.
    with tempfile.TemporaryFile() as password:
        os.set_inheritable(password.fileno(), True)
        if secret := values.pop("password", None):
            password.write(f"*:*:*:*:{escaped(str(secret), ':')}\n".encode())
            password.flush()
            values["passfile"] = f"/proc/self/fd/{password.fileno()}"
        words = " ".join(f"{name}='{escaped(str(value), chr(39))}'" for name, value in values.items())
        yield ["--no-password", f"--dbname={words}"]


def escaped(value: str, what: str) -> str:
    """Return a value with a backslash before each character that is `what`, or a backslash."""
    return re.sub(f"([{what}\\\\])", r"\\\1", value)


def script_of(source: Path, *options: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Give a dump as SQL, line by line. /dev/stdout: up to version 11, `-` is a file's name."""
    words = ("--no-owner", "--no-privileges", "--file=/dev/stdout", *options, str(source))
    return lines_of("pg_restore", *words)


@contextlib.contextmanager
def lines_of(program: str, *words: str) -> Iterator[IO[bytes]]:
    """Give what a program prints, as it comes. Raises ProgramError if it fails, when all of that has been read."""
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen([program, *words], stdout=subprocess.PIPE, stderr=errors, **PROCESS) as running:
            assert running.stdout  # noqa: S101 - a pipe
            yield running.stdout
        require_success(program, running.returncode, errors)


def run(program: str, *words: str) -> None:
    """Run a program that prints nothing. Raises ProgramError if it fails."""
    with lines_of(program, *words):
        pass


def require_success(program: str, status: int, errors: IO[bytes]) -> None:
    """Raises ProgramError, with what the program has complained of, if its exit status is not 0."""
    if status:
        errors.seek(0)
        raise ProgramError(errors.read().decode(errors="replace").strip() or f"{program} exited with {status}")


def loaded(script: Iterable[bytes]) -> sqlite3.Connection:
    """Return a SQLite database in memory with the rows that a dump's script copies, all of them text.

    https://www.postgresql.org/docs/current/sql-copy.html, "Text Format".
    """
    content, lines = sqlite3.connect(":memory:"), (line.decode().rstrip("\n") for line in script)
    for line in lines:
        if not (found := re.fullmatch(r'COPY (?:.*\.)?"?(\w+)"? \((.*)\) FROM stdin;', line)):
            continue
        columns = found[2].split(", ")
        content.execute(f"create table {found[1]} ({found[2]})")
        insert = f"insert into {found[1]} values ({', '.join('?' * len(columns))})"  # noqa: S608 - none of it is data
        for row in iter(lambda: next(lines), "\\."):
            content.execute(insert, [value_of(field) for field in row.split("\t")])
    return content


def value_of(field: str) -> str | None:
    """Return the value that a field of a copied row stands for."""
    if field == "\\N":
        return None
    return re.sub(r"\\(.)", lambda found: ESCAPED.get(found[1], found[1]), field)


def missing_programs() -> list[str]:
    """Return which of the programs are not where the worker looks for them."""
    return [one for one in PROGRAMS if not shutil.which(one, path=os.defpath)]
