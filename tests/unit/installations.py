"""Installations on a temporary directory, without systemd, for the unit tests; and what they talk to."""

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from barehub.config import ConfigError
from barehub.layout import Layout
from barehub.lifecycle import database_worker, postgres
from barehub.lifecycle.database import newest_revision, own_database
from barehub.lifecycle.install import install
from barehub.lifecycle.options import Request
from barehub.process import attempt_as, call_as
from barehub.settings import Installation, Settings
from jupyterhub import orm

POST_INSTALL = Path(__file__).parents[2] / "post_install"
SHARE = POST_INSTALL / "data/share/barehub"
OLD, NEW = "2026.10.24", "2026.11.24"
OLD_SCHEMA = "4621fec11365"  # JupyterHub 5's
ME = Settings(name="barehub", hub_user="root", proxy_user="daemon")


def make_release(base: Layout, label: str, schema: str | None = None) -> Layout:
    """A complete release with barehub's own files; with `schema`, its JupyterHub knows no later one."""
    layout = Layout(base.base, root=base.root, prefix=base.release(label))
    shutil.copytree(SHARE, layout.share, dirs_exist_ok=True)
    layout.receipt(label).write_text(json.dumps({"files": []}))
    site = layout.prefix / "lib/python3.11/site-packages"
    (site / "barehub/lifecycle").mkdir(parents=True, exist_ok=True)
    (site / "barehub/lifecycle/rollback.py").touch()
    if schema:
        scripts = Path(orm.__file__).parent / "alembic"
        there = site / "jupyterhub/alembic"
        shutil.copytree(scripts, there, ignore=shutil.ignore_patterns("__pycache__"))
        keep_history_until(there / "versions", schema)
    return layout


def keep_history_until(versions: Path, head: str) -> None:
    """Remove the migrations that came after `head`."""
    later = {head}
    while True:
        found = [
            path
            for path in versions.glob("*.py")
            if any(f"down_revision = {q}{one}{q}" in path.read_text() for one in later for q in "'\"")
        ]
        if not found:
            return
        later = {path.name.partition("_")[0] for path in found}
        for path in found:
            path.unlink()


