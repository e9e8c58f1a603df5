"""The locked environment: environment.lock.yml read, written, and held against what would be built.

One format for every source: a plain conda environment file, whose lines are `name==version[build=...,sha256=...]`. This
spelling is accepted, and its hashes are enforced, by `conda env create -f`, constructor's `environment_file`,
micromamba >= 2 and py-rattler; but none of them compares the hashes of file:// packages, which is why we do. A lock of
the recipe channel leaves builds and hashes of what is made on this machine to the copy in the installer.
"""

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rattler import (
    Channel,
    ChannelPriority,
    Gateway,
    GenericVirtualPackage,
    PackageName,
    RepoDataRecord,
    Version,
    solve,
)
from rattler.package.build_string import BuildString

from recipe.errors import UserError

RELOCK = "if that is what you want: python3 release.py lock, and review the diff"

LINE = re.compile(
    r"(?P<name>[a-z0-9._-]+)(?P<version>==[^=\[\]]+|>=[0-9.]+)(\[build=(?P<build>[^,\]]+),sha256=(?P<sha256>[0-9a-f]{64})\])?"
)


@dataclass(frozen=True)
class Line:
    """One package of a lock. version: `==1.2` or, for the recipe channel's python, `>=3.11`."""

    name: str
    version: str
    build: str | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, record: RepoDataRecord) -> "Line":
        return cls(record.name.normalized, f"=={record.version}", str(record.build), record.sha256.hex())

    def __str__(self) -> str:
        rest = f"[build={self.build},sha256={self.sha256}]" if self.sha256 else ""
        return f"{self.name}{self.version}{rest}"

    def matches(self, record: RepoDataRecord) -> bool:
        if self.sha256:
            return self == Line.of(record)
        if self.version.startswith("=="):
            return str(record.version) == self.version[2:]
        return Version(str(record.version)) >= Version(self.version[2:])


def read_lock(path: Path) -> dict[str, Line]:
    """The lock's lines by package name. Raises UserError for anything else."""
    lines = {}
    for text in yaml.safe_load(path.read_text())["dependencies"]:
        match = LINE.fullmatch(text)
        if not match:
            raise UserError(f"{path}: not a locked package: {text}", RELOCK)
        lines[match["name"]] = Line(match["name"], match["version"], match["build"], match["sha256"])
    return lines


def lock_channels(path: Path) -> list[str]:
    """The channels that a lock names: ./channel alone if it is one of the recipe channel."""
    return list(yaml.safe_load(path.read_text()).get("channels") or [])


def solve_environment(
    channels: Sequence[Channel],
    specs: Sequence[str],
    platform: str,
    *,
    virtual: Sequence[GenericVirtualPackage] = (),
    constraints: Sequence[str] = (),
    priority: ChannelPriority = ChannelPriority.Strict,
) -> list[RepoDataRecord]:
    """The packages of `channels` that meet `specs`, with all they depend on, sorted by name.

    `constraints` count for what is needed anyway. Without `virtual` packages any glibc will do: what the packages ask
    of it becomes the installer's own check. Raises UserError if there is no solution.
    """
    any_system = [virtual_package(one) for one in ("__unix=0", "__linux=99", "__glibc=2.99")]
    try:
        records = asyncio.run(
            solve(
                channels,
                specs,
                gateway=Gateway(),
                platforms=[platform, "noarch"],
                virtual_packages=[*(virtual or any_system)],
                constraints=constraints,
                channel_priority=priority,
            )
        )
    except Exception as error:  # py-rattler's SolverError does not derive from a type of its own in every release
        raise UserError(f"the packages do not fit together:\n{error}", RELOCK) from error
    return sorted(records, key=lambda record: record.name.normalized)


def virtual_package(text: str) -> GenericVirtualPackage:
    """`__glibc=2.28` or `__archspec=1=x86_64` (https://conda.org/learn/ceps/cep-0030/). UserError for anything else."""
    match = re.fullmatch(r"(__[a-z0-9]+)=([0-9][^=]*)(?:=([^=]+))?", text)
    if not match:
        raise UserError(f"{text} is not a virtual package", "write it like __glibc=2.28")
    return GenericVirtualPackage(PackageName(match[1]), Version(match[2]), BuildString(match[3] or "0"))


def require_locked(records: Sequence[RepoDataRecord], lock: Path, own: Collection[str], relock: str = RELOCK) -> None:
    """Raise UserError, naming each difference, unless the solved environment is what the lock says.

    `own` are the packages made here, which no lock of the repository holds; `relock` is what to do about a difference.
    """
    lines = {name: line for name, line in read_lock(lock).items() if name not in own}
    solved = {record.name.normalized: record for record in records if record.name.normalized not in own}
    differences = [
        *(f"{name} {lines[name].version} is locked, but nothing needs it" for name in sorted(lines.keys() - solved)),
        *(f"{name} {solved[name].version} is not locked" for name in sorted(solved.keys() - lines)),
        *(
            f"{name} {line.version} is locked, but {solved[name].version} {solved[name].build} would be built"
            for name, line in sorted(lines.items())
            if name in solved and not line.matches(solved[name])
        ),
    ]
    if differences:
        raise UserError(f"this build would differ from {lock}:\n  " + "\n  ".join(differences), relock)


def render_lock(records: Sequence[RepoDataRecord], name: str, channels: Sequence[str], *comments: str) -> str:
    """The text of a lock: a plain conda environment file with each archive's build and sha256."""
    lines = [
        *(f"# {comment}" for comment in comments),
        f"name: {name}",
        "channels:",
        *(f"  - {channel}" for channel in channels),
        "dependencies:",
        *(f'  - "{Line.of(record)}"' for record in records),
    ]
    return "\n".join(lines) + "\n"


def render_packages(records: Sequence[RepoDataRecord]) -> str:
    """One line a package for people and `grep`: name, version, build, subdir, sha256."""
    rows = [(r.name.normalized, str(r.version), str(r.build), r.subdir, r.sha256.hex()) for r in records]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "".join(
        "  ".join([*(f"{cell:{w}}" for cell, w in zip(row, widths, strict=False)), row[4]]) + "\n" for row in rows
    )
