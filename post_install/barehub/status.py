"""`barehub status`: what is installed, what runs, what is wrong."""

import json
import os
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from barehub import systemd
from barehub.config import config_files, load_hub, masked_files
from barehub.errors import BASE, ERROR, UserError
from barehub.health import Endpoints, answer, served_certificate
from barehub.layout import Layout
from barehub.lifecycle import database
from barehub.proxy_unit import acme
from barehub.proxy_unit.certificates import Served, day, examine
from barehub.proxy_unit.renewal import Source
from barehub.settings import Settings


@dataclass
class Status:
    """Everything that `barehub status` tells; `problems` is empty when all is well."""

    base: str
    release: str | None
    releases: list[str]
    url: str = ""
    units: dict[str, str] = field(default_factory=dict)
    hub: int | None = None  # HTTP status of the answer
    proxy: int | None = None
    config: list[str] = field(default_factory=list)
    masked: list[str] = field(default_factory=list)
    database_revision: str | None = None
    backups: list[str] = field(default_factory=list)
    certificate: str = ""  # the one that is served
    certificate_ends: str = ""  # ISO 8601
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not self.problems


def look(layout: Layout) -> Status:
    """Find out how an installation is. Raises UserError if there is none."""
    settings = Settings.load(layout)
    if settings is None:
        raise UserError(f"{layout.base} holds no barehub", "name another directory", BASE)
    status = Status(str(layout.base), layout.active, layout.complete)
    if layout.active not in status.releases:
        status.problems.append(f"{layout.hub} does not lead to a complete release: run the installer with -f")
    look_at_units(layout, settings, status)
    if hub := look_at_config(layout, status):
        look_at_https(layout, settings, hub, status)
        look_at_database(layout, settings, hub, status)
    return status


def look_at_units(layout: Layout, settings: Settings, status: Status) -> None:
    known = [unit for unit in settings.active_units if (layout.system_units / unit).exists()]
    if not known:
        return  # installed without root or systemd: `barehub run` is in charge
    for unit in known:
        status.units[unit] = state = systemd.property_of(unit, "ActiveState") or "unknown"
        if state != "active":
            status.problems.append(f"{unit} is {state}: journalctl -u {unit}")


def look_at_config(layout: Layout, status: Status) -> Any:
    """Load the configuration and, if that works, ask hub and proxy how they are and return it."""
    status.config = [str(path) for path in config_files(layout)]
    status.masked = [str(path) for path in masked_files(layout)]
    try:
        hub = load_hub(layout)
    except UserError as error:
        status.problems.append(str(error))
        return None
    except PermissionError as error:
        status.problems.append(f"{error.filename} cannot be read by this account: run this as root")
        return None
    endpoints = Endpoints.of(hub)
    status.url = endpoints.public
    status.hub, status.proxy = answer(endpoints.hub), answer(endpoints.proxy, endpoints.name)
    for name, url, code in (("hub", endpoints.hub, status.hub), ("proxy", endpoints.proxy, status.proxy)):
        if code != HTTPStatus.OK:
            status.problems.append(f"the {name} {f'answers {code}' if code else 'does not answer'} at {url}")
    return hub


def look_at_https(layout: Layout, settings: Settings, hub: Any, status: Status) -> None:
    """Does the proxy do what the configuration says, and how is its certificate?"""
    from barehub.proxy_unit.prepare import make_proxy, source_of
    from barehub.proxy_unit.static import as_text, static_config

    try:
        proxy = make_proxy(layout, hub)
        wanted = static_config(layout, proxy)
    except UserError as error:
        status.problems.append(f"{error}; the proxy goes on with its last configuration")
        return
    source = source_of(hub, proxy) if proxy.is_https else None
    if os.access(layout.static_config, os.R_OK) and layout.static_config.read_text() != as_text(wanted):
        status.problems.append(
            f"the proxy runs with an older configuration: systemctl restart {settings.proxy_unit}; "
            f"if that does not help, journalctl -u {settings.proxy_unit}"
        )
    elif source:
        look_at_certificate(settings, source, proxy, served_certificate(Endpoints.of(hub)), status)
    if source and os.geteuid() == 0:  # nobody else can read the key
        look_at_source(layout, source, status)


