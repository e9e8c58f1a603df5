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
from typing import Any

from barehub import accounts, systemd
from barehub.accounts import ensure_directory
from barehub.config import load_hub
from barehub.errors import HOOK, USAGE, UserError
from barehub.health import Endpoints, answer, wait_until_healthy
from barehub.layout import Layout, age
from barehub.lifecycle.added_packages import name_added
from barehub.lifecycle.database import Move, newest_revision
from barehub.lifecycle.releases import proxy_differs, remove_older, switch
from barehub.lifecycle.servers import Api, ForgottenError, Server, ensure_token, wait_for_starting, wait_until_known
from barehub.process import attempt, output, write_atomically
from barehub.proxy_unit.certificates import examine
from barehub.proxy_unit.renewal import Source
from barehub.settings import Settings

Say = Callable[[str], None]

KNOWN_SECONDS = 60  # for a new hub to find the servers that run

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
    tls_cert: str | None = None
    tls_key: str | None = None
    acme_email: str | None = None
    acme_ca_server: str | None = None
    acme_ca_bundle: str | None = None
    start: bool = True
    restart: bool = False  # the release's files were replaced (-f)
    wait: float = 60  # seconds for servers that are just starting, before an upgrade
    keep: int = 2  # releases that stay after an upgrade, the active one among them
    back_up: bool = True  # False: a database that we cannot copy has been backed up
    same_packages: bool = False  # refuse an upgrade that would lose packages added by hand


def install(layout: Layout, request: Request, say: Say) -> None:
    """Make `request.release` the active release of `layout.base` and, where systemd runs, start it.

    Raises UserError; then what was active before is active, with its settings and database, and running if it ran.
    """
    if not layout.receipt(request.release).is_file():
        raise UserError(f"{layout.release(request.release)} is not complete", "run its installer again", HOOK)
    before = Settings.load(layout)
    settings = choose_settings(before, request)
    if request.tls_cert and request.tls_key:
        examine(*Source(request.tls_cert, request.tls_key).read(), ())
    managed = systemd.systemd_runs(layout)
    if managed:
        systemd.require_no_foreign_units(layout, settings)
        if settings.proxy_user == accounts.own_account(settings.name) and accounts.create_account(settings.proxy_user):
            settings = replace(settings, created_account=settings.proxy_user)
            say(f"made the account {settings.proxy_user}")

    undo = Undo(layout, before, managed)
    previous = undo.previous
    try:
        name_changes(before, settings, say)
        settings.save(layout)
        ensure_directories(layout, settings)
        reconfigured = write_installer_config(layout, request, first=before is None, say=say)
        if undo.switches(request) and previous in layout.complete:  # first: the configuration may need them
            name_added(layout.release(previous), layout.prefix, required=request.same_packages, say=say)
        hub = load_hub(layout)
        endpoints = Endpoints.of(hub)
        api = Api(endpoints.api, layout.api_token.read_text())
        undo.move = move = Move.plan(layout, settings, hub, request.release, previous)
        known = lay_to_rest(request, undo, endpoints, api, say) if move.needed or undo.switches(request) else []
        undo.touched = True
        if move.needed:
            move.carry_out()
            say(f"migrated the database to schema {newest_revision()}")
        changed = systemd.write_units(layout, settings)
        switch(layout, request.release)
        systemd.link_units(layout, settings)
        relabel(layout)
        if managed:
            if systemd.enable_units(layout, settings):
                say(f"copied the units to {layout.system_units}: {layout.base} is on a file system of its own")
            if request.start:
                otherwise = request.restart or reconfigured or before != settings
                start(layout, settings, previous, changed, otherwise=otherwise)
                wait_until_healthy(settings, endpoints, say=say)
                wait_until_known(api, known, seconds=KNOWN_SECONDS, say=say)
    except BaseException as error:  # Ctrl-C and signals too
        undo(say, spoilt=isinstance(error, ForgottenError))
        if isinstance(error, OSError):
            raise UserError(str(error), "mend that, then run the installer again", HOOK) from error
        raise
    move.finish()
    if previous and age(request.release) > age(previous):
        remove_older(layout, settings, previous, keep=request.keep, say=say)
    last_words(layout, settings, endpoints, previous, running=managed and request.start, say=say)


def lay_to_rest(request: Request, undo: "Undo", endpoints: Endpoints, api: Api, say: Say) -> list[Server]:
    """Back the data up, see that nobody's server is just starting, stop the hub, back up once more.

    Returns the servers that the next hub must know of. Raises UserError; the hub may be stopped then.
    """
    layout, move = undo.layout, undo.move
    label = undo.previous or f"before-{request.release}"
    # The first one, with the hub running, is to find out what might go wrong; the one at rest replaces it.
    if place := move.back_up(label, required=request.back_up):
        say(f"backed up the database to {place}")
    running: list[Server] | None = []
    if undo.managed and undo.previous:
        running = wait_for_starting(layout, api, request.wait, say)
        if running is None:
            say("the hub does not tell which servers run or start; going on")
        undo.touched = True
        say("stopping the hub for a moment; users' servers and the proxy go on")
        output("systemctl", "stop", move.settings.hub_unit)
    elif answer(endpoints.hub):
        raise UserError("the hub runs, and not under systemd", "stop it, then run this again", HOOK)
    undo.backup = move.back_up(label, required=request.back_up)
    remembered = move.remembered()
    return [server for server in running or [] if remembered is None or server.name in remembered]


