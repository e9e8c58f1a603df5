"""`barehub rollback`: go back to an older release that is still installed, with the database it had.

The data are put where the older release expects them, while the hub goes on if that is another place; then that
release's own hooks do the switch, as for any release, and an error in them leads back here.
"""

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from barehub import systemd
from barehub.errors import Exit, UserError, printable
from barehub.evaluation import evaluate
from barehub.health import Endpoints, answer
from barehub.layout import Layout, release_key
from barehub.lifecycle import safe_ports
from barehub.lifecycle.database import asked, newest_revision, opened, own_database, run_as_hub_user, servers_in
from barehub.lifecycle.database_urls import can_dump, without_password
from barehub.lifecycle.migration import Migration
from barehub.lifecycle.options import trying_lines
from barehub.lifecycle.ports import HUB
from barehub.lifecycle.servers import Api, read_token, wait_for_starting
from barehub.listeners import Owner
from barehub.process import locked, run_to_its_end, signals_later
from barehub.settings import Installation
from barehub.untrusted import parse_json


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

    Raises UserError if there is none, if its database is not available, or if it does not come up: then nothing
    changed.
    """
    installation = Installation.load(layout, fix="nothing was changed")
    with locked(layout.base):
        active = layout.active or ""
        label = choose(layout, label)
        found = evaluate(layout, installation.settings)
        migration = Migration.plan(installation, found.db_url, active, active)
        schema = plan_data(installation, migration, label)
        backup = migration.backup_of(label)
        say(f"this goes back from {active} to {label}")
        if schema:
            say(f"  the database becomes the backup {backup}")
            for loss in losses_of(migration, backup):
                say(f"  lost: {printable(loss)}")
        lines: dict[str, Any] = {}
        if safe_ports.must_go_back(installation, label, found.endpoints):
            lines = {HUB: None}  # where it was before safe ports
            say("  lost: the hub's port, and with it the servers that run now; stop them first")
        if not sure and ask("go back? [no] ").strip().lower() not in ("y", "yes"):
            raise UserError("nothing was changed", "answer yes, or give -y", Exit.USAGE)
        words = [f"{layout.release(label)}/bin/python", "-I", "-m", "barehub", "install", f"--base={layout.base}"]
        if migration.target_file is None:
            words.append("--no-db-backup")  # it is the data of the newer release that would be dumped
        data = restored_data(installation, migration, schema, backup, found.endpoints, wait, say)
        with data, trying_lines(layout.installer_config, lines, say), config_as_closed(layout):
            if code := run_to_its_end(*words, f"--release={label}", f"--wait={wait}"):
                raise UserError(f"{label} did not come up", f"{active} is active as before; see above", code)


@contextlib.contextmanager
def config_as_closed(layout: Layout) -> Iterator[None]:
    """Keep the mode and group of the configuration's directory: older releases open it to everybody."""
    before = layout.config.stat()
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.chown(layout.config, -1, before.st_gid)
            layout.config.chmod(stat.S_IMODE(before.st_mode))


@contextlib.contextmanager
def restored_data(
    installation: Installation,
    migration: Migration,
    schema: str | None,
    backup: Path,
    endpoints: Endpoints,
    wait: float,
    say: Callable[[str], None],
) -> Iterator[None]:
    """Put the backup where the older release expects its data, which have `schema`; do nothing if that is None.

    After an error the data are as they were. They go beside the data in use, if that can be. A database of the
    administrator's choice has one place for both releases, so the hub is stopped first, and what was in it is kept in
    backups/.
    """
    layout, settings = installation.layout, installation.settings
    hub = Owner.of_hub(settings)
    if schema is None:
        yield
        return
    in_place = migration.target_file != own_database(layout)
    beside = own_database(layout, schema)
    kept = migration.backup_of(f"{layout.active}-rolled-back")
    managed = systemd.systemd_runs(layout)
    if in_place and managed:
        wait_for_starting(layout, Api(endpoints.api, read_token(layout), hub), wait, say)
        say("stopping the hub for a moment; users' servers and the proxy go on")
    elif in_place and answer(endpoints.hub, hub):
        raise UserError("the hub runs, and not under systemd", "stop it, then run this again", Exit.HOOK)
    is_kept = False
    try:
        if in_place:
            if managed:
                systemd.control("stop", settings.hub_unit)
            migration.save(kept)
            is_kept = True
            say(f"the database as it is now is kept as {kept}")
            migration.put_back(backup)
        else:
            run_as_hub_user(settings, "copy", source=str(backup), target=str(beside))
        yield
    except BaseException:
        with signals_later():
            if in_place and managed:
                systemd.try_control("stop", settings.hub_unit)
            if is_kept:
                migration.put_back(kept)
            elif not in_place:
                beside.unlink(missing_ok=True)
            if in_place and managed:
                systemd.try_control("start", settings.hub_unit)
        raise


