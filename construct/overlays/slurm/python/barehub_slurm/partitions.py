"""What sinfo says: the partitions, and the nodes in them that are in service."""

import asyncio
import logging
import re
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf

from barehub_slurm.answer import HURRY
from barehub_slurm.gpus import count_gpus, read_gpus
from barehub_slurm.limits import Limit, Limits, number, read_limits
from barehub_slurm.nodes import NODE_WORDS, Free, Kept, free_by_partition, kept_of, read_nodes
from barehub_slurm.slurm import Slurm, SlurmError, rows

log = logging.getLogger("barehub_slurm")

# Nodes in these states run nothing new (sinfo(1), NODE STATE CODES); flags such as * or ~ may follow.
OUT_OF_SERVICE = {"down", "drained", "draining", "fail", "failing", "error", "inval", "maint", "unknown", "future"}
PARTITION_FORMAT = "%P|%a|%l|%c|%m|%G|%T|%D|%g"
ACCESS_AGE = 300.0  # seconds for which it is remembered which partitions a user may see, and their limits
NODES_AGE = 60.0  # seconds for which it is remembered what the system keeps of each node, and what is free
UNMANAGED = 512  # MB; less is no node's: without RealMemory= in slurm.conf sinfo says 1, and --mem cannot be granted


@dataclass(frozen=True)
class Shape:
    """What one node has. `memory` is in MB, and 0 where Slurm does not manage it; `gpus` are those of all kinds."""

    cores: int
    memory: int
    gpus: int
    kinds: Mapping[str, int] = field(default_factory=dict, compare=False)  # see read_gpus

    def covers(self, other: "Shape") -> bool:
        kinds = all(self.kinds.get(kind, 0) >= count for kind, count in other.kinds.items())
        return self.cores >= other.cores and self.memory >= other.memory and self.gpus >= other.gpus and kinds


@dataclass
class Partition:
    """A partition and the different nodes of it that are in service."""

    name: str
    default: bool = False
    up: bool = False
    minutes: float = inf
    nodes: int = 0
    groups: str = "all"
    shapes: list[Shape] = field(default_factory=list)  # none is covered by another

    @property
    def cores(self) -> int:
        return max((shape.cores for shape in self.shapes), default=0)

    @property
    def memory(self) -> int:
        return max((shape.memory for shape in self.shapes), default=0)

    @property
    def gpus(self) -> int:
        return max((shape.gpus for shape in self.shapes), default=0)

    def add(self, shape: Shape) -> None:
        if not any(other.covers(shape) for other in self.shapes):
            self.shapes = [other for other in self.shapes if not shape.covers(other)] + [shape]


def partitions(text: str, kept: Kept | None = None) -> dict[str, Partition]:
    """Read what `sinfo --exact --format=PARTITION_FORMAT` printed: a line for each group of equal nodes.

    `kept` is what no job gets of them, see kept_of.
    """
    found: dict[str, Partition] = {}
    lines, others = rows(text, len(PARTITION_FORMAT.split("|")))
    if others:
        log.warning("sinfo: ignored %d lines, the first is %r", len(others), others[0][:200])
    for name, available, limit, cores, memory, gres, state, nodes, groups in lines:
        partition = found.setdefault(name.rstrip("*"), Partition(name.rstrip("*"), name.endswith("*")))
        partition.up = available.lower() == "up"
        partition.minutes = minutes(limit)
        partition.groups = groups
        word = re.match(r"[a-z_]*", state.lower())
        if (word[0] if word else "") not in OUT_OF_SERVICE and number(cores):
            managed = number(memory) if number(memory) >= UNMANAGED else 0
            partition.nodes += number(nodes)
            key = (partition.name, number(cores), number(memory), gres)
            for less_cores, less_memory in (kept or {}).get(key, [(0, 0)]):
                left = max(managed - less_memory, 0)
                partition.add(Shape(number(cores) - less_cores, left, count_gpus(gres), read_gpus(gres)))
    return found


def within(partition: Partition, limits: Limits) -> Partition:
    """Return the partition with nodes no larger than it lets a job use of each."""
    limit = limits.get(partition.name, Limit())
    limited = replace(partition, shapes=[])
    for shape in partition.shapes:
        cores = min(shape.cores, limit.cores or shape.cores)
        memory = min(shape.memory, limit.memory or shape.memory, cores * limit.memory_of_core or shape.memory)
        limited.add(replace(shape, cores=cores, memory=memory))
    return limited


