"""The post-install hooks: from a filled release prefix to a running hub. Safe to run twice.

The installer's shell header runs this with the new release's own interpreter, BASE locked, and the release complete.
Every step leaves a state, named by its verb; one that finds it so already changes nothing.
"""

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from barehub import accounts, systemd
from barehub.accounts import ensure_directory
from barehub.config import load_hub
from barehub.database import Migration
from barehub.errors import HOOK, USAGE, UserError
from barehub.health import Endpoints, wait_until_healthy
from barehub.layout import Layout
from barehub.process import attempt, output, sync_directory, write_atomically
from barehub.settings import Settings

Say = Callable[[str], None]

INTERNAL_PORTS = {
    "hub_port": 8081,
    "traefik_api_url": 8099,
}  # JupyterHub's and jupyterhub-traefik-proxy's defaults


@dataclass(frozen=True)
class Request:
    """What the installer was asked for. None means: as before, or the default."""

    release: str
    name: str | None = None
    hub_user: str | None = None
    proxy_user: str | None = None
    bind_url: str | None = None
    start: bool = True
    restart: bool = False  # the release's files were replaced (-f)


def install(layout: Layout, request: Request, say: Say) -> None:
    """Make `request.release` the active release of `layout.base` and, where systemd runs, start it.

    Raises UserError; then the release that was active before is active, and running if it ran.
    """
    if not layout.receipt(request.release).is_file():
        raise UserError(f"{layout.release(request.release)} is not complete", "run its installer again", HOOK)
    before = Settings.load(layout)
    settings = choose_settings(layout, before, request)
    managed = systemd.systemd_runs(layout)
    if managed:
        systemd.require_no_foreign_units(layout, settings)
        if settings.created_user and accounts.create_account(settings.proxy_user):
            say(f"made the account {settings.proxy_user}")

    ensure_directories(layout, settings)
    settings.save(layout)
    write_installer_config(layout, request, first=before is None, say=say)
    hub = load_hub(layout)
    migration = Migration.plan(layout, settings, hub)
    previous = layout.active

    with stopped_hub(settings, managed and migration.needed, say), undoable(layout, migration, previous, say):
        if migration.needed:
            say(f"backed up the database to {migration.backup(previous or 'unknown')}")
            migration.migrate()
            say("migrated the database")
        changed = systemd.write_units(layout, settings)
        switch(layout, request.release)
        relabel(layout)
        if managed:
            if systemd.link_units(layout, settings):
                say(f"copied the units to {layout.system_units}: {layout.base} is on a file system of its own")
            if before and before.name != settings.name:
                systemd.unlink_units(layout, before)
            if request.start:
                switched = previous != request.release or request.restart or before != settings
                start(layout, settings, previous, changed, switched=switched)
                wait_until_healthy(settings, Endpoints.of(hub), say=say)
    last_words(layout, settings, Endpoints.of(hub), running=managed and request.start, say=say)


def choose_settings(layout: Layout, before: Settings | None, request: Request) -> Settings:
    """The settings of this run: what was asked for, else what was chosen before, else the defaults."""
    settings = before or Settings()
    asked = {key: value for key in ("name", "hub_user", "proxy_user") if (value := getattr(request, key))}
    if os.geteuid() != 0:
        me = accounts.current_user()
        if {asked.get("hub_user", me), asked.get("proxy_user", me)} != {me}:
            raise UserError("only root can run hub and proxy as other accounts", "run this as root", USAGE)
        asked |= {"hub_user": me, "proxy_user": me}
    settings = replace(settings, **asked)
    if not settings.proxy_user:
        settings = replace(settings, proxy_user=accounts.choose_proxy_user(settings.name))
    if settings.proxy_user == accounts.own_account(settings.name):
        settings = replace(settings, created_user=settings.created_user or not accounts.exists(settings.proxy_user))
    return settings


def ensure_directories(layout: Layout, settings: Settings) -> None:
    """Have every directory, with the owner and mode that lets hub and proxy do their work and nobody else look in."""
    root = (os.geteuid(), os.getegid())
    hub = accounts.ids(settings.hub_user)
    # Without systemd the account may not be there yet; its directories are given to it when it is.
    proxy = accounts.ids(settings.proxy_user) if accounts.exists(settings.proxy_user) else root
    for path, mode, (uid, gid) in (
        (layout.config, 0o755, root),
        (layout.units, 0o755, root),
        (layout.state, 0o755, root),
        (layout.hub_state, 0o700, hub),
        (
            layout.rules,
            0o2750,
            (hub[0], proxy[1]),
        ),  # setgid: what the hub writes there, the proxy's group can read
        (layout.rules_staging, 0o2750, (hub[0], proxy[1])),
        (layout.proxy_state, 0o750, (root[0], proxy[1])),
        (layout.acme, 0o700, proxy),
    ):
        ensure_directory(path, mode, uid, gid)
    for path in layout.hub_state.iterdir():
        accounts.give(path, *hub)


