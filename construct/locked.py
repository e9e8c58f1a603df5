"""The locked environment: solved from the channel, held against environment.lock.yml, written into the installer."""

import asyncio
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import yaml
from rattler import Channel, GenericVirtualPackage, PackageName, RepoDataRecord, Version, solve
from rattler.package.build_string import BuildString

from recipe.errors import UserError

RELOCK = "if that is what you want: python3 release.py lock, and review the diff"


def solve_environment(channel: Path, specs: Sequence[str], platform: str) -> list[RepoDataRecord]:
    """The packages of `channel`, a directory, that meet `specs`, with all they depend on, sorted by name.

    Any glibc will do here: what the packages ask of it becomes the installer's own check. Raises UserError if there is
    no solution.
    """
    glibc = GenericVirtualPackage(PackageName("__glibc"), Version("2.99"), BuildString("0"))
    try:
        records = asyncio.run(
            solve([Channel(channel.as_uri())], specs, platforms=[platform, "noarch"], virtual_packages=[glibc])
        )
    except Exception as error:  # py-rattler's SolverError does not derive from a type of its own in every release
        raise UserError(f"the packages do not fit together:\n{error}", RELOCK) from error
    return sorted(records, key=lambda record: record.name.normalized)


def read_lock(path: Path) -> dict[str, str]:
    """Spec by package name: `==1.2` or, for python, `>=3.11`. Raises UserError for anything else."""
    specs = {}
    for line in yaml.safe_load(path.read_text())["dependencies"]:
        match = re.fullmatch(r"([a-z0-9._-]+)(==[^=\[\]]+|>=[0-9.]+)", line)
        if not match:
            raise UserError(f"{path.name}: not a locked package: {line}", RELOCK)
        specs[match[1]] = match[2]
    return specs


def require_locked(
    records: Sequence[RepoDataRecord], lock: Path, wheels_sha256: str, own: Collection[str], relock: str = RELOCK
) -> None:
    """Raise UserError, naming each difference, unless the solved environment is what the lock says.

    `own` are the packages made here, which no lock holds; `relock` is what to do about a difference.
    """
    if wheels_sha256 not in lock.read_text():
        raise UserError(f"{lock} was made with another wheels.txt", relock)
    specs = read_lock(lock)
    solved = {record.name.normalized: record for record in records if record.name.normalized not in own}
    differences = [
        *(f"{name} {specs[name]} is locked, but nothing needs it" for name in sorted(specs.keys() - solved.keys())),
        *(f"{name} {solved[name].version} is not locked" for name in sorted(solved.keys() - specs.keys())),
        *(
            f"{name} {spec} is locked, but {solved[name].version} would be built"
            for name, spec in sorted(specs.items())
            if name in solved and not matches(str(solved[name].version), spec)
        ),
    ]
    if differences:
        raise UserError(f"this build would differ from {lock}:\n  " + "\n  ".join(differences), relock)


def matches(version: str, spec: str) -> bool:
    """Whether a version meets a spec of the lock."""
    if spec.startswith("=="):
        return version == spec[2:]
    return Version(version) >= Version(spec[2:])


def render_lock(records: Sequence[RepoDataRecord], name: str) -> str:
    """The lock that goes into the installer: a plain conda environment file with each archive's build and sha256.

    This spelling is accepted, and its hashes are enforced, by `conda env create -f`, constructor's `environment_file`,
    micromamba >= 2 and py-rattler.
    """
    lines = [
        "# The packages of this release. Beside ./channel: conda env create -f environment.lock.yml",
        f"name: {name}",
        "channels:",
        "  - ./channel",
        "dependencies:",
    ]
    lines += [
        f'  - "{record.name.normalized}=={record.version}[build={record.build},sha256={record.sha256.hex()}]"'
        for record in records
    ]
    return "\n".join(lines) + "\n"


def render_packages(records: Sequence[RepoDataRecord]) -> str:
    """One line a package for people and `grep`: name, version, build, subdir, sha256."""
    rows = [(r.name.normalized, str(r.version), str(r.build), r.subdir, r.sha256.hex()) for r in records]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "".join(
        "  ".join([*(f"{cell:{w}}" for cell, w in zip(row, widths, strict=False)), row[4]]) + "\n" for row in rows
    )
