"""`barehub status`: what is installed, what runs, what is wrong."""

import json
import os
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from barehub import database, systemd
from barehub.config import config_files, load_hub, masked_files
from barehub.errors import BASE, ERROR, UserError
from barehub.health import Endpoints, answer
from barehub.layout import Layout
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
        look_at_database(layout, settings, hub, status)
    return status


def look_at_units(layout: Layout, settings: Settings, status: Status) -> None:
    known = [unit for unit in settings.units if (layout.system_units / unit).exists()]
    if not known:
        return  # installed without root or systemd: `barehub run` is in charge
    for unit in settings.units:
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
    status.hub, status.proxy = answer(endpoints.hub), answer(endpoints.proxy)
    for name, url, code in (("hub", endpoints.hub, status.hub), ("proxy", endpoints.proxy, status.proxy)):
        if code != HTTPStatus.OK:
            status.problems.append(f"the {name} {f'answers {code}' if code else 'does not answer'} at {url}")
    return hub


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
    rows.append(("database", f"revision {status.database_revision}" if status.database_revision else "none yet"))
    rows += [("backup", path) for path in status.backups]
    rows += [("config" if index == 0 else "", path) for index, path in enumerate(status.config or ["no files"])]
    rows += [("masked", path) for path in status.masked]
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{name:{width}}{value}" for name, value in rows]
    return "\n".join(
        [*lines, "", *(f"problem: {problem}" for problem in status.problems)]
        if status.problems
        else [*lines, "", "healthy"]
    )


def spoken(code: int | None) -> str:
    return "answers" if code == HTTPStatus.OK else f"answers {code}" if code else "does not answer"
