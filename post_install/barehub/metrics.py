"""`barehub status --prometheus`: a status as numbers, in the text format that Prometheus reads.

https://prometheus.io/docs/instrumenting/exposition_formats/

Each has the label `base`: two installations' files may be in one directory of node_exporter's textfile collector. What
could not be looked at has no number of its own, least of all 0: `barehub_unknown` tells of it.
"""

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from http import HTTPStatus
from pathlib import Path

from barehub.errors import UserError, printable
from barehub.process import write_atomically
from barehub.status import Status

LOOKED_AT = ("units", "config", "hub", "proxy", "certificate", "backups", "database")

Samples = Iterable[tuple[dict[str, str], float]]  # labels -> number


def publish(status: Status, file: str) -> None:
    """Print the numbers, or write them to a file in one go if `file` is not empty. Raises UserError, OSError."""
    if not file:
        print(exposition(status), end="")
        return
    path = Path(file)
    if path.suffix != ".prom" or not path.parent.is_dir():
        raise UserError(
            f"{path} is no place for node_exporter's textfile collector",
            "name a file that ends in .prom, in the directory of its option --collector.textfile.directory",
        )
    if not write_atomically(path, exposition(status), 0o644):
        os.utime(path)  # its age tells whether anybody looks, not whether anything has changed


def exposition(status: Status) -> str:
    """Return a status in Prometheus's text format."""
    lines: list[str] = []
    for name, text, samples in metrics(status):
        found = [f"barehub_{name}{{{labels({'base': status.base} | own)}}} {value:.15g}" for own, value in samples]
        lines += [f"# HELP barehub_{name} {text}", f"# TYPE barehub_{name} gauge", *found] if found else []
    return "\n".join([*lines, ""])


def labels(values: dict[str, str]) -> str:
    """Return labels as they are written between braces."""
    escaped = {name: printable(value, keep="\n").replace("\\", r"\\") for name, value in values.items()}
    quoted = {name: value.replace('"', r"\"").replace("\n", r"\n") for name, value in escaped.items()}
    return ",".join(f'{name}="{value}"' for name, value in quoted.items())


def metrics(status: Status) -> Iterator[tuple[str, str, Samples]]:
    """Yield each metric: its name, what it means, and its samples; none if that is not known."""
    unknown = not_looked_at(status)
    loads = "url" not in status.unknown
    yield "info", "The active release.", [({"release": status.release or "", "url": status.url}, 1)]
    yield "healthy", "1 if barehub status finds no problem.", [({}, status.healthy)]
    yield "problems", "How many problems barehub status finds.", [({}, len(status.problems))]
    yield "warnings", "How many warnings barehub status has.", [({}, len(status.warnings))]
    yield "closed", "1 while maintenance.md or .html keeps people out.", [({}, status.closed)]
    yield "config_valid", "1 if the configuration loads.", [] if "config" in unknown else [({}, loads)]
    # What the proxy answers is not all its own: it is asked for the hub's health.
    answers = {"hub": status.hub == HTTPStatus.OK, "proxy": status.proxy is not None}
    up = [({"part": part}, value) for part, value in answers.items() if part not in unknown]
    yield "up", "1 if the hub is well, or the proxy answers at all.", up
    units = [({"unit": unit}, state == "active") for unit, state in status.units.items() if state != "unknown"]
    yield "unit_active", "1 if the unit is active.", units
    ends: Samples = [({}, datetime.fromisoformat(end).timestamp()) for end in filter(None, [status.certificate_ends])]
    yield "certificate_end_timestamp_seconds", "When the certificate that the proxy serves expires.", ends
    yield "backup_timestamp_seconds", "When the database was backed up, as a release left it.", backups(status)
    last: Samples = [({}, datetime.fromisoformat(one).timestamp()) for one in filter(None, [status.last_backup])]
    yield "last_backup_timestamp_seconds", "When barehub backup last wrote a whole file.", last
    found = [({"environment": one, "state": state}, 1) for one, state in status.environment_states.items()]
    yield "environment", "What users' servers run from: it fits the hub, is a misfit, missing, or unknown.", found
    yield "unknown", "1 for what could not be looked at.", [({"what": one}, one in unknown) for one in LOOKED_AT]


def not_looked_at(status: Status) -> set[str]:
    """Return which of LOOKED_AT is not known."""
    unknown = set(status.unknown)
    if "unknown" in status.units.values():
        unknown.add("units")
    if "url" in unknown or (status.url.startswith("https:") and not status.certificate_ends):
        unknown.add("certificate")
    return unknown


def backups(status: Status) -> Iterator[tuple[dict[str, str], float]]:
    """Yield when each backup was made."""
    for path in map(Path, status.backups):
        try:
            yield {"release": path.stem.partition("-")[2]}, path.stat().st_mtime
        except FileNotFoundError:  # an upgrade has just removed it
            continue