def minutes(text: str) -> float:
    """Return a Slurm time limit, [days-][[hours:]minutes:]seconds, in minutes; `infinite` and `n/a` are none."""
    days, dash, clock = text.rpartition("-")
    if not re.fullmatch(r"\d+(:\d+){0,2}", clock) or not re.fullmatch(r"\d*", days):
        return inf
    parts = [int(part) for part in clock.split(":")]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, mins, secs = (*parts, 0, 0)[:3]
    else:
        hours, mins, secs = (0, 0, *parts)[-3:]
    return int(days or 0) * 24 * 60 + hours * 60 + mins + secs / 60


class Catalogue:
    """The partitions, for all users. One sinfo, and never two at a time, serves every caller.

    Which of them a user may see is asked as that user, and remembered for some minutes. If Slurm does not answer, what
    was known stays known, and `stale` says so.
    """

    def __init__(self) -> None:
        self.found: dict[str, Partition] = {}
        self.began = -inf  # when sinfo was last started (time.monotonic)
        self.tried = -inf  # the same, once it has ended
        self.error: SlurmError | None = None
        self.asking: asyncio.Task[None] | None = None
        self.limits: Limits = {}
        self.limits_read = -inf
        self.kept: Kept = {}
        self.free: Mapping[str, Free] = {}
        self.nodes_read = -inf
        self.visible: dict[str, tuple[float, frozenset[str]]] = {}

    @property
    def stale(self) -> bool:
        slow = self.asking is not None and time.monotonic() - self.began > 0.9 * HURRY
        return slow or self.error is not None

    async def offered(self, slurm: Slurm, age: float, wanted: Collection[str] = ()) -> Mapping[str, Partition]:
        """Return the partitions that the user may use, only those `wanted` if that is not empty.

        A partition that is hidden from everybody counts if it is wanted by name. Raises SlurmError if nothing is known.
        """
        await self.refresh(slurm, age)
        if self.error and not self.found:
            raise self.error
        visible = await self.visible_to(slurm)
        return {
            name: self.found[name]
            for name in wanted or self.found
            if name in self.found and (name in visible or (name in wanted and self.found[name].groups == "all"))
        }

    async def refresh(self, slurm: Slurm, age: float) -> None:
        since = time.monotonic() - age
        while self.tried < since:
            if self.asking is None:
                self.asking = asyncio.ensure_future(self.ask(slurm))
            await asyncio.wait([self.asking], timeout=HURRY if self.found else None)
            if self.asking is not None and self.found:
                return

    async def ask(self, slurm: Slurm) -> None:
        self.began = now = time.monotonic()
        try:
            # -a: what a user may see of it is another question.
            printed = await slurm.run("sinfo", "-h", "-a", "-e", "-o", PARTITION_FORMAT)
            if now - self.nodes_read > NODES_AGE:
                self.free = {}  # it is true for a moment only
                with suppress(SlurmError):
                    await self.read_nodes(slurm)
                    self.nodes_read = now
            found = partitions(printed, self.kept)
            if now - self.limits_read > ACCESS_AGE:
                with suppress(SlurmError):
                    self.limits = read_limits(await slurm.run("scontrol", "show", "partition", "-a", "-o"))
                    self.limits_read = now
            if found or not self.found:
                self.found = {
                    name: within(partition, self.limits)
                    for name, partition in found.items()
                    if not self.limits.get(name, Limit()).closed
                }
            self.error = None
        except SlurmError as error:
            log.warning("sinfo: %s", error)
            self.error = error
        finally:
            self.tried = now
            self.asking = None

    async def read_nodes(self, slurm: Slurm) -> None:
        """Note what the system keeps of the nodes, and what is free. Raises SlurmError."""
        nodes = await asyncio.to_thread(read_nodes, await slurm.run("scontrol", *NODE_WORDS))
        self.kept, self.free = kept_of(nodes), free_by_partition(nodes)

    async def visible_to(self, slurm: Slurm) -> frozenset[str]:
        """Return the partitions that Slurm shows to the user: not hidden, and open to one of the user's groups."""
        asked, names = self.visible.get(slurm.user, (-inf, frozenset[str]()))
        if asked > time.monotonic() - ACCESS_AGE:
            return names
        try:
            names = frozenset((await slurm.run_as_user("sinfo", "-h", "-o", "%R")).split())
            self.visible[slurm.user] = (time.monotonic(), names)
        except SlurmError as error:  # not allowed by an older slurm-sudoers, perhaps
            log.warning("sinfo as %s: %s", slurm.user, error)
            names = names or frozenset(name for name, one in self.found.items() if one.groups == "all")
        return names
