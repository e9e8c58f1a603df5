"""What a user may ask for, and the check of a request, whether it comes from the form or the API."""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from barehub.offering import FIELD

from barehub_slurm.access import Access
from barehub_slurm.access import RefusedError as RefusedError
from barehub_slurm.accounts import Caps
from barehub_slurm.directory import directory
from barehub_slurm.gpus import SHARD, gres
from barehub_slurm.partitions import Partition, Shape
from barehub_slurm.words import spoken

Numbers = Mapping[str, float]


class Field(NamedTuple):
    label: str
    unit: str
    whole: bool
    least: float  # of what can be asked for; to Slurm, 0 of memory or time means all of it
    default: float


FIELDS = {
    "cores": Field("Cores", "", True, 1, 1),
    "memory": Field("Memory", "GB", False, 0.01, 2),
    "gpus": Field("GPUs", "", True, 0, 0),
    "hours": Field("Time", "h", False, 0.01, 4),
}


NUMBER = re.compile(r" *[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)? *")
YEAR = 365 * 24 * 60  # minutes: what Slurm makes of "unlimited". More may not fit into its 32 bits, and become less


# Every field of the form in its order, with its label; None hides it. The site changes that with `fields`.
LABELS: dict[str, str | None] = {
    FIELD: "Environment",
    "partition": "Partition",
    "account": "Account",
    "qos": "Quality of service",
    "reservation": "Reservation",
    "cores": "Cores",
    "memory": "Memory",
    "gpus": "GPUs",
    "kind": "Kind of GPU",
    "hours": "Time",
    "directory": None,
}


def shown(site: Mapping[str, str | None]) -> dict[str, str]:
    """Return the fields of the form and their labels: first those that the site names, in its order."""
    labels = {**site, **{name: label for name, label in LABELS.items() if name not in site}}
    return {name: label for name, label in labels.items() if label}


@dataclass(frozen=True)
class Request:
    """What Slurm is asked for. `memory` is in MB; 0 where Slurm does not manage it, and is not asked for it."""

    partition: str
    cores: int
    memory: int
    gpus: int
    minutes: int
    kind: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    directory: str = ""

    def words(self) -> dict[str, Any]:
        """Return what the job's script is made of; what is empty does not replace what the site sets for all."""
        kept = {name: value for name, value in vars(self).items() if value != "" or name == "directory"}
        return kept | {"gres": gres(self.kind, self.gpus)}