def look_at_certificate(settings: Settings, source: Source, proxy: Any, served: bytes | None, status: Status) -> None:
    """What browsers get to see."""
    if served is None:
        return  # the proxy does not answer, which is said already
    found = Served.of(served)
    status.certificate, status.certificate_ends = str(found), found.ends.isoformat()
    if found.is_traefiks_own:
        if source.cert:
            status.problems.append(f"no certificate is served yet: systemctl restart {settings.hub_unit}")
        else:
            names = ", ".join(source.names)
            status.problems.append(f"there is no certificate for {names} yet: journalctl -u {settings.proxy_unit}")
        return
    if found.left <= timedelta(0):
        status.problems.append(f"the certificate has expired on {day(found.ends)}: journalctl -u {settings.proxy_unit}")
    elif found.left < found.late:
        status.warnings.append(f"the certificate ends on {day(found.ends)} and has not been renewed")
    hours = proxy.acme_certificate_hours  # of less than a day are all treated alike
    if not source.cert and hours >= 24 and found.lifetime < timedelta(hours=hours) / 3:
        hours = max(1, round(found.lifetime / timedelta(hours=1)))
        status.warnings.append(
            f"the ACME server's certificates are valid for {hours} h: set c.BarehubProxy.acme_certificate_hours to "
            "that, or they are renewed too late"
        )


def look_at_source(layout: Layout, source: Source, status: Status) -> None:
    """What the proxy gets to see at its next start or reload."""
    if not source.cert:
        status.warnings += acme.check_environment(layout)
        return
    try:
        status.warnings += examine(*source.read(), source.names)[2]
    except UserError as error:
        status.problems.append(f"{error}; the proxy goes on with the certificate it has")


def look_at_database(layout: Layout, settings: Settings, hub: Any, status: Status) -> None:
    if not os.access(layout.hub_state, os.X_OK):
        status.problems.append(f"{layout.hub_state} cannot be read by this account: run this as root")
        return
    try:
        status.database_revision = database.revision_of(layout, settings, hub.db_url)
    except UserError as error:
        status.problems.append(str(error))
        return
    if status.database_revision not in (None, newest := database.newest_revision()):
        status.problems.append(f"the database is at {status.database_revision}, this release needs {newest}")
    status.backups = [str(layout.backup(label)) for label in layout.complete if layout.backup(label).exists()]


def show(status: Status, as_json: bool) -> int:
    """Print a status for people or for machines; return the exit status, 0 only when healthy."""
    print(json.dumps({**vars(status), "healthy": status.healthy}, indent=2) if as_json else text(status))
    return 0 if status.healthy else ERROR


def text(status: Status) -> str:
    rows: list[tuple[str, Any]] = [("base", status.base), ("release", status.release or "none is active")]
    if others := [release for release in status.releases if release != status.release]:
        rows.append(("also there", ", ".join(others)))
    rows += [("url", status.url or "unknown"), *((unit, state) for unit, state in status.units.items())]
    rows += [("hub", spoken(status.hub)), ("proxy", spoken(status.proxy))]
    if status.certificate:
        rows.append(("certificate", status.certificate))
    rows.append(("database", f"revision {status.database_revision}" if status.database_revision else "none yet"))
    rows += [("backup", path) for path in status.backups]
    rows += [("config" if index == 0 else "", path) for index, path in enumerate(status.config or ["no files"])]
    rows += [("masked", path) for path in status.masked]
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{name:{width}}{value}" for name, value in rows]
    said = [f"warning: {warning}" for warning in status.warnings]
    said += [f"problem: {problem}" for problem in status.problems] or ["healthy"]
    return "\n".join([*lines, "", *said])


def spoken(code: int | None) -> str:
    return "answers" if code == HTTPStatus.OK else f"answers {code}" if code else "does not answer"
