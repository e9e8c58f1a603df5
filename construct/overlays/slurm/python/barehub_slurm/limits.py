"""What a partition lets a job have of its nodes, and whose jobs it takes (slurm.conf(5), PARTITION CONFIGURATION)."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from barehub_slurm.slurm import fields


@dataclass(frozen=True)
class Rule:
    """Accounts, or QoS: those that are allowed, all without any; else those that are denied."""

    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def admits(self, names: Collection[str]) -> bool:
        """Whether something with these names is let in: an account has its parents' names too, since Slurm 24."""
        return not self.allowed.isdisjoint(names) if self.allowed else self.denied.isdisjoint(names)


@dataclass(frozen=True)
class Limit:
    """What a partition lets a job have, MB for memory; 0 is no limit. `closed`: a server can never run there."""

    cores: int = 0
    memory: int = 0
    memory_of_core: int = 0
    closed: bool = False
    accounts: Rule = field(default_factory=Rule)
    qos: Rule = field(default_factory=Rule)
    own_qos: str = ""  # whose limits come before those of a job's QoS
    reserved: bool = False  # it takes jobs with a reservation only


Limits = Mapping[str, Limit]


def read_limits(text: str) -> dict[str, Limit]:
    """Read what `scontrol show partition -o` printed."""
    found = {}
    for line in text.splitlines():
        said = fields(line)
        if name := said.get("PartitionName"):
            names = ("MaxCPUsPerNode", "MaxMemPerNode", "MaxMemPerCPU", "MinNodes")
            cores, memory, memory_of_core, nodes = (number(said.get(one, "")) for one in names)
            own_qos = said.get("QoS", "N/A")
            found[name] = Limit(
                cores,
                memory,
                memory_of_core,
                said.get("RootOnly") == "YES" or nodes > 1,
                rule(said, "Accounts"),
                rule(said, "Qos"),
                "" if own_qos == "N/A" else own_qos,
                said.get("ReqResv") == "YES",
            )
    return found


def rule(said: Mapping[str, str], what: str) -> Rule:
    allowed, denied = (names(said.get(f"{word}{what}", "")) for word in ("Allow", "Deny"))
    return Rule(frozenset() if allowed == {"all"} else allowed, denied)


def names(text: str) -> frozenset[str]:
    """Return the names in a list of Slurm's, in lower case as its database has them; none for `(null)`."""
    return frozenset(text.lower().split(",")) - {"", "(null)"}


def number(text: str) -> int:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0
