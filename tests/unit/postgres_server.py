"""A PostgreSQL server of the system's own programs, for unit tests: on a directory of its own, gone afterwards."""

import contextlib
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import sqlalchemy
from barehub.lifecycle import database_worker
from jupyterhub import orm

from tests.conftest import cannot_run
from tests.unit.installations import OLD_SCHEMA

PORT = 5432  # of the socket's name: nobody else's directory
PASSWORD = r"it's a: \wonder% @/?#&"  # what means something in a URL, a connection string, a password file, an ini file


@dataclass
class Server:
    """A server that runs; the role `hub` logs in with PASSWORD. Each database is for one test."""

    home: Path
    programs: Path

    def run(self, program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of its programs as its own account, which is not root."""
        account = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        argv = [self.programs / program, *words]
        environment = {"PGHOST": str(self.home), "PATH": os.defpath, "PGUSER": "postgres"}
        return subprocess.run(
            argv, check=True, cwd="/", env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            **account,  # type: ignore[call-overload]
        )  # fmt: skip

    def start(self) -> None:
        options = f"-k {self.home} -c listen_addresses= -c fsync=off"
        self.run("pg_ctl", "--wait", f"--pgdata={self.home}/data", f"--log={self.home}/log", "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "--wait", "--mode=immediate", f"--pgdata={self.home}/data", "stop")

    def new_database(self, schema: str | None = OLD_SCHEMA) -> str:
        """The URL of a new database with the hub's tables of this schema, and alice; None for an empty one."""
        name = f"hub{len(list((self.home / 'data/base').iterdir()))}"
        self.run("psql", "--dbname=postgres", f"--command=create database {name} owner hub template template0")
        url = self.url(name)
        if schema:
            orm.new_session_factory(url)().close()
            if schema == OLD_SCHEMA:
                database_worker.downgrade(url, schema)
            execute(url, "insert into users (name, admin, cookie_id) values ('alice', false, 'x')")
        return url

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://hub:{quote(PASSWORD, safe='')}@/{name}?host={self.home}"


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    """The rows that a statement returns, if it does."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sqlalchemy.text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


def users(url: str) -> list[str]:
    return [str(name) for (name,) in execute(url, "select name from users order by id")]


@functools.cache
def programs() -> Path:
    """Where the newest server's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if path := shutil.which("initdb"):
        return Path(path).resolve().parent
    return cannot_run("PostgreSQL is not installed on this host: apt-get install postgresql")


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server in a new directory. Its name is short: a socket's path is."""
    with tempfile.TemporaryDirectory(prefix="pg") as directory:
        server = Server(Path(directory), programs())
        if os.geteuid() == 0:
            os.chown(directory, pwd.getpwnam("postgres").pw_uid, -1)
        server.run(
            "initdb",
            "--no-sync",
            "--encoding=UTF8",
            "--username=postgres",
            f"--pgdata={directory}/data",
            "--auth=trust",
        )
        (server.home / "data/pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
        server.start()
        try:
            password = PASSWORD.replace("'", "''")
            server.run("psql", "--dbname=postgres", f"--command=create role hub login password '{password}'")
            yield server
        finally:
            server.stop()