def choose(layout: Layout, label: str | None) -> str:
    """Return the release to go back to. Raises UserError if it is not installed or not older."""
    active = layout.active
    older = [one for one in layout.complete if release_key(one) < release_key(active or "")]
    if label is None:
        if not older:
            raise UserError(f"there is no release before {active}", f"ls {layout.releases}", Exit.USAGE)
        return older[-1]
    if label == active:
        raise UserError(f"{label} is the active release", "name an older one", Exit.USAGE)
    if label not in layout.complete:
        raise UserError(f"there is no release {label}", f"choose one of: {', '.join(layout.complete)}", Exit.USAGE)
    if label not in older:
        raise UserError(f"{label} is newer than {active}", "run its installer with -u", Exit.USAGE)
    return label


def plan_data(installation: Installation, migration: Migration, label: str) -> str | None:
    """Return the schema of the backup that release `label` needs as its data; None if it can use the present ones.

    Raises UserError if there is no backup for it.
    """
    layout = installation.layout
    package = next(layout.release(label).glob("lib/python3*/site-packages/barehub"))
    if not any(package.rglob(Path(__file__).name)):
        raise UserError(f"{label} is from before rollbacks", "choose another release", Exit.USAGE)
    needs = newest_revision(package.parent / "jupyterhub/alembic")
    if migration.have in (None, needs):
        return None
    backup = migration.backup_of(label)
    if migration.target_file is None and not (can_dump(migration.target) and backup.exists()):
        what = (
            f"the database at {without_password(migration.target)} has schema {migration.have}, {label} needs {needs}"
        )
        raise UserError(
            what, "stop the hub, restore your backup from before the upgrade, then run this again", Exit.HOOK
        )
    if migration.schema_of(backup) != needs:
        what = f"there is no backup of the database as {label} left it"
        raise UserError(what, f"put one at {backup} (schema {needs}), then run this again", Exit.HOOK)
    return needs


def losses_of(migration: Migration, backup: Path) -> list[str]:
    """Return what the data have that an older backup of them lacks."""
    settings = migration.installation.settings
    if file := migration.target_file:
        return [str(one) for one in asked(settings, losses, file, backup)]
    told = run_as_hub_user(settings, "print_losses", url=migration.target, source=str(backup))
    return [str(one) for one in parse_json(told, backup)]


def losses(now: Path, then: Path) -> list[str]:
    """Return what a SQLite database has that an older backup of it lacks."""
    with opened(now) as new, opened(then) as old:
        return lost_between(new, old)


def lost_between(new: sqlite3.Connection, old: sqlite3.Connection) -> list[str]:
    """Return what the newer content of a database has that the older one lacks."""

    # Columns that every schema since JupyterHub 1 has.
    def since(query: str) -> list[str]:
        return sorted({row[0] for row in new.execute(query)} - {row[0] for row in old.execute(query)})

    found = {
        "users": since("select name from users"),
        "groups": since("select name from groups"),
        "running servers, which the hub forgets": sorted({*servers_in(new)} - {*servers_in(old)}),
    }
    tokens = since(
        "select hashed from api_tokens "
        "where service_id is null or service_id not in (select id from services where name = 'barehub')"
    )
    lines = [f"{what}: {', '.join(printable(one, keep='') for one in names)}" for what, names in found.items() if names]
    return lines + ([f"tokens: {len(tokens)}, so some users log in again"] if tokens else [])
