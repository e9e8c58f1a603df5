"""Gathers the locked packages of a release in one directory, a conda channel, from wherever they come."""

import os
from collections.abc import Sequence
from pathlib import Path

from rattler import Channel, RepoDataRecord

from construct.channels import fetch_packages, find_locked
from construct.index import write_index
from construct.solve import require_locked, solve_environment
from recipe import pins
from recipe.channel import build_channel, build_own_packages
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.lock_file import Lock
from recipe.metadata import PLATFORM
from recipe.overlay import PLAIN, Stack
from recipe.report import progress, say
from recipe.shipped import shipped_interpreter


def read_lock(stack: Stack, path: Path | None, channels: Sequence[str], platform: str = PLATFORM) -> Lock:
    """Read the lock at `path`, by default the stack's own for `platform`. Raises UserError if there is none."""
    path = path or own_lock(stack, channels, platform)
    if not path.exists():
        raise UserError(f"there is no {path}", relock(stack, channels, platform))
    return Lock.read(path)


def own_lock(stack: Stack, channels: Sequence[str], platform: str) -> Path:
    """Return the path of the stack's lock: of wheels, also if a mirror has them as packages, it is one for all."""
    path, plain = stack.lock_for(platform), stack.lock_for(PLAIN)
    if not channels or (not path.exists() and plain.exists() and Lock.read(plain).pins_versions_only):
        return plain
    return path


def relock(stack: Stack, channels: Sequence[str], platform: str = PLATFORM) -> str:
    """Return the fix for a lock that does not fit."""
    options = "".join(f" --channel {one}" for one in channels) + stack.options
    if channels and platform != PLATFORM:
        options += f" --platform {platform}"
    return f"if you want that: python3 release.py lock{options}, and review the diff"


def fill_channel(
    stack: Stack,
    lock: Lock,
    channels: Sequence[str],
    cache: Path,
    channel: Path,
    platform: str = PLATFORM,
    python_mirror: str = "",
) -> list[RepoDataRecord]:
    """Write the locked packages and our own, indexed, to the new directory `channel`; return them, sorted by name.

    They are for `platform`, and come from `channels`, or are made from wheels if there are none. `python_mirror` is for
    `shipped_interpreter`. `cache` may be deleted at any time. Raises UserError if the lock is not of that source, or if
    it gives other packages than are locked.
    """
    if channels:
        from_channels(stack, lock, channels, platform, cache, channel)
    else:
        from_wheels(stack, lock, platform, python_mirror, cache, channel)
    # A lock of wheels is for several Pythons. What users' packages need for one of these only is there for all, and is
    # in the lock of that release, too, with which others build it from its channel.
    more = lock.lines if stack.environment else ()
    records = solve_environment([Channel(channel.as_uri())], [*stack.specs, *more], platform)
    require_locked(records, lock, stack.own, relock(stack, channels, platform))
    return records


def from_channels(stack: Stack, lock: Lock, channels: Sequence[str], platform: str, cache: Path, channel: Path) -> None:
    """Write the packages of conda channels, and our own, to `channel`."""
    if lock.pins_versions_only:
        say(f"{os.path.relpath(lock.where)} pins versions only: the channel's index decides each sha256")
    records = find_locked(lock, stack.own, channels, platform)
    with progress(f"getting the packages from {', '.join(channels)}", len(records)) as report:
        corrected = fetch_packages(records, channel, cache / "archives", report)
    (channel / "noarch").mkdir(exist_ok=True)
    list(build_own_packages(stack, cache, channel / "noarch"))
    write_index(channel, corrected)


def from_wheels(stack: Stack, lock: Lock, platform: str, python_mirror: str, cache: Path, channel: Path) -> None:
    """Write packages made from the pinned wheels, and our own, to `channel`."""
    if not lock.pins_versions_only:
        options = "".join(f" --channel {one}" for one in lock.channels if one != "./channel") or " --channel ..."
        raise UserError(f"{lock.where} is of conda channels", f"python3 release.py build{options}{stack.options}")
    if lock.wheels_sha256 != file_sha256(stack.wheels):
        raise UserError(f"{lock.where} was made with another {stack.wheels.name}", relock(stack, ()))
    interpreter = shipped_interpreter(platform, cache / "python", python_mirror)
    with progress("making conda packages from the wheels", len(pins.read(stack.wheels)) + 1 + len(stack.own)) as report:
        build_channel(stack, interpreter, cache, channel, report)
    write_index(channel)
