"""`release.py lock` where wheels are the source: chooses versions and pins them. What stays locked is decided here.

Two files are the result: wheels.txt with the wheels of the hub environment, and environment.lock.yml with the
environment made from them. Without overlays the tools that build and test barehub are pinned as well.
"""

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from packaging.version import Version

from recipe import pins
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.lock_file import WHEELS_FOLLOW, Line, Lock
from recipe.metadata import PLATFORM, conda_name, conda_version
from recipe.overlay import PLAIN, Stack
from recipe.report import say
from recipe.specs import requirement

ALONE = ("conda-ship",)  # declares conda, which its `cs` does not need and PyPI does not have

Locked = TypeVar("Locked")


def lock_wheels(stack: Stack, platform: str, virtual: Sequence[str], update: Sequence[str] | None) -> Path:
    """Write the stack's lock and its wheels.txt, and return the lock's path; without overlays pin the tools as well.

    `update` is as for `held`. Raises UserError if no set of versions works together, and for a `platform` or `virtual`
    packages: such a lock is one for all machines.
    """
    if platform != PLATFORM or virtual:
        raise UserError("a lock of wheels is for all machines", "leave out --platform, or use --channel")
    if not stack.overlays and not stack.environment and not update:
        lock_tools(stack.root)
    say(f"pinning the {stack.title}")
    wanted = [requirement(spec) for spec in stack.specs if spec.split()[0] not in {"python", *stack.own}]
    stays = dict(held(stack, PLAIN, update, locked_wheels).values())
    try:
        pinned = pins.pin(wanted, held=stays)
    except UserError as error:
        if not stays:
            raise
        raise UserError(str(error), what_else_can_move(stack)) from error
    stack.wheels.write_text(pins.render(pinned, f"The wheels that the {stack.title} is made of."))
    return write_lock(lock_of(stack, pinned), stack.lock_for(PLAIN))


def lock_tools(root: Path) -> None:
    """Pin what builds and tests barehub."""
    groups = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]
    for group, path, machines in (
        ("tools", root / "recipe/tools.txt", pins.MACHINES),
        ("test", root / "tests/requirements.txt", pins.MACHINES[:1]),  # where the end-to-end tests run
    ):
        say(f"pinning the {group} group of pyproject.toml")
        wanted = [one for one in groups[group] if one not in ALONE]
        pinned = pins.pin(wanted, alone=[one for one in groups[group] if one in ALONE], machines=machines)
        path.write_text(pins.render(pinned, f"The `{group}` group of pyproject.toml, for release.py's .venv."))


def held(
    stack: Stack,
    platform: str,
    update: Sequence[str] | None,
    read: Callable[[Stack, str], Mapping[str, Locked] | None],
) -> dict[str, Locked]:
    """Return what stays as it is locked now, by conda name.

    `update` names the packages that may move. An empty list frees all; so does None, except for overlays with specs:
    these move what they name and hold the rest as the repository's lock has it. `read` returns what a stack's lock
    pins for a platform, or None if there is no lock of that kind. Raises UserError for a name in `update` that is
    neither locked nor asked for.
    """
    if update is None and stack.overlays and stack.locked_in:
        free = {spec.split()[0] for overlay in stack.overlays for spec in overlay.specs}
        locked = read(Stack(stack.root), platform) or {}
    elif update:
        path = stack.lock_for(platform)
        free = set(update)
        now = read(stack, platform)
        if now is None:
            raise UserError(f"there is no {path} of this source to update", "leave out --update")
        if unknown := sorted(free - now.keys() - {spec.split()[0] for spec in stack.specs}):
            raise UserError(f"{', '.join(unknown)}: not in {path}", "use the names in it")
        locked = now
    else:
        return {}
    return {name: one for name, one in locked.items() if name not in free}


def locked_wheels(stack: Stack, platform: str) -> Mapping[str, tuple[str, pins.Pin]] | None:
    """Return the name on PyPI and the pin of each wheel, by its conda name; None if nothing is pinned yet."""
    if not stack.wheels.exists():
        return None
    return {conda_name(name): (name, pin) for name, pin in pins.read(stack.wheels).items()}


def what_else_can_move(stack: Stack) -> str:
    """Return the fix where the packages that are held leave no solution."""
    more = "name more packages after --update"
    return f"{more}; or in {stack.locked_in.path / 'environment.yml'}, which frees them" if stack.locked_in else more


def lock_of(stack: Stack, pinned: Mapping[str, pins.Pin]) -> Lock:
    """Return the lock of an environment whose packages are made from the wheels of wheels.txt."""
    wheels = stack.wheels.relative_to(stack.lock_for(PLAIN).parent)
    versions = {conda_name(name): conda_version(Version(pin.version)) for name, pin in pinned.items()}
    lines = {"python": Line("python", ">=3.11")} | {name: Line(name, versions[name]) for name in sorted(versions)}
    return Lock(
        lines,
        stack.name,
        comments=(
            f"The {stack.title}: the version of every package. Written by `python3 release.py lock`; do not edit.",
            f"The wheels are pinned by sha256 in {wheels}, {WHEELS_FOLLOW}",
            f"Python is the interpreter that release.py runs on: CPython {', '.join(pins.PYTHONS)}.",
            "Builds and sha256 of the packages made from these are in the copy of this file in each installer.",
        ),
        wheels_sha256=file_sha256(stack.wheels),
    )


def write_lock(lock: Lock, path: Path) -> Path:
    """Write the lock to `path` and return that."""
    path.write_text(lock.render())
    say(f"wrote {os.path.relpath(path)} with {len(lock.lines)} packages; review it: git diff")
    return path
