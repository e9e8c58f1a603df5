"""Solves an environment from conda channels, and compares what is solved with what is locked."""

import asyncio
import re
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import cast

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
from rattler.exceptions import FetchRepoDataError, GatewayError, IoError
from rattler.package.build_string import BuildString
from rattler.platform import SubdirLiteral

from recipe.errors import UserError
from recipe.lock_file import Line, Lock

UNREADABLE = "check the channel's address, its user and password or token, and the network"
RELOCK = "if you want that: python3 release.py lock, and review the diff"


def solve_environment(
    channels: Sequence[Channel],
    specs: Sequence[str],
    platform: str,
    *,
    virtual: Sequence[GenericVirtualPackage] = (),
    constraints: Sequence[str] = (),
    priority: ChannelPriority = ChannelPriority.Strict,
    days_old: int = 0,
) -> list[RepoDataRecord]:
    """Return the packages of `channels` that meet `specs`, with all they depend on, sorted by name.

    `constraints` apply only to packages that are needed anyway. Without `virtual` packages any glibc is accepted: what
    the packages ask of it becomes the installer's own check. With `days_old`, none that has a date is younger. Raises
    UserError if there is no solution, or if a channel cannot be read.
    """
    any_system = [virtual_package(one) for one in ("__unix=0", "__linux=99", "__glibc=2.99")]
    try:
        records = asyncio.run(
            solve(
                channels,
                specs,
                gateway=Gateway(),
                platforms=[cast(SubdirLiteral, platform), "noarch"],
                virtual_packages=[*(virtual or any_system)],
                constraints=constraints,
                channel_priority=priority,
                exclude_newer=timedelta(days=days_old) if days_old else None,
                timestamp_policy="allow-missing",
            )
        )
    except (GatewayError, FetchRepoDataError, IoError) as error:  # with the server's answer, and the URL
        raise UserError(f"a channel cannot be read:\n{error}", UNREADABLE) from error
    except Exception as error:  # py-rattler's SolverError does not derive from a type of its own in every release
        raise UserError(f"the packages do not fit together:\n{error}", RELOCK) from error
    return sorted(records, key=lambda record: record.name.normalized)


def virtual_package(text: str) -> GenericVirtualPackage:
    """Read `__glibc=2.28` or `__archspec=1=x86_64` (https://conda.org/learn/ceps/cep-0030/).

    Raises UserError for anything else.
    """
    match = re.fullmatch(r"(__[a-z0-9]+)=([0-9][^=]*)(?:=([^=]+))?", text)
    if not match:
        raise UserError(f"{text} is not a virtual package", "write it like __glibc=2.28")
    return GenericVirtualPackage(PackageName(match[1]), Version(match[2]), BuildString(match[3] or "0"))


def sha256_of(record: RepoDataRecord) -> str:
    """Return the sha256 of a package in hexadecimal. Raises UserError if its channel does not state one."""
    if record.sha256 is None:
        raise UserError(f"the channel states no sha256 of {record.file_name}", "index it with a newer tool")
    return record.sha256.hex()


def locked_line(record: RepoDataRecord) -> Line:
    """Return the line of a lock that pins `record`, its build and its sha256."""
    return Line(record.name.normalized, str(record.version), str(record.build), sha256_of(record))


def lock_lines(records: Sequence[RepoDataRecord]) -> dict[str, Line]:
    """Return the lines of a lock that pins all `records`."""
    return {record.name.normalized: locked_line(record) for record in records}


def is_locked(record: RepoDataRecord, line: Line) -> bool:
    """Return whether `record` is the package of `line`, as far as the line says."""
    if line.sha256:
        return line == locked_line(record)
    if line.version.startswith(">="):
        return Version(str(record.version)) >= Version(line.version.removeprefix(">="))
    return str(record.version) == line.version


def require_locked(records: Sequence[RepoDataRecord], lock: Lock, own: Collection[str], relock: str = RELOCK) -> None:
    """Raise UserError, naming each difference, unless the solved environment is what the lock says.

    `own` are the packages made here, which no lock of the repository holds; `relock` is the fix of a difference.
    """
    lines = {name: line for name, line in lock.lines.items() if name not in own}
    solved = {record.name.normalized: record for record in records if record.name.normalized not in own}
    differences = [
        *(f"{name} {lines[name].constraint} is locked, but nothing needs it" for name in sorted(lines.keys() - solved)),
        *(f"{name} {solved[name].version} is not locked" for name in sorted(solved.keys() - lines)),
        *(
            f"{name} {line.constraint} is locked, but {solved[name].version} {solved[name].build} would be built"
            for name, line in sorted(lines.items())
            if name in solved and not is_locked(solved[name], line)
        ),
    ]
    if differences:
        raise UserError(f"this build would differ from {lock.where}:\n  " + "\n  ".join(differences), relock)