def name_changes(before: Settings | None, settings: Settings, say: Say) -> None:
    """Say which options of the installation are other ones now."""
    for option in ("hub_user", "proxy_user"):
        old, new = getattr(before or settings, option), getattr(settings, option)
        if old != new:
            say(f"--{option.replace('_', '-')} was {old} and is {new} now")


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


class Undo:
    """What a run may have to put back: settings, units, database and the active release as they were before it."""

    def __init__(self, layout: Layout, before: Settings | None, managed: bool) -> None:
        self.layout = layout
        self.before = before
        self.managed = managed
        self.previous = layout.active
        self.move: Move | None = None
        self.backup: Path | None = None  # of the data at rest
        self.touched = False  # whether services may have been stopped or restarted
        self.proxy = self.proxy_invocation()
        kept = (layout.record, layout.installer_config, *layout.release_units.glob("*.*"), *layout.units.glob("*.*"))
        self.files = {path: path.read_text() for path in kept if path.is_file() and not path.is_symlink()}

    def __call__(self, say: Say, *, spoilt: bool) -> None:
        """Put it back. After a failed first install there is nothing to go back to; the next run repairs it.

        `spoilt` tells that the data may be changed for the worse, whatever their schema.
        """
        layout = self.layout
        if not (self.before and self.previous):
            return
        for path, text in self.files.items():
            if path.is_symlink():
                path.unlink()
            write_atomically(path, text)
        if layout.installer_config not in self.files:
            layout.installer_config.unlink(missing_ok=True)
        ensure_directories(layout, self.before)
        if not self.touched:
            return
        say(f"going back to {self.previous}")
        if self.managed:
            attempt("systemctl", "stop", self.before.hub_unit)
        switch(layout, self.previous)
        if self.move:
            self.move.undo(self.backup, spoilt=spoilt)
        if self.managed:
            systemd.enable_units(layout, self.before)
            attempt("systemctl", "start", self.before.hub_unit)
            if self.proxy_invocation() != self.proxy:  # else it still is what it was, with its open connections
                attempt("systemctl", "restart", self.before.proxy_unit)

    def switches(self, request: Request) -> bool:
        """True if another release than the requested one is active."""
        return self.previous not in (None, request.release)

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
    ensure_token(layout, *hub)
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
    lines: dict[str, Any] = {}  # None removes a line
    if request.bind_url:
        # All of them: where the certificate comes from is said anew with each address.
        lines["c.JupyterHub.bind_url"] = request.bind_url
        lines["c.JupyterHub.ssl_cert"], lines["c.JupyterHub.ssl_key"] = request.tls_cert, request.tls_key
        for option in ("acme_email", "acme_ca_server", "acme_ca_bundle"):
            lines[f"c.BarehubProxy.{option}"] = getattr(request, option)
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
        line = f"{trait} = {json.dumps(value)}\n" if value is not None else ""
        text, found = re.subn(rf"^{re.escape(trait)} *=.*\n?", lambda _, line=line: line, text, flags=re.MULTILINE)
        text += "" if found else line
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


def relabel(layout: Layout) -> None:
    """Give the files their SELinux types where there is SELinux; systemd cannot run mislabelled ones."""
    if shutil.which("restorecon"):
        attempt("restorecon", "-RF", layout.base)


def start(layout: Layout, settings: Settings, previous: str | None, changed: list[str], *, otherwise: bool) -> None:
    """Have both services running what is installed now; what ran already is restarted only if it has changed.

    `previous` is the release that was active, `changed` are the units that were rewritten, `otherwise` stands for
    everything else that both depend on.
    """
    if previous:
        switched = previous != layout.active
        other_proxy = switched and proxy_differs(layout.release(previous), layout.hub)
        if settings.proxy_unit in changed or other_proxy or otherwise:
            output("systemctl", "restart", settings.proxy_unit)
        if settings.hub_unit in changed or switched or otherwise:
            output("systemctl", "restart", settings.hub_unit)
    output("systemctl", "start", settings.target)


def last_words(
    layout: Layout, settings: Settings, endpoints: Endpoints, previous: str | None, *, running: bool, say: Say
) -> None:
    """What an administrator wants to know next."""
    url = endpoints.public.replace("127.0.0.1", socket.gethostname(), 1)
    what = f"{layout.distribution(layout.active)} {layout.active}"
    say("")
    if running:
        say(f"{what} is running at {url}")
    elif systemd.systemd_runs(layout):
        say(f"{what} is installed; it was not started")
        say(f"  start   systemctl start {settings.target}")
    else:
        say(f"{what} is installed; nothing was started, since systemd or root is missing here")
        say(f"  start   {layout.hub}/bin/barehub run      in the foreground, then it answers at {url}")
    if previous is None:
        say("  log in  nobody can, before an authenticator allows somebody: for instance")
        say(f"          {layout.hub}/share/barehub/examples/50-pam-users.py")
        say(f"  config  {layout.config}/*.py, then: systemctl restart {settings.hub_unit}")
    say(f"  logs    journalctl -u {settings.hub_unit} -u {settings.proxy_unit}")
    say(f"  health  {layout.hub}/bin/barehub status")
    if previous and age(previous) < age(layout.active):
        say(f"  back    {layout.hub}/bin/barehub rollback      to {previous}")
