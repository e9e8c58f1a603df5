"""`barehub rollback`: back to a release that is still there, with the database it had.

The data are put where the older release looks for them while the hub goes on; then that release's own hooks do the
switch, as for any release, and what fails in them leads back here.
"""

import contextlib
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

from barehub.config import load_hub
from barehub.errors import BASE, HOOK, USAGE, UserError
from barehub.layout import Layout, age
from barehub.lifecycle.database import (
    Move,
    newest_revision,
    order,
    own_database,
    revision,
    running_servers,
    sqlite_file,
    without_password,
)
from barehub.process import locked
from barehub.settings import Settings


def rollback(
    layout: Layout,
    label: str | None,
    *,
    sure: bool,
    wait: float,
    ask: Callable[[str], str],
    say: Callable[[str], None],
) -> None:
    """Make the older release `label`, by default the newest of them, the active one. Asks first unless `sure`.

    Raises UserError if there is none, if its database cannot be had, or if it does not come up: then nothing changed.
    """
    settings = Settings.load(layout)
    if settings is None:
        raise UserError(f"{layout.base} holds no barehub", "nothing was changed", BASE)
    with locked(layout.base):
        label = choose(layout, label)
        move = Move.plan(layout, settings, load_hub(layout), layout.active, layout.active)
        restored = plan_data(layout, move, label)
        say(f"this goes back from {layout.active} to {label}")
        if restored:
            say(f"  the database becomes the backup {layout.backup(label)}")
            for what in losses(sqlite_file(move.target, layout), layout.backup(label)):
                say(f"  lost: {what}")
        if not sure and ask("go back? [no] ").strip().lower() not in ("y", "yes"):
            raise UserError("nothing was changed", "answer yes, or give -y", USAGE)
        if restored:  # beside the one in use
            order(settings, "copy", source=str(layout.backup(label)), target=str(restored))
        words = [f"{layout.release(label)}/bin/python", "-I", "-m", "barehub", "install", f"--base={layout.base}"]
        if code := run(*words, f"--release={label}", f"--wait={wait}"):
            if restored:
                restored.unlink(missing_ok=True)
            raise UserError(f"{label} did not come up", f"{layout.active} is active as before; see above", code)


def choose(layout: Layout, label: str | None) -> str:
    """The release to go back to. Raises UserError if it is not there or not older."""
    active = layout.active
    older = [one for one in layout.complete if age(one) < age(active or "")]
    if label is None:
        if not older:
            raise UserError(f"there is no release before {active}", f"ls {layout.releases}", USAGE)
        return older[-1]
    if label == active:
        raise UserError(f"{label} is the active release", "name another one", USAGE)
    if label not in layout.complete:
        raise UserError(f"there is no release {label}", f"those are there: {', '.join(layout.complete)}", USAGE)
    if label not in older:
        raise UserError(f"{label} is newer than {active}", "run its installer with -u", USAGE)
    return label


def plan_data(layout: Layout, move: Move, label: str) -> Path | None:
    """Where the backup of the database must be put for release `label`; None if it can use ours as it is.

    Raises UserError if there is no backup for it.
    """
    package = next(layout.release(label).glob("lib/python3*/site-packages/barehub"))
    if not any(package.rglob(Path(__file__).name)):
        raise UserError(f"{label} is from before rollbacks", "choose another release", USAGE)
    needs = newest_revision(package.parent / "jupyterhub/alembic")
    if move.have in (None, needs):
        return None
    if sqlite_file(move.target, layout) != own_database(layout):
        what = f"the database at {without_password(move.target)} has schema {move.have}, {label} needs {needs}"
        raise UserError(what, "stop the hub, restore your copy of before the upgrade, then run this again", HOOK)
    backup = layout.backup(label)
    if revision(backup) != needs:
        what = f"there is no backup of the database as {label} left it"
        raise UserError(what, f"put one to {backup} (schema {needs}), then run this again", HOOK)
    return own_database(layout, needs)


def losses(now: Path, then: Path) -> list[str]:
    """What a database has that an older copy of it has not."""
    # Columns that every schema since JupyterHub 1 has.
    with contextlib.ExitStack() as stack:
        new, old = (
            stack.enter_context(contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)))
            for path in (now, then)
        )

        def since(query: str) -> list[str]:
            return sorted({row[0] for row in new.execute(query)} - {row[0] for row in old.execute(query)})

        found = {
            "users": since("select name from users"),
            "groups": since("select name from groups"),
            "running servers, which the hub forgets": sorted(running_servers(now) - running_servers(then)),
        }
        tokens = since(
            "select hashed from api_tokens "
            "where service_id is null or service_id not in (select id from services where name = 'barehub')"
        )
    lines = [f"{what}: {', '.join(names)}" for what, names in found.items() if names]
    return lines + ([f"tokens: {len(tokens)}, so some people log in again"] if tokens else [])


def run(*words: str) -> int:
    """Run a program that ends in its own orderly way when we are told to end; return its exit status."""
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, cwd="/")
    try:
        return child.wait()
    except BaseException:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
