"""`release.py lock` where wheels are the source: chooses versions anew and writes them down.

Two files come of it: wheels.txt with the wheels of the hub environment, and environment.lock.yml with the environment
that they make. Without overlays the requirements of the tools that build and test it are pinned as well.
"""

import hashlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.version import Version

from recipe import pins
from recipe.channel import PLATFORM
from recipe.errors import UserError
from recipe.metadata import conda_name, conda_version
from recipe.overlay import Stack
from recipe.report import say
from recipe.specs import requirement

ALONE = ("conda-ship",)  # declares conda, which its `cs` does not need and PyPI does not have

HEADER = """\
# The hub environment{overlays}: the version of every package. Written by `python3 release.py lock`; do not edit.
# The wheels are pinned by sha256 in {wheels}, whose own sha256 is
#   {wheels_sha256}
# Python is the interpreter that release.py runs on: CPython {pythons}.
# Builds and sha256 of the packages made from these are in the copy of this file in each installer.
"""


def lock_tools(root: Path) -> None:
    """Pin what builds and tests barehub."""
    groups = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]
    for group, path in (("tools", root / "recipe/tools.txt"), ("test", root / "tests/requirements.txt")):
        say(f"pinning the {group} group of pyproject.toml")
        wanted = [one for one in groups[group] if one not in ALONE]
        pinned = pins.pin(wanted, alone=[one for one in groups[group] if one in ALONE])
        path.write_text(pins.render(pinned, f"The `{group}` group of pyproject.toml, for release.py's .venv."))


def lock_wheels(stack: Stack, update: Sequence[str] | None) -> None:
    """Write the stack's lock and wheels.txt. Raises UserError if there is no set of versions that work together.

    `update` names the packages that may move; all others stay as the lock has them. None is every package's chance,
    but for those of the base below an overlay which the overlays do not name.
    """
    say("pinning the hub environment")
    wanted = [requirement(spec) for spec in stack.specs if spec.split()[0] not in {"python", *stack.own}]
    held = held_pins(stack, update)
    try:
        pinned = pins.pin(wanted, held=held)
    except UserError as error:
        if not held:
            raise
        raise UserError(str(error), what_else_can_move(stack)) from error
    lock = stack.lock_for(PLATFORM)
    stack.wheels.write_text(pins.render(pinned, "The wheels that the hub environment is made of."))
    lock.write_text(render(stack, pinned))
    say(f"wrote {os.path.relpath(lock)} and {stack.wheels.name} with {len(pinned)} wheels; look at: git diff")


def held_pins(stack: Stack, update: Sequence[str] | None) -> dict[str, pins.Pin]:
    """The pins that stay. Raises UserError for a package to update that is neither locked nor asked for."""
    named = {spec.split()[0] for spec in stack.specs}
    if update is None and stack.locked_in:
        base = pins.read(Stack(stack.root).wheels)
        on_top = {spec.split()[0] for overlay in stack.overlays for spec in overlay.specs}
        return {name: pin for name, pin in base.items() if conda_name(name) not in on_top}
    if not update:
        return {}
    if not stack.wheels.exists():
        raise UserError(f"there is no {stack.wheels} to update", "leave out --update")
    now = pins.read(stack.wheels)
    if unknown := sorted(set(update) - named - {conda_name(name) for name in now}):
        raise UserError(f"{', '.join(unknown)}: not in {stack.wheels}", "use the names in it")
    return {name: pin for name, pin in now.items() if conda_name(name) not in update}


def what_else_can_move(stack: Stack) -> str:
    """The way out where the packages that are held leave no solution."""
    more = "name more packages after --update"
    return f"{more}; or in {stack.locked_in.path / 'environment.yml'}, which frees them" if stack.locked_in else more


def versions_of(pinned: Mapping[str, pins.Pin]) -> dict[str, str]:
    """Conda name and version of every package that is made of a wheel."""
    return dict(sorted((conda_name(name), conda_version(Version(pin.version))) for name, pin in pinned.items()))


def render(stack: Stack, pinned: Mapping[str, pins.Pin]) -> str:
    """The text of environment.lock.yml: a plain conda environment file."""
    header = HEADER.format(
        overlays=stack.title,
        wheels=stack.wheels.relative_to(stack.lock_for(PLATFORM).parent),
        wheels_sha256=hashlib.sha256(stack.wheels.read_bytes()).hexdigest(),
        pythons=", ".join(pins.PYTHONS),
    )
    lines = ["name: barehub", "channels:", "  - ./channel", "dependencies:", "  - python>=3.11"]
    lines += [f"  - {name}=={version}" for name, version in versions_of(pinned).items()]
    return header + "\n".join(lines) + "\n"
