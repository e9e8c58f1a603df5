"""The URLs of databases (SQLAlchemy's): which file or server one names, and what to do where we can do nothing."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from barehub.layout import Layout
from barehub.lifecycle.postgres import missing_programs

SQLITE = "sqlite:///"
FIXES = {  # words of PostgreSQL's programs, of libpq, and of psycopg: what to do
    "version mismatch": "install PostgreSQL's client programs (pg_dump) of the server's version or newer",
    "no pq wrapper available": "install libpq, PostgreSQL's library: package libpq5 or libpq",
    "connection failed": "start the database server, or correct c.JupyterHub.db_url",
    "connection is bad": "start the database server, or correct c.JupyterHub.db_url",
    "unsupported version": "install PostgreSQL's client programs (pg_restore) of the dump's version or newer",
    "is not empty": "create the database again, empty",
    "must be owner": "let the hub's role own its tables",
}


def sqlite_file(url: str, layout: Layout) -> Path | None:
    """Return the file of a SQLite URL (SQLAlchemy's), relative to the hub's directory; None for other databases."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///(?!:memory:|file:)([^?]+)(?:\?.*)?", url)
    return layout.hub_state / found[1] if found else None


def without_password(url: str) -> str:
    """Return a database's URL without account and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or 'localhost'}{parts.path}"


def can_dump(url: str) -> bool:
    """Return True for a database server that we can back up: PostgreSQL, with its client programs on this machine."""
    return url.startswith("postgresql") and not missing_programs()


def why_not_in_it(url: str) -> str:
    """Return that such a database is in no backup of ours, and how to dump it."""
    more = "; or install PostgreSQL's client programs, and run this again" if url.startswith("postgresql") else ""
    return f"the database at {without_password(url)}: {dump_command(url)}{more}"


def why_no_dump(url: str) -> tuple[str, str]:
    """Return why such a database cannot be backed up by us, and what to do."""
    missing = f", since {' and '.join(missing_programs())} cannot be found" if url.startswith("postgresql") else ""
    what = f"the database at {without_password(url)} is yours to back up{missing}"
    install = "install PostgreSQL's client programs; or " if missing else ""
    return what, f"{install}{dump_command(url)}; then run this again with --no-db-backup"


def fix_for(why: str, otherwise: str = "fix the cause") -> str:
    """Return what to do if a database cannot be used for this reason."""
    return next((fix for known, fix in FIXES.items() if known in why), otherwise)


def why_no_restore(url: str) -> tuple[str, str] | None:
    """Return why a dump of PostgreSQL cannot be restored to such a database, and what to do; None if it can be."""
    if not url.startswith("postgresql"):
        return "it is no PostgreSQL", "name the database in c.JupyterHub.db_url"
    if missing := missing_programs():
        return f"{' and '.join(missing)} cannot be found", "install PostgreSQL's client programs"
    return None


def dump_command(url: str) -> str:
    """Return the command that backs up a database other than SQLite's; it asks for the password."""
    parts = urlsplit(url)
    host, user, name = parts.hostname or "localhost", parts.username or "jupyterhub", parts.path.strip("/")
    if parts.scheme.startswith("postgresql"):
        return f"pg_dump --format=custom --file=jupyterhub.dump --host={host} --username={user} {name}"
    if parts.scheme.startswith(("mysql", "mariadb")):
        return f"mysqldump --single-transaction --host={host} --user={user} --password {name} > jupyterhub.sql"
    return f"copy the database {name} with the tools of {parts.scheme}"
