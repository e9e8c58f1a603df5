"""`barehub status`: what is installed, what runs, and what is wrong."""

import contextlib
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from barehub import accounts, notices, permissions, systemd
from barehub.config import config_files, masked_files
from barehub.environments import find_as
from barehub.errors import Exit, UserError, printable
from barehub.evaluation import Evaluated, ProxyWanted, evaluate
from barehub.health import answer, here, in_words, served_certificate, stranger_at
from barehub.layout import Layout
from barehub.lifecycle import database, safe_ports
from barehub.listeners import Owner
from barehub.proxy_unit import acme
from barehub.proxy_unit.certificates import Served, day, examine
from barehub.proxy_unit.renewal import Source
from barehub.proxy_unit.sockets import read_addresses
from barehub.proxy_unit.static import as_text
from barehub.settings import Installation, Settings
from barehub.systemd import advice


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
    notices: dict[str, str] = field(default_factory=dict)  # announcement, maintenance -> the file that is there
    closed: bool = False  # the hub, but for those who maintain it
    database_revision: str | None = None
    backups: list[str] = field(default_factory=list)
    last_backup: str = ""  # when `barehub backup` has last written a whole file, ISO 8601
    environments: dict[str, str] = field(default_factory=dict)  # label -> what is there
    environment_states: dict[str, str] = field(default_factory=dict)  # label -> environments.Found.state
    certificate: str = ""  # the one that the proxy serves
    certificate_ends: str = ""  # ISO 8601
    unknown: dict[str, str] = field(default_factory=dict)  # what was not looked at -> why
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not self.problems


def check(layout: Layout) -> Status:
    """Find out how an installation is. Raises UserError if there is none.

    What cannot be looked at is `unknown`, with the reason; what can be seen without it is looked at all the same.
    """
    status = Status(str(layout.base), layout.active, layout.complete)
    installation = load_record(layout, status)
    if layout.active not in status.releases:
        status.problems.append(f"{layout.hub} does not lead to a complete release: run the installer with -f")
    if "units" not in status.unknown:
        check_units(installation, status)
    if found := check_config(installation, status):
        check_answers(installation, found, status)
        check_https(installation, found, status)
        check_environments(installation, found, status)
    else:
        check_last_proxy(installation, status)
    status.notices = {name: str(path) for name, path in notices.places(layout).items() if os.path.lexists(path)}
    status.warnings += filter(None, map(notices.complaint, notices.places(layout).values()))
    status.closed = notices.is_there_for(installation.settings.hub_user, *notices.closing(layout))
    check_database(installation, found, status)
    with contextlib.suppress(OSError):
        last = datetime.fromtimestamp(layout.last_backup.stat().st_mtime, UTC)
        status.last_backup = last.isoformat(timespec="seconds")
    return status


def load_record(layout: Layout, status: Status) -> Installation:
    """Return the installation; if its record is damaged, one whose hub's account is the owner of the hub's files."""
    try:
        return Installation.load(layout, fix="name another directory")
    except UserError as error:
        if not (layout.record.exists() and layout.state.is_dir()):
            raise
        status.problems.append(f"{error}: {error.fix}")
        status.unknown["units"] = f"their names are in {layout.record}"
        return Installation(layout, Settings(hub_user=accounts.owner(layout.hub_state)))


def check_units(installation: Installation, status: Status) -> None:
    """Record each unit's state; each that is not active is a problem."""
    places = installation.layout.system_units
    known = [unit for unit in installation.settings.active_units if (places / unit).exists()]
    for unit in known:  # none without root or systemd: `barehub run` runs hub and proxy then
        status.units[unit] = state = systemd.property_of(unit, "ActiveState") or "unknown"
        if state != "active":
            status.problems.append(f"{unit} is {state}: {advice('journalctl', '-u', unit)}")


