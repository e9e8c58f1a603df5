"""The options of an install: what was asked for, what is used, and the configuration file they are written to."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from barehub import accounts
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.lifecycle import safe_ports
from barehub.lifecycle.ports import internal_lines
from barehub.process import signals_later, write_atomically
from barehub.settings import Settings

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What the installer was asked for. None means: as before, or the default.

    Each field is the argument of that name of `barehub install` (barehub.cli).
    """

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
    restore: str | None = None  # a backup to begin with
    start: bool = True
    restart: bool = False  # the release's files were replaced (-f)
    kept_channel: bool = False  # BASE/channel was written (-k)
    wait: float = 60  # seconds for servers that are still starting, before an upgrade
    keep: int = 2  # releases that stay after an upgrade, the active one included
    back_up: bool = True  # False: the administrator has backed up a database that we cannot copy
    same_packages: bool = False  # refuse an upgrade that would lose packages added by hand
    rehearse: bool = False  # try the upgrade, and leave nothing
    canary: str | None = None  # a user whose server has to start before the switch


def choose_settings(before: Settings | None, request: Request, *, shared_by_default: bool = False) -> Settings:
    """Return the settings of this run: what was asked for, else what was chosen before, else the defaults.

    `shared_by_default` tells that the active release chose www-data for the proxy by itself; it gets its own account
    then. Raises UserError if the name differs from that of the last install, or if it takes root to run as these
    accounts.
    """
    settings = before or Settings()
    asked = {key: value for key in ("name", "hub_user", "proxy_user") if (value := getattr(request, key))}
    if before and asked.get("name", before.name) != before.name:
        raise UserError(f"this barehub is named {before.name}", "leave out --name, or uninstall it first", Exit.USAGE)
    if os.geteuid() != 0:
        me = accounts.current_user()
        if {asked.get("hub_user", me), asked.get("proxy_user", me)} != {me}:
            raise UserError("only root can run hub and proxy as other accounts", "run this as root", Exit.USAGE)
        asked |= {"hub_user": me, "proxy_user": me}
    settings = replace(settings, **asked)
    moves = shared_by_default and settings.proxy_user == accounts.SHARED_ACCOUNT and "proxy_user" not in asked
    if moves or not settings.proxy_user:
        settings = replace(settings, proxy_user=accounts.own_account(settings.name))
    return settings


def report_changed_options(before: Settings, settings: Settings, say: Say) -> None:
    """Report the options that differ from the last install."""
    for option in ("hub_user", "proxy_user"):
        old, new = getattr(before, option), getattr(settings, option)
        if old != new:
            say(f"--{option.replace('_', '-')} was {old} and is {new} now")


def write_installer_config(layout: Layout, request: Request, *, first: bool, managed: bool = False, say: Say) -> bool:
    """Write what the options set to a readable file; on the first install also the internal ports.

    Lines that the administrator has added stay. Returns True if that changed something.
    """
    reserved = safe_ports.choose if managed and os.geteuid() == 0 else internal_lines
    internal = reserved(layout, request.bind_url, say) if first else {}
    return write_lines(layout.installer_config, requested_lines(request) | internal, say)


def write_lines(path: Path, lines: dict[str, Any], say: Say) -> bool:
    """Let a configuration file set these traits, and not set those that are None. Returns True if it changed.

    A link of the administrator's stays one. Raises UserError for a link that another account could change.
    """
    if not lines:
        return False
    path = real_place(path)
    text = path.read_text() if path.exists() else "# Written by the installer from its options; yours to change.\n"
    for trait, value in lines.items():
        line = f"{trait} = {json.dumps(value)}\n" if value is not None else ""
        text = with_line(text, trait, line)
    if changed := write_atomically(path, text):
        say(f"wrote {path}")
    return changed


@contextlib.contextmanager
def trying_lines(path: Path, lines: dict[str, Any], say: Say) -> Iterator[None]:
    """Let a configuration file set these traits, as `write_lines`; after an exception it is as it was before."""
    if not lines:
        yield
        return
    real = real_place(path)
    before = real.read_text() if real.exists() else None
    try:
        write_lines(path, lines, say)
        yield
    except BaseException:
        with signals_later():
            if before is None:
                real.unlink(missing_ok=True)
            else:
                write_atomically(real, before)
        raise


def real_place(path: Path) -> Path:
    """Return where a link leads; any other path as it is. Raises UserError for a link that others could change."""
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))  # for a loop of links, pathlib raises RuntimeError before 3.13
    if not accounts.is_roots(path):
        what = f"{path} leads to {real}, by a way that not only root can change"
        raise UserError(what, "make root its owner", Exit.USAGE)
    return real


def with_line(text: str, trait: str, line: str) -> str:
    """Return a configuration file's text with this line as the one that sets the trait."""
    text, found = re.subn(rf"^{re.escape(trait)} *=.*\n?", lambda _: line, text, flags=re.MULTILINE)
    return text if found else text + line


def requested_lines(request: Request) -> dict[str, Any]:
    """Return the traits that the options set, and None for lines to remove.

    A --bind-url sets all of them: each address comes with its own source of a certificate.
    """
    if not request.bind_url:
        return {}
    acme = ("acme_email", "acme_ca_server", "acme_ca_bundle")
    return {
        "c.JupyterHub.bind_url": request.bind_url,
        "c.JupyterHub.ssl_cert": request.tls_cert,
        "c.JupyterHub.ssl_key": request.tls_key,
        **{f"c.BarehubProxy.{option}": getattr(request, option) for option in acme},
    }