def make_active(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Install a release with its own hooks, as its interpreter would."""
    belongs_to(layout, monkeypatch)
    install(layout, Request(layout.prefix.name, bind_url="http://:8080"), say=lambda _: None)
    settings = Settings.load(layout)
    assert settings
    return Installation(layout, settings)


# What an older release's python sees: its own prefix, its own JupyterHub's schema, this test's root.
OLDER_INSTALL = """
from functools import partial
from pathlib import Path
import jupyterhub.dbutil
from barehub import cli
sys.prefix, sys.executable = {prefix!r}, {worker!r}
jupyterhub.dbutil.ALEMBIC_DIR = {scripts!r}
cli.Layout = partial(cli.Layout, root=Path({root!r}))
sys.exit(cli.main(sys.argv[1:]))
"""


def make_upgradable(
    layout: Layout, directory: Path, monkeypatch: pytest.MonkeyPatch, schema: str | None = None
) -> Installation:
    """An installation whose active release is OLD, with data of this schema, beside NEW, whose code this is."""
    make_release(layout, NEW)
    old = make_active(make_release(layout, OLD, schema), monkeypatch)
    belongs_to(layout, monkeypatch)
    monkeypatch.setattr(sys, "executable", worker(directory / "worker"))
    make_database(own_database(layout, schema), schema)
    return old


def make_upgraded(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An installation whose active release is NEW, beside OLD with its schema, whose own hooks can run. No data yet."""
    old, new = make_release(layout, OLD, OLD_SCHEMA), make_release(layout, NEW, newest_revision())
    program = worker(tmp_path / "worker")
    scripts = str(next(old.prefix.glob("lib/python3*/site-packages/jupyterhub/alembic")))
    details = {"prefix": str(old.prefix), "worker": program, "scripts": scripts, "root": str(layout.root)}
    interpreter(old.prefix / "bin/python", OLDER_INSTALL.format(**details))
    monkeypatch.setattr(sys, "executable", program)
    make_active(new, monkeypatch)
    return new


def belongs_to(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this interpreter be the release's."""
    monkeypatch.setenv("BAREHUB_BASE", str(layout.base))
    monkeypatch.setattr(sys, "prefix", str(layout.prefix))


@functools.cache
def database_template(schema: str | None) -> bytes:
    """A hub's database with this schema, by default the newest, made once by the real migrations."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "template.sqlite"
        orm.new_session_factory(f"sqlite:///{path}")
        if schema:
            database_worker.downgrade(f"sqlite:///{path}", schema)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("insert into users (id, name, admin, cookie_id) values (1, 'alice', 0, 'x')")
        return path.read_bytes()


def make_database(path: Path, schema: str | None = OLD_SCHEMA) -> Path:
    """A database with that schema, None for the newest, and a user in it."""
    path.write_bytes(database_template(schema))
    return path


def add_user(path: Path, number: int, name: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        values = (number, name, 0, str(number))
        connection.execute("insert into users (id, name, admin, cookie_id) values (?, ?, ?, ?)", values)


def users(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("select name from users")]


def refusal(work: Callable[[], object]) -> str:
    """What a configuration is refused with: one line, and what to do."""
    with pytest.raises(ConfigError) as caught:
        work()
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    return str(caught.value)


def interpreter(path: Path, code: str) -> Path:
    """A program that stands in for a release's `python -I -m MODULE`: this one, with this tree and `code` in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    script = path.with_name(f"{path.name}.py")
    script.write_text(f"import sys\nsys.path.insert(0, {str(POST_INSTALL)!r})\nsys.argv[:4] = sys.argv[3:4]\n{code}\n")
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    path.chmod(0o755)
    return path


def worker(directory: Path) -> str:
    """An interpreter that runs the database worker of this tree, which `python -I` does not see."""
    code = "from barehub.lifecycle.database_worker import main\nsys.exit(main())"
    return str(interpreter(directory / "worker", code))


def forked_worker(user: str, *argv: str | Path, text: str) -> subprocess.CompletedProcess[str]:
    """In place of `attempt_as`: the database worker in a child that need not import what it works with.

    That takes longer than the work. Another program is started as ever.
    """
    if "barehub.lifecycle.database_worker" not in argv:
        return attempt_as(user, *argv, text=text)

    def work() -> str:
        postgres.PROCESS["env"] = {**os.environ, "PGCLIENTENCODING": "UTF8"}
        printed, complaints = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints):
            sys.stdin = io.StringIO(text)
            code = int(database_worker.main())
        return json.dumps([code, printed.getvalue(), complaints.getvalue()])

    answer = call_as(user, work, {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, 600)
    code, printed, complaints = json.loads(answer) if answer else (-signal.SIGKILL, "", "")
    return subprocess.CompletedProcess(argv, code, printed, complaints)


def fake_command(directory: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a shell script on PATH; each call's arguments become a line of the file that is returned."""
    directory.mkdir(exist_ok=True)
    calls = directory / f"{name}.calls"
    calls.touch()
    (directory / name).write_text(f'#!/bin/sh\necho "$*" >>{calls}\n{script}\n')
    (directory / name).chmod(0o755)
    if str(directory) not in os.environ["PATH"].split(os.pathsep):
        monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
    return calls


@contextlib.contextmanager
def answering(pages: Mapping[str, Any]) -> Iterator[int]:
    """A server on a loopback port that answers GETs for these paths, with JSON, and others with 404.

    Of a list of answers each is given once, the last one for ever.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            if isinstance(page, list):
                page = page.pop(0) if len(page) > 1 else page[0]
            body = json.dumps(page).encode()
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