def check_config(installation: Installation, status: Status) -> Evaluated | None:
    """Try the configuration as the hub's account, and return what it says; None if it does not load."""
    layout, settings = installation.layout, installation.settings
    try:
        status.config = [str(path) for path in config_files(layout)]
        status.masked = [str(path) for path in masked_files(layout)]
        status.warnings += permissions.warnings(installation)
        found = evaluate(layout, settings)
        status.warnings += permissions.exposed_secrets(found.secrets, settings)
        return found
    except UserError as error:
        if os.geteuid() != 0 and accounts.current_user() != settings.hub_user:
            status.unknown["config"] = "this account does not see all of it"
            status.problems.append(f"this account does not see all of the configuration: run this as root ({error})")
        else:
            status.problems.append(f"{error}; fix: {error.fix}" if error.fix else str(error))
    status.unknown |= {"url": "the configuration does not load", "hub": "its address is in the configuration"}
    return None


def check_answers(installation: Installation, found: Evaluated, status: Status) -> None:
    """Check that hub and proxy answer."""
    endpoints, settings = found.endpoints, installation.settings
    status.url = endpoints.public
    owners = {"hub": Owner.of_hub(settings), "proxy": Owner.of_proxy(settings)}
    status.hub = answer(endpoints.hub, owners["hub"])
    status.proxy = answer(endpoints.proxy, owners["proxy"], endpoints.name)
    for name, url, code in (("hub", endpoints.hub, status.hub), ("proxy", endpoints.proxy, status.proxy)):
        if account := stranger_at(url, owners[name]):
            status.problems.append(f"{account} listens at {url}, in the place of the {name}")
        elif code != HTTPStatus.OK:
            status.problems.append(f"the {name} {f'answers {code}' if code else 'does not answer'} at {url}")
    if warning := safe_ports.warning(installation, endpoints):
        status.warnings.append(warning)


def check_last_proxy(installation: Installation, status: Status) -> None:
    """Check that the proxy answers, whatever it answers, where its last valid configuration listens."""
    layout = installation.layout
    try:
        config = json.loads(layout.static_config.read_text())
        name, address = next(iter(read_addresses(layout.static_config).items()))
        tls = "tls" in config["entryPoints"][name]["http"]
    except (OSError, UserError, ValueError, KeyError, StopIteration):
        status.unknown["proxy"] = f"{layout.static_config}, which has its address, cannot be read"
        return
    host, _, port = address.rpartition(":")
    url = f"{'https' if tls else 'http'}://{here(host.strip('[]'))}:{port}/"
    status.proxy = answer(url, Owner.of_proxy(installation.settings))
    if status.proxy is None:
        status.problems.append(f"the proxy does not answer at {url}")


def check_https(installation: Installation, found: Evaluated, status: Status) -> None:
    """Check that the proxy does what the configuration says, and its certificate."""
    layout, settings = installation.layout, installation.settings
    try:
        wanted = found.require_proxy()
    except UserError as error:
        status.problems.append(f"{error}; the proxy goes on with its last configuration")
        return
    source = wanted.source
    if os.access(layout.static_config, os.R_OK) and layout.static_config.read_text() != as_text(wanted.static):
        status.problems.append(
            f"the proxy runs with an older configuration: {advice('systemctl', 'restart', settings.proxy_unit)}; "
            f"if that does not help, {advice('journalctl', '-u', settings.proxy_unit)}"
        )
    elif source:
        served = served_certificate(found.endpoints, Owner.of_proxy(settings))
        check_certificate(settings, wanted, source, served, status)
    if source and os.geteuid() == 0:  # no other account can read the key
        check_source(layout, source, status)


def check_certificate(
    settings: Settings, wanted: ProxyWanted, source: Source, served: bytes | None, status: Status
) -> None:
    """Check the certificate that browsers get."""
    if served is None:
        return  # the proxy does not answer, which is a problem of its own already
    found = Served.of(served)
    status.certificate, status.certificate_ends = str(found), found.ends.isoformat()
    if found.is_traefiks_own:
        if source.cert:
            status.problems.append(f"no certificate is served yet: {advice('systemctl', 'restart', settings.hub_unit)}")
        else:
            names = ", ".join(source.names)
            status.problems.append(
                f"there is no certificate for {names} yet: {advice('journalctl', '-u', settings.proxy_unit)}"
            )
        return
    if found.left <= timedelta(0):
        status.problems.append(
            f"the certificate has expired on {day(found.ends)}: {advice('journalctl', '-u', settings.proxy_unit)}"
        )
    elif found.left < found.late:
        status.warnings.append(f"the certificate ends on {day(found.ends)} and has not been renewed")
    hours = wanted.certificate_hours  # all those below a day are treated alike
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
        status.warnings += permissions.exposed_key(source.key)
    except UserError as error:
        status.problems.append(f"{error}; the proxy goes on with the certificate it has")