@dataclass(frozen=True)
class Offer:
    """What can be asked for: the partitions that sinfo shows, within the site's limits; and the defaults of a request.

    `limits` and `defaults` have numbers for the names in FIELDS; what is missing in `defaults` is built in.
    """

    partitions: Mapping[str, Partition]
    limits: Numbers
    defaults: Numbers
    access: Access = dataclasses.field(default_factory=Access)
    labels: Mapping[str, str] = dataclasses.field(default_factory=lambda: shown({}))

    def cap(self, field: str) -> float:
        """Return the site's limit, infinite if there is none. A limit that is no number is the least, not none."""
        value, least = self.limits.get(field, math.inf), FIELDS[field].least
        return value if value > least else least

    def limit(self, field: str, value: float) -> float:
        """Return `value` within the site's limit, but never less than the least that can be asked for."""
        return max(min(value, self.cap(field)), FIELDS[field].least)

    def minutes(self, partition: Partition) -> float:
        return max(1.0, min(partition.minutes, self.cap("hours") * 60))

    def shapes(self, partition: Partition) -> list[dict[str, float]]:
        """Return what one server can have on each kind of node; memory in GB, 0 where it is not managed."""
        return [
            {
                "cores": self.limit("cores", shape.cores),
                "memory": self.limit("memory", shape.memory // 512 * 0.5) if shape.memory else 0,
                "gpus": self.limit("gpus", shape.gpus),
            }
            for shape in partition.shapes
        ]

    def most(self, partition: Partition) -> dict[str, float]:
        """Return the most of each that a server in this partition can have, though perhaps not all at once."""
        shapes = self.shapes(partition)
        most = {name: max((one[name] for one in shapes), default=0) for name in ("cores", "memory", "gpus")}
        limit = self.minutes(partition)
        return most | {"hours": limit if limit == math.inf else math.floor(limit / 0.6) / 100}

    def usable(self, partition: Partition) -> bool:
        return partition.up and partition.nodes > 0

    @property
    def default_partition(self) -> str:
        """Slurm's default if it is offered and up, else the first that is up, else the first."""
        by_rank = sorted(self.partitions.values(), key=lambda one: (not self.usable(one), not one.default))
        return by_rank[0].name if by_rank else ""

    def check(self, options: Mapping[str, Any]) -> Request:
        """Return the request that these options make. Raises RefusedError.

        A field that the site hides has the site's value, whatever the options say.
        """
        options = {name: value for name, value in options.items() if name in self.labels}
        if not self.partitions:
            raise RefusedError(self.nothing)
        name = options.get("partition") or self.default_partition
        partition = self.partitions.get(name) if isinstance(name, str) else None
        if partition is None:
            raise RefusedError(f"There is no partition {str(name)[:40]} for you; there is {', '.join(self.partitions)}")
        if not self.usable(partition):
            raise RefusedError(f"The partition {name} is down at present: {self.state(partition)}")
        asked = {field: number(field, options[field]) for field in FIELDS if options.get(field) not in (None, "")}
        if not partition.memory:
            asked.pop("memory", None)
        choice = self.access.choose(partition.name, options)
        kind = self.kind(partition, options.get("kind")) if asked.get("gpus", self.default("gpus")) else ""
        partition = narrowed(partition, kind, choice.caps)
        self.require_limits(partition, asked)
        granted = self.fill(partition, asked)
        return Request(
            partition.name,
            int(granted["cores"]),
            math.ceil(granted["memory"] * 1024),
            int(granted["gpus"]),
            max(1, int(min(math.ceil(min(granted["hours"] * 60, YEAR) - 0.001), self.minutes(partition)))),
            kind if granted["gpus"] else "",
            *choice[:3],
            directory(options.get("directory")),
        )

    @property
    def nothing(self) -> str:
        """Why there is no partition at all."""
        shut_out = "; its accounting has no account for you" if self.access.standing.shut_out else ""
        return f"Slurm has no partition for you{shut_out}"

    def kind(self, partition: Partition, asked: Any) -> str:
        """Return the kind of GPU that is asked for, empty for any. Raises RefusedError."""
        if asked and asked not in (there := kinds(partition)):
            there_is = ", ".join(there) or "none"
            raise RefusedError(
                f"There is no kind of GPU {str(asked)[:40]} in the partition {partition.name}; there is {there_is}"
            )
        return str(asked or "")

    def require_limits(self, partition: Partition, asked: Numbers) -> None:
        most = self.most(partition)
        for field, value in asked.items():
            if value > most[field]:
                label, unit = self.labels.get(field, FIELDS[field].label), FIELDS[field].unit
                limit = spoken(self.minutes(partition)) if field == "hours" else f"{most[field]:g} {unit}".strip()
                raise RefusedError(
                    f"{label}: a server in the partition {partition.name} can have {limit}, not {value:g}"
                )

    def fill(self, partition: Partition, asked: Numbers) -> dict[str, float]:
        """Return what was asked for and defaults for the rest, as one kind of node has it. Raises RefusedError."""
        wanted = {field: self.limit(field, self.default(field)) for field in FIELDS}
        fitting = [
            shape for shape in self.shapes(partition) if all(asked.get(name, 0) <= most for name, most in shape.items())
        ]
        if not fitting:
            raise RefusedError(f"No node has all that at once: {self.describe(partition)}")
        # The one that needs the least of the defaults cut down.
        best = max(fitting, key=lambda shape: sum(min(1, most / (wanted[name] or 1)) for name, most in shape.items()))
        best = best | {"hours": self.most(partition)["hours"]}
        filled = {field: asked.get(field, min(wanted[field], best[field])) for field in FIELDS}
        return filled | ({} if best["memory"] else {"memory": 0})

    def default(self, field: str) -> float:
        value = self.defaults.get(field, FIELDS[field].default)
        return value if FIELDS[field].least <= value < math.inf else FIELDS[field].default

    def state(self, partition: Partition) -> str:
        if not partition.up:
            return "its administrators have closed it"
        return "none of its nodes is in service"

    def describe(self, partition: Partition) -> str:
        """Describe a partition in one line of the form."""
        if not self.usable(partition):
            return f"{partition.name}: down at present, {self.state(partition)}"
        parts = []
        for shape in self.shapes(partition):
            words = [f"up to {shape['cores']:g} cores"]
            words += [f"{shape['memory']:g} GB"] if shape["memory"] else []
            words += [f"GPUs: {shape['gpus']:g}"] if shape["gpus"] else []
            parts.append(", ".join(words))
        nodes = " or ".join(dict.fromkeys(parts))
        return f"{partition.name}: {nodes}, {spoken(self.minutes(partition))}"


def kinds(partition: Partition) -> list[str]:
    """Return the kinds of GPU that can be asked for in a partition, shares last."""
    found = {kind for shape in partition.shapes for kind, count in shape.kinds.items() if kind and count}
    return sorted(found, key=lambda kind: (kind == SHARD, kind))


def narrowed(partition: Partition, kind: str, caps: Caps) -> Partition:
    """Return the partition with the nodes that have this kind of GPU, and of those what one job can have."""
    found = replace(partition, shapes=[], minutes=min(partition.minutes, caps.get("hours", math.inf) * 60))
    for shape in partition.shapes:
        gpus = shape.kinds.get(kind, 0) if kind else shape.gpus
        if gpus or not kind:
            cores = min(shape.cores, int(caps.get("cores", shape.cores)))
            memory = int(min(shape.memory, caps.get("memory", math.inf) * 1024))
            most = gpus if kind == SHARD else min(gpus, int(caps.get("gpus", gpus)))
            found.add(Shape(cores, memory, most, shape.kinds))
    return found


def number(field: str, value: Any) -> float:
    """Return what a field of a request asks for. Raises RefusedError."""
    known = FIELDS[field]
    try:
        # Unlike a browser, float() also accepts True, 1_000, and digits of other scripts.
        found = float(value) if type(value) in (int, float) or NUMBER.fullmatch(value) else math.nan
    except (TypeError, OverflowError):
        found = math.nan
    if not known.least <= found < math.inf or (known.whole and found != int(found)):
        raise RefusedError(f"{known.label}: {str(value)[:40]} is no number of {known.label.lower()}")
    return found
