"""What `scontrol show node` says of each node beyond sinfo: what the system keeps of it, and what is free now."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from barehub_slurm.gpus import read_gpus
from barehub_slurm.limits import number
from barehub_slurm.slurm import fields

NODE_WORDS = ("show", "node", "-d", "-a", "-o")  # -d: GresUsed
# Flags and states (scontrol(1), State=) with which a node takes no job of just anybody now.
BUSY = {"DOWN", "DRAIN", "FAIL", "MAINTENANCE", "RESERVED", "INVAL", "UNKNOWN", "FUTURE", "POWERING_DOWN", "ERROR"}
BUSY |= {"REBOOT_REQUESTED", "REBOOT_ISSUED", "DRAINED", "DRAINING", "MAINT"}

Kept = Mapping[tuple[str, int, int, str], list[tuple[int, int]]]  # partition, cores, memory, GRES -> see Node.kept


@dataclass(frozen=True)
class Node:
    """Memory is in MB. `free_cores` and `free_gpus` are 0 and empty while it takes no job of just anybody."""

    partitions: tuple[str, ...]
    key: tuple[int, int, str]  # cores, memory and GRES as sinfo has them
    kept: tuple[int, int]  # cores and memory that no job gets: CoreSpecCount or CpuSpecList, and MemSpecLimit
    cores: int
    free_cores: int
    gpus: Mapping[str, int]
    free_gpus: Mapping[str, int]


def read_nodes(text: str) -> list[Node]:
    """Read what `scontrol show node --details --oneliner` printed."""
    return [read_node(line) for line in text.splitlines() if line.startswith("NodeName=")]


def read_node(line: str) -> Node:
    said = fields(line)

    def count(name: str) -> int:
        return number(said.get(name, ""))

    cores, memory = count("CPUTot"), count("RealMemory")
    kept = cores - count("CPUEfctv") if "CPUEfctv" in said else count("CoreSpecCount") * count("ThreadsPerCore")
    gpus, used = read_gpus(said.get("Gres", "")), read_gpus(said.get("GresUsed", ""))
    idle = BUSY.isdisjoint(re.findall(r"\w+", said.get("State", "")))
    return Node(
        tuple(said.get("Partitions", "").split(",")),
        (cores, memory, said.get("Gres", "")),
        (kept, count("MemSpecLimit")),
        cores - kept,
        max(0, cores - kept - count("CPUAlloc")) if idle else 0,
        gpus,
        {kind: max(0, number - used.get(kind, 0)) for kind, number in gpus.items()} if idle else {},
    )


def kept_of(nodes: Iterable[Node]) -> Kept:
    """Return what is kept of a partition's nodes that sinfo describes alike; they may differ in that."""
    found: dict[tuple[str, int, int, str], list[tuple[int, int]]] = {}
    for node in nodes:
        for name in node.partitions:
            known = found.setdefault((name, *node.key), [])
            if node.kept not in known:
                known.append(node.kept)
    return found


@dataclass(frozen=True)
class Free:
    """What is free of a partition now, and what its nodes have."""

    free_cores: int
    cores: int
    free_gpus: Mapping[str, int]
    gpus: Mapping[str, int]


def free_by_partition(nodes: Iterable[Node]) -> dict[str, Free]:
    found: dict[str, Free] = {}
    for node in nodes:
        for name in node.partitions:
            one = found.get(name, Free(0, 0, {}, {}))
            found[name] = Free(
                one.free_cores + node.free_cores,
                one.cores + node.cores,
                added(one.free_gpus, node.free_gpus),
                added(one.gpus, node.gpus),
            )
    return found


def added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {kind: one.get(kind, 0) + other.get(kind, 0) for kind in {**one, **other}}
