"""The post-install hooks: from a filled release prefix to a running hub. Safe to run twice.

The installer's shell header runs this with the new release's own interpreter, BASE locked, and the release complete.
Every step leaves a state, named by its verb; one that finds it so already changes nothing.
"""

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

    Raises UserError; then what was active before is active, with its settings and database, and running if it ran.
    """
    if not layout.receipt(request.release).is_file():
        raise UserError(f"{layout.release(request.release)} is not complete", "run its installer again", HOOK)
    before = Settings.load(layout)
    settings = choose_settings(before, request)
    managed = systemd.systemd_runs(layout)
    if managed:
        systemd.require_no_foreign_units(layout, settings)
        if settings.proxy_user == accounts.own_account(settings.name) and accounts.create_account(settings.proxy_user):
            settings = replace(settings, created_account=settings.proxy_user)
            say(f"made the account {settings.proxy_user}")

    undo = Undo(layout, before, managed)
    try:
        settings.save(layout)
        ensure_directories(layout, settings)
        reconfigured = write_installer_config(layout, request, first=before is None, say=say)
        hub = load_hub(layout)
        endpoints = Endpoints.of(hub)
        undo.migration = migration = Migration.plan(layout, settings, hub)
        undo.touched = True
        if migration.needed:
            migrate(migration, undo.previous, managed, say)
        changed = systemd.write_units(layout, settings)
        switch(layout, request.release)
        relabel(layout)
        if managed:
            if systemd.link_units(layout, settings):
                say(f"copied the units to {layout.system_units}: {layout.base} is on a file system of its own")
            if request.start:
                otherwise = request.restart or reconfigured or before != settings
                start(layout, settings, undo.previous, changed, otherwise=otherwise)
                wait_until_healthy(settings, endpoints, say=say)
    except BaseException as error:  # Ctrl-C and signals too
        undo(say)
        if isinstance(error, OSError):
            raise UserError(str(error), "mend that, then run the installer again", HOOK) from error
        raise
    last_words(layout, settings, endpoints, running=managed and request.start, say=say)


def choose_settings(before: Settings | None, request: Request) -> Settings:
    """The settings of this run: what was asked for, else what was chosen before, else the defaults."""
    settings = before or Settings()
    asked = {key: value for key in ("name", "hub_user", "proxy_user") if (value := getattr(request, key))}
    if before and asked.get("name", before.name) != before.name:
        raise UserError(f"this barehub is named {before.name}", "leave out --name, or uninstall it first", USAGE)
    if os.geteuid() != 0:
        me = accounts.current_user()
        if {asked.get("hub_user", me), asked.get("proxy_user", me)} != {me}:
            raise UserError("only root can run hub and proxy as other accounts", "run this as root", USAGE)
        asked |= {"hub_user": me, "proxy_user": me}
    settings = replace(settings, **asked)
    if not settings.proxy_user:
        settings = replace(settings, proxy_user=accounts.choose_proxy_user(settings.name))
    return settings


def migrate(migration: Migration, previous: str | None, managed: bool, say: Say) -> None:
    """Migrate the database with the hub stopped, after a backup. Users' servers and the proxy go on."""
    if managed:
        say("stopping the hub for its database; users' servers and the proxy go on")
        output("systemctl", "stop", migration.settings.hub_unit)
    say(f"backed up the database to {migration.back_up(previous or 'unknown')}")
    migration.migrate()
    say("migrated the database")


class Undo:
    """What a run may have to put back: settings, units, database and the active release as they were before it."""

    def __init__(self, layout: Layout, before: Settings | None, managed: bool) -> None:
        self.layout = layout
        self.before = before
        self.managed = managed
        self.previous = layout.active
        self.migration: Migration | None = None
        self.touched = False  # whether services may have been stopped or restarted
        self.proxy = self.proxy_invocation()
        kept = (layout.record, layout.installer_config, *layout.units.glob("*.*"))
        self.files = {path: path.read_text() for path in kept if path.is_file()}

    def __call__(self, say: Say) -> None:
        """Put it back. After a failed first install there is nothing to go back to; the next run repairs it."""
        layout = self.layout
        if not (self.before and self.previous):
            return
        for path, text in self.files.items():
            write_atomically(path, text)
        if layout.installer_config not in self.files:
            layout.installer_config.unlink(missing_ok=True)
        ensure_directories(layout, self.before)
        if not self.touched:
            return
        say(f"going back to {self.previous}")
        if self.managed:
            attempt("systemctl", "stop", self.before.hub_unit)
        if self.migration:
            self.migration.undo()
        switch(layout, self.previous)
        if self.managed:
            attempt("systemctl", "daemon-reload")
            attempt("systemctl", "start", self.before.hub_unit)
            if self.proxy_invocation() != self.proxy:  # else it still is what it was, with its open connections
                attempt("systemctl", "restart", self.before.proxy_unit)

    def proxy_invocation(self) -> str:
        """Which run of the proxy's unit this is (systemd.exec(5), INVOCATION_ID)."""
        return systemd.property_of(self.before.proxy_unit, "InvocationID") if self.managed and self.before else ""


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
    # Files of an account that was chosen before.
    for path in layout.hub_state.iterdir():
        accounts.give(path, *hub)
    for path in layout.acme.iterdir():
        accounts.give(path, *proxy)
    accounts.give(layout.rules_file, hub[0], proxy[1])


def write_installer_config(layout: Layout, request: Request, *, first: bool, say: Say) -> bool:
    """Write what the options set into a readable file, and on the first install other internal ports if taken.

    Returns True if that changed something.
    """
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
        return False
    path = layout.installer_config
    text = path.read_text() if path.exists() else "# Written by the installer from its options; yours to change.\n"
    for trait, value in lines.items():
        line = f"{trait} = {json.dumps(value)}"
        text, found = re.subn(rf"^{re.escape(trait)} *=.*$", lambda _, line=line: line, text, flags=re.MULTILINE)
        text += "" if found else f"{line}\n"
    if changed := write_atomically(path, text):
        say(f"wrote {path}")
    return changed


def port_is_free(port: int) -> bool:
    """True if a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is in TIME_WAIT does not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


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


def start(layout: Layout, settings: Settings, previous: str | None, changed: list[str], *, otherwise: bool) -> None:
    """Have both services running what is installed now; what ran already is restarted only if it has changed.

    `previous` is the release that was active, `changed` are the units that were rewritten, `otherwise` stands for
    everything else that both depend on.
    """
    output("systemctl", "start", settings.target)
    if previous is None:
        return
    switched = previous != layout.active
    other_proxy = switched and proxy_packages(layout.release(previous)) != proxy_packages(layout.hub)
    if settings.proxy_unit in changed or other_proxy or otherwise:
        output("systemctl", "restart", settings.proxy_unit)
    if settings.hub_unit in changed or switched or otherwise:
        output("systemctl", "restart", settings.hub_unit)


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