def write_installer_config(layout: Layout, request: Request, *, first: bool, say: Say) -> None:
    """Write what the options set into a readable file, and on the first install other internal ports if taken."""
    lines = {}
    if request.bind_url:
        lines["c.JupyterHub.bind_url"] = request.bind_url
    if first:
        taken = {key: port for key, port in INTERNAL_PORTS.items() if not port_is_free(port)}
        for key, port in taken.items():
            free = next(other for other in range(port + 1, port + 1000) if port_is_free(other))
            say(f"port {port} is taken on 127.0.0.1; using {free} instead")
            if key == "hub_port":
                lines["c.JupyterHub.hub_port"] = free
            else:
                lines["c.TraefikProxy.traefik_api_url"] = f"http://127.0.0.1:{free}"
    if not lines:
        return
    path = layout.installer_config
    text = path.read_text() if path.exists() else "# Written by the installer from its options; yours to change.\n"
    for trait, value in lines.items():
        line = f"{trait} = {json.dumps(value)}"
        text, found = re.subn(rf"^{re.escape(trait)} *=.*$", lambda _, line=line: line, text, flags=re.MULTILINE)
        text += "" if found else f"{line}\n"
    if write_atomically(path, text):
        say(f"wrote {path}")


def port_is_free(port: int) -> bool:
    """True if a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is in TIME_WAIT does not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def stopped_hub(settings: Settings, needed: bool, say: Say):
    """Keep the hub stopped meanwhile, if needed; users' servers and the proxy go on."""
    if needed:
        say("stopping the hub for the database; users' servers and the proxy go on")
        output("systemctl", "stop", settings.hub_unit)
    yield


@contextlib.contextmanager
def undoable(layout: Layout, migration: Migration, previous: str | None, say: Say):
    """If the new release does not come up, go back to the previous one, its database and its units."""
    units = {path: path.read_text() for path in layout.units.glob("*")}
    try:
        yield
    except (UserError, OSError) as error:
        if not previous or previous == layout.prefix.name:
            raise
        say(f"going back to {previous}")
        settings = migration.settings
        managed = systemd.systemd_runs(layout)
        if managed:
            attempt("systemctl", "stop", settings.hub_unit)
        backup = layout.backups / f"jupyterhub-{previous}.sqlite"
        if migration.needed and backup.exists():
            migration.restore(backup)
        switch(layout, previous)
        for path, text in units.items():
            write_atomically(path, text)
        if managed:
            attempt("systemctl", "daemon-reload")
            attempt("systemctl", "start", settings.hub_unit)
            attempt("systemctl", "restart", settings.proxy_unit)
        if isinstance(error, OSError):
            raise UserError(str(error), "mend that, then run the installer again", HOOK) from error
        raise


def switch(layout: Layout, release: str) -> None:
    """Make `release` the active one. Readers see the old or the new, never neither."""
    if layout.active == release:
        return
    staged = layout.base / ".hub.new"
    staged.unlink(missing_ok=True)
    staged.symlink_to(layout.release(release).relative_to(layout.base))
    staged.replace(layout.hub)
    sync_directory(layout.base)


def relabel(layout: Layout) -> None:
    """Give the files their SELinux types where there is SELinux; systemd cannot run mislabelled ones."""
    if shutil.which("restorecon"):
        attempt("restorecon", "-RF", layout.base)


def start(layout: Layout, settings: Settings, previous: str | None, changed: list[str], *, switched: bool) -> None:
    """Have both services running what is installed now, and restart only what has changed."""
    output("systemctl", "start", settings.target)
    if previous is None:
        return
    if switched or settings.hub_unit in changed:
        output("systemctl", "restart", settings.hub_unit)
    if settings.proxy_unit in changed or (switched and proxy_differs(layout, previous)):
        output("systemctl", "restart", settings.proxy_unit)


def proxy_differs(layout: Layout, previous: str) -> bool:
    """True if what the proxy's unit runs is not the same in both releases."""
    return proxy_packages(layout.release(previous)) != proxy_packages(layout.hub) or previous == layout.active


def proxy_packages(prefix: Path) -> set[str]:
    """name-version-build of the packages that the proxy's unit runs."""
    return {
        path.name
        for path in (prefix / "conda-meta").glob("*.json")
        if re.match(r"(traefik|barehub|python)-\d", path.name)
    }


def last_words(layout: Layout, settings: Settings, endpoints: Endpoints, *, running: bool, say: Say) -> None:
    """What an administrator wants to know next."""
    url = endpoints.public.replace("127.0.0.1", socket.gethostname(), 1)
    say("")
    if running:
        say(f"barehub {layout.active} is running at {url}")
    elif systemd.systemd_runs(layout):
        say(f"barehub {layout.active} is installed; it was not started")
        say(f"  start   systemctl start {settings.target}")
    else:
        say(f"barehub {layout.active} is installed; nothing was started, since systemd or root is missing here")
        say(f"  start   {layout.hub}/bin/barehub run      in the foreground, then it answers at {url}")
    say("  log in  nobody can, before an authenticator allows somebody: for instance")
    say(f"          {layout.hub}/share/barehub/examples/50-pam-users.py")
    say(f"  config  {layout.config}/*.py, then: systemctl restart {settings.hub_unit}")
    say(f"  logs    journalctl -u {settings.hub_unit} -u {settings.proxy_unit}")
    say(f"  health  {layout.hub}/bin/barehub status")