def check_database(installation: Installation, found: Evaluated | None, status: Status) -> None:
    """Check that the database has the schema that this release needs; without a configuration, that of the default."""
    layout = installation.layout
    if not os.access(layout.hub_state, os.X_OK):
        why = f"{layout.hub_state} cannot be read by this account: run this as root"
        status.unknown |= {"database": why, "backups": why}
        status.problems.append(why)
        return
    backups = (layout.backup(label, kind) for label in layout.complete for kind in (".sqlite", ".dump"))
    status.backups = [str(place) for place in backups if place.exists()]
    own = database.own_database(layout)
    if found is None:
        status.unknown["database"] = "the configuration may name another than the release's own"
        if own.exists():
            status.unknown["database"] += f", which is {own}"
    try:
        status.database_revision = database.revision_of(installation, found.db_url if found else f"sqlite:///{own}")
    except UserError as error:
        status.problems.append(str(error))
        status.unknown["database"] = "it cannot be read"
        return
    if status.database_revision not in (None, newest := database.newest_revision()):
        status.problems.append(f"the database is at {status.database_revision}, this release needs {newest}")


def check_environments(installation: Installation, found: Evaluated, status: Status) -> None:
    """Look at what users' servers run from, as the hub's account; a jupyterhub that does not fit is worth a warning."""
    seen = find_as(installation.settings.hub_user, found.environments.values())
    for label, environment in found.environments.items():
        status.environments[label], status.environment_states[label] = str(seen[environment]), seen[environment].state
        if misfit := seen[environment].misfit:
            status.warnings.append(f"the environment {label} has {misfit}: users may not get into its servers")


def show(status: Status, as_json: bool) -> int:
    """Print a status for people or for programs; return the exit status, 0 only when healthy."""
    print(json.dumps({**vars(status), "healthy": status.healthy}, indent=2) if as_json else printable(text(status)))
    return 0 if status.healthy else Exit.ERROR


def text(status: Status) -> str:
    """Return a status as a table with its warnings and problems below."""
    rows: list[tuple[str, Any]] = [("base", status.base), ("release", status.release or "none is active")]
    if others := [release for release in status.releases if release != status.release]:
        rows.append(("also there", ", ".join(others)))
    rows.append(("url", status.url or not_known(status, "url")))
    rows += [*status.units.items()] or ([("units", not_known(status, "units"))] if "units" in status.unknown else [])
    rows += [
        (name, not_known(status, name) if name in status.unknown else in_words(code))
        for name, code in (("hub", status.hub), ("proxy", status.proxy))
    ]
    if status.certificate:
        rows.append(("certificate", status.certificate))
    seen = f"revision {status.database_revision}" if status.database_revision else ""
    unseen = not_known(status, "database") if "database" in status.unknown else ""
    rows.append(("database", "; ".join(filter(None, (seen, unseen))) or "none yet"))
    rows += [("backup", path) for path in status.backups]
    rows += [("backed up", f"last at {status.last_backup}, by `barehub backup`")] if status.last_backup else []
    rows += [("environment", f"{label}: {what}") for label, what in status.environments.items()]
    rows += [("config" if index == 0 else "", path) for index, path in enumerate(status.config or ["no files"])]
    rows += [("masked", path) for path in status.masked]
    rows += status.notices.items()
    rows += [("", "the hub is open only to its administrators and the group maintenance")] if status.closed else []
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{name:{width}}{value}" for name, value in rows]
    said = [f"warning: {warning}" for warning in status.warnings]
    said += [f"problem: {problem}" for problem in status.problems] or ["healthy"]
    return "\n".join([*lines, "", *said])


def not_known(status: Status, what: str) -> str:
    """Return that something is not known, and why."""
    return f"unknown: {status.unknown[what]}" if what in status.unknown else "unknown"
