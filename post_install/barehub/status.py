"""`barehub status`: what is installed, what runs, and what is wrong."""

import json
import os
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from barehub import systemd
from barehub.config import config_files, load_hub, masked_files
from barehub.errors import Exit, UserError
from barehub.health import Endpoints, answer, served_certificate, stranger_at
from barehub.layout import Layout
from barehub.lifecycle import database, ports
from barehub.listeners import Owner
from barehub.proxy_unit import acme
from barehub.proxy_unit.certificates import Served, day, examine
from barehub.proxy_unit.renewal import Source
from barehub.settings import Installation, Settings


@dataclass
class Status:
    """Everything that `barehub status` reports; `problems` is empty when all is well."""

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
    certificate: str = ""  # the one that the proxy serves
    certificate_ends: str = ""  # ISO 8601
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not self.problems


def check(layout: Layout) -> Status:
    """Find out how an installation is. Raises UserError if there is none."""
    installation = Installation.load(layout, fix="name another directory")
    status = Status(str(layout.base), layout.active, layout.complete)
    if layout.active not in status.releases:
        status.problems.append(f"{layout.hub} does not lead to a complete release: run the installer with -f")
    check_units(installation, status)
    if hub := check_config(installation, status):
        check_https(installation, hub, status)
        check_database(installation, hub, status)
    return status


def check_units(installation: Installation, status: Status) -> None:
    """Record each unit's state; each that is not active is a problem."""
    places = installation.layout.system_units
    known = [unit for unit in installation.settings.active_units if (places / unit).exists()]
    for unit in known:  # none without root or systemd: `barehub run` runs hub and proxy then
        status.units[unit] = state = systemd.property_of(unit, "ActiveState") or "unknown"
        if state != "active":
            status.problems.append(f"{unit} is {state}: journalctl -u {unit}")


def check_config(installation: Installation, status: Status) -> Any:
    """Load the configuration. If it loads, check that hub and proxy answer, and return it."""
    layout, settings = installation.layout, installation.settings
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
    owners = {"hub": Owner.of_hub(settings), "proxy": Owner.of_proxy(settings)}
    status.hub = answer(endpoints.hub, owners["hub"])
    status.proxy = answer(endpoints.proxy, owners["proxy"], endpoints.name)
    for name, url, code in (("hub", endpoints.hub, status.hub), ("proxy", endpoints.proxy, status.proxy)):
        if account := stranger_at(url, owners[name]):
            status.problems.append(f"{account} listens at {url}, in the place of the {name}")
        elif code != HTTPStatus.OK:
            status.problems.append(f"the {name} {f'answers {code}' if code else 'does not answer'} at {url}")
    if warning := ports.warning(installation, hub):
        status.warnings.append(warning)
    return hub


def check_https(installation: Installation, hub: Any, status: Status) -> None:
    """Check that the proxy does what the configuration says, and its certificate."""
    from barehub.proxy_unit.prepare import make_proxy, source_of
    from barehub.proxy_unit.static import as_text, static_config

    layout, settings = installation.layout, installation.settings
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
        served = served_certificate(Endpoints.of(hub), Owner.of_proxy(settings))
        check_certificate(settings, source, proxy, served, status)
    if source and os.geteuid() == 0:  # no other account can read the key
        check_source(layout, source, status)


def check_certificate(settings: Settings, source: Source, proxy: Any, served: bytes | None, status: Status) -> None:
    """Check the certificate that browsers get."""
    if served is None:
        return  # the proxy does not answer, which is a problem of its own already
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
    hours = proxy.acme_certificate_hours  # all those below a day are treated alike
    if not source.cert and hours >= 24 and found.lifetime < timedelta(hours=hours) / 3:
        hours = max(1, round(found.lifetime / timedelta(hours=1)))
        status.warnings.append(
            f"the ACME server's certificates are valid for {hours} h: set c.BarehubProxy.acme_certificate_hours to "
            "that, or they are renewed too late"
        )


def check_source(layout: Layout, source: Source, status: Status) -> None:
    """Check what the proxy will read at its next start or reload."""
    if not source.cert:
        status.warnings += acme.check_environment(layout)
        return
    try:
        status.warnings += examine(*source.read(), source.names)[2]
    except UserError as error:
        status.problems.append(f"{error}; the proxy goes on with the certificate it has")


def check_database(installation: Installation, hub: Any, status: Status) -> None:
    """Check that the database has the schema that this release needs."""
    layout = installation.layout
    if not os.access(layout.hub_state, os.X_OK):
        status.problems.append(f"{layout.hub_state} cannot be read by this account: run this as root")
        return
    try:
        status.database_revision = database.revision_of(installation, hub.db_url)
    except UserError as error:
        status.problems.append(str(error))
        return
    if status.database_revision not in (None, newest := database.newest_revision()):
        status.problems.append(f"the database is at {status.database_revision}, this release needs {newest}")
    status.backups = [str(layout.backup(label)) for label in layout.complete if layout.backup(label).exists()]


def show(status: Status, as_json: bool) -> int:
    """Print a status for people or for programs; return the exit status, 0 only when healthy."""
    print(json.dumps({**vars(status), "healthy": status.healthy}, indent=2) if as_json else text(status))
    return 0 if status.healthy else Exit.ERROR


def text(status: Status) -> str:
    """Return a status as a table with its warnings and problems below."""
    rows: list[tuple[str, Any]] = [("base", status.base), ("release", status.release or "none is active")]
    if others := [release for release in status.releases if release != status.release]:
        rows.append(("also there", ", ".join(others)))
    rows += [("url", status.url or "unknown"), *((unit, state) for unit, state in status.units.items())]
    rows += [("hub", describe_answer(status.hub)), ("proxy", describe_answer(status.proxy))]
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


def describe_answer(code: int | None) -> str:
    """Return the HTTP status of an answer in words."""
    return "answers" if code == HTTPStatus.OK else f"answers {code}" if code else "does not answer"
