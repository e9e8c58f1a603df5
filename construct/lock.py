"""`release.py lock`: pins the versions of the hub environment, from wheels or from conda channels."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from construct.channels import channel_name, open_channel
from construct.solve import lock_lines, solve_environment, virtual_package
from recipe.errors import UserError
from recipe.lock import held, lock_wheels, write_lock
from recipe.lock_file import Line, Lock
from recipe.metadata import MACHINES, conda_constraint, conda_name
from recipe.overlay import Stack
from recipe.report import say

# What a target is assumed to have: the glibc and the kernel of Enterprise Linux 8.
VIRTUAL = ("__unix=0", "__linux=4.18", "__glibc=2.28")


def lock_environment(
    stack: Stack,
    platform: str,
    virtual: Sequence[str],
    update: Sequence[str] | None,
    channels: Sequence[str],
    days_old: int = 0,
) -> Path:
    """Write the stack's lock and return its path.

    It is solved for `platform` from `channels`, the first one preferred, or from wheels, as `lock_wheels` does, if
    there are none. `virtual` are virtual packages of the target, in addition to or instead of the usual ones. `update`
    is as for `recipe.lock.held`. A package is at least `days_old` days old, as far as its channel tells; for an index
    of wheels pip's own setting, if there is one, has precedence. Raises UserError if there is nothing to lock, or no
    solution.
    """
    if stack.overlays and not stack.locked_in:
        raise UserError("these overlays bring no packages, so there is nothing to lock", "build with them")
    if not channels:
        if days_old:
            os.environ.setdefault("PIP_UPLOADED_PRIOR_TO", f"P{days_old}D")
        return lock_wheels(stack, platform, virtual, update)
    assumed = {one.partition("=")[0]: one for one in (*VIRTUAL, f"__archspec=1={MACHINES[platform]}", *virtual)}
    say(f"solving the {stack.title} for {platform} with {' '.join(assumed.values())}")
    records = solve_environment(
        [open_channel(one) for one in channels],
        [*third_party_specs(stack), *own_dependencies(stack)],
        platform,
        virtual=[virtual_package(one) for one in assumed.values()],
        constraints=[str(line) for line in held(stack, platform, update, locked_builds).values()],
        days_old=days_old,
    )
    lock = Lock(
        lock_lines(records),
        stack.name,
        channels=tuple(map(channel_name, channels)),
        comments=(
            f"The {stack.title} on {platform}: every package. Written by `python3 release.py lock`;",
            f"do not edit. Solved with {' '.join(assumed.values())}.",
            *([f"A build adds what it makes itself: {', '.join(sorted(stack.own))}."] if stack.own else []),
        ),
    )
    return write_lock(lock, stack.lock_for(platform))


def locked_builds(stack: Stack, platform: str) -> Mapping[str, Line] | None:
    """Return the lines of a stack's lock; None if it has no lock of conda channels for this platform."""
    path = stack.lock_for(platform)
    lock = Lock.read(path) if path.exists() else None
    return None if lock is None or lock.pins_versions_only else lock.lines


def third_party_specs(stack: Stack) -> list[str]:
    """Return the specs of packages that are not made here."""
    return [spec for spec in stack.specs if spec.split()[0] not in stack.own]


def own_dependencies(stack: Stack) -> list[str]:
    """Return what barehub's own package needs from the channel; those of a folder are among the stack's specs."""
    if stack.environment:
        return []
    project = tomllib.loads((stack.root / "post_install/pyproject.toml").read_text())["project"]
    return [
        f"{conda_name(one.name)} {','.join(map(conda_constraint, one.specifier))}".rstrip()
        for one in map(Requirement, project["dependencies"])
    ]
