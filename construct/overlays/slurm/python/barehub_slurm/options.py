"""What a user may ask for: the form, and the check of a request, whether it comes from the form or the API."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from barehub_slurm.slurm import Partition, spoken

Numbers = Mapping[str, float]

# name -> label of the field, its step, its unit
FIELDS = {
    "cores": ("Cores", 1, ""),
    "memory": ("Memory", 0.5, "GB"),
    "gpus": ("GPUs", 1, ""),
    "hours": ("Time", 0.5, "h"),
}


class RefusedError(ValueError):
    """A request that cannot be granted, and why, in words for the user who made it."""


@dataclass(frozen=True)
class Request:
    """What Slurm is asked for. `memory` is in MB."""

    partition: str
    cores: int
    memory: int
    gpus: int
    minutes: int


@dataclass(frozen=True)
class Offer:
    """What can be asked for: the partitions that sinfo shows, within the site's limits; and the defaults of a request.

    `limits` and `defaults` have numbers for the names in FIELDS.
    """

    partitions: Mapping[str, Partition]
    limits: Numbers
    defaults: Numbers

    def most(self, partition: Partition) -> dict[str, float]:
        """Return the most that a server in this partition can have."""
        offered = {
            "cores": partition.cores,
            "memory": partition.memory // 512 * 0.5,
            "gpus": partition.gpus,
            "hours": partition.minutes / 60,
        }
        return {name: min(value, self.limits.get(name, math.inf)) for name, value in offered.items()}

    def usable(self, partition: Partition) -> bool:
        return partition.up and partition.nodes > 0

    @property
    def default_partition(self) -> str:
        """Slurm's default if it is offered and up, else the first that is up, else the first."""
        by_rank = sorted(self.partitions.values(), key=lambda one: (not self.usable(one), not one.default))
        return by_rank[0].name if by_rank else ""

    def check(self, options: Mapping[str, Any]) -> Request:
        """Return the request that these options make. Raises RefusedError."""
        if not self.partitions:
            raise RefusedError("Slurm has no partition for you")
        name = options.get("partition") or self.default_partition
        partition = self.partitions.get(name) if isinstance(name, str) else None
        if partition is None:
            raise RefusedError(f"There is no partition {name}; there is {', '.join(self.partitions)}")
        if not self.usable(partition):
            raise RefusedError(f"The partition {name} is down at present: {self.state(partition)}")
        most = self.most(partition)
        asked = {field: self.number(field, options, most) for field in FIELDS}
        for field, value in asked.items():
            label, _, unit = FIELDS[field]
            if value > most[field]:
                limit = f"{most[field]:g} {unit}".strip()
                raise RefusedError(f"{label}: a server in the partition {name} can have {limit}, not {value:g}")
        return Request(
            partition.name,
            int(asked["cores"]),
            int(asked["memory"] * 1024),
            int(asked["gpus"]),
            math.ceil(asked["hours"] * 60),
        )

    def number(self, field: str, options: Mapping[str, Any], most: Numbers) -> float:
        """Return what a field asks for; if it is empty, the default or the limit, whichever is less."""
        label, step, _ = FIELDS[field]
        if options.get(field) in (None, ""):
            return min(self.defaults.get(field, 0), most[field])
        try:
            value = float(options[field])
        except (TypeError, ValueError):
            value = math.nan
        least = 0 if field == "gpus" else 1 if field == "cores" else 0.01
        if not least <= value < math.inf or (step == 1 and value != int(value)):
            raise RefusedError(f"{label}: {str(options[field])[:40]} is no number of {label.lower()}")
        return value

    def state(self, partition: Partition) -> str:
        if not partition.up:
            return "its administrators have closed it"
        return "none of its nodes is in service"

    def form(self, notice: str = "") -> str:
        """Return the form's HTML for JupyterHub's page, with a notice above."""
        rows = [f'<p class="alert alert-warning" id="slurm-notice">{escape(notice)}</p>'] if notice else []
        choices = []
        for partition in self.partitions.values():
            chosen = " selected" if partition.name == self.default_partition else ""
            disabled = "" if self.usable(partition) else " disabled"
            value = escape(partition.name, quote=True)
            choices.append(f'<option value="{value}"{chosen}{disabled}>{escape(self.describe(partition))}</option>')
        rows.append(row("partition", "Partition", f'<select class="form-select" {named("partition")}>', choices))
        usable = [self.most(partition) for partition in self.partitions.values() if self.usable(partition)]
        for field, (label, step, unit) in FIELDS.items():
            most = max((one[field] for one in usable), default=0)
            if field == "gpus" and not most:
                continue
            default = min(self.defaults.get(field, 0), most)
            least = 0 if field == "gpus" else step
            limit = "" if most == math.inf else f' max="{most:g}"'
            box = f'<input class="form-control" type="number" {named(field)} value="{default:g}" min="{least:g}"'
            rows.append(row(field, f"{label} ({unit})" if unit else label, f'{box} step="{step:g}"{limit}>'))
        return "\n".join(rows)

    def describe(self, partition: Partition) -> str:
        """Describe a partition in one line of the form."""
        if not self.usable(partition):
            return f"{partition.name}: down at present, {self.state(partition)}"
        most = self.most(partition)
        parts = [f"up to {most['cores']:g} cores", f"{most['memory']:g} GB"]
        parts += [f"GPUs: {most['gpus']:g}"] if most["gpus"] else []
        return f"{partition.name}: {', '.join([*parts, spoken(most['hours'] * 60)])}"


def named(field: str) -> str:
    return f'name="{field}" id="slurm-{field}"'


def row(field: str, label: str, control: str, choices: list[str] | None = None) -> str:
    inside = control if choices is None else "\n".join([control, *choices, "</select>"])
    return f'<div class="mb-3"><label class="form-label" for="slurm-{field}">{escape(label)}</label>\n{inside}</div>'


def from_form(data: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the options in a submitted form."""
    names = ("partition", *FIELDS)
    return {name: data[name][0].strip() for name in names if data.get(name) and re.search(r"\S", data[name][0])}
