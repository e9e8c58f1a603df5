"""The locked packages of a release, gathered in one directory, a conda channel, wherever they come from."""

import os
from collections.abc import Sequence
from pathlib import Path

from rattler import Channel, RepoDataRecord

from construct.channels import fetch_packages, find_locked, pins_versions_only
from construct.locked import lock_channels, require_locked, solve_environment
from recipe import pins
from recipe.channel import PLATFORM, build_channel, build_own_packages, write_index
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.overlay import Stack
from recipe.report import progress, say


def relock(stack: Stack, channels: Sequence[str]) -> str:
    """What to do about a lock that does not fit."""
    options = "".join(f" --channel {one}" for one in channels) + stack.options
    return f"if that is what you want: python3 release.py lock{options}, and review the diff"


def fill_channel(stack: Stack, lock: Path, channels: Sequence[str], cache: Path, channel: Path) -> list[RepoDataRecord]:
    """Have the locked packages and our own, indexed, in the new directory `channel`; return them, sorted by name.

    They come from `channels`, or else from wheels. `cache` may be deleted at any time. Raises UserError if that is not
    what the lock is of, or if it gives other packages than are locked.
    """
    if not lock.exists():
        raise UserError(f"there is no {lock}", relock(stack, channels))
    if channels:
        from_channels(stack, lock, channels, cache, channel)
    else:
        from_wheels(stack, lock, cache, channel)
    records = solve_environment([Channel(channel.as_uri())], stack.specs, PLATFORM)
    require_locked(records, lock, stack.own, relock(stack, channels))
    return records


def from_channels(stack: Stack, lock: Path, channels: Sequence[str], cache: Path, channel: Path) -> None:
    if pins_versions_only(lock):
        say(f"{os.path.relpath(lock)} pins versions only: each sha256 is the one that the channel's index says")
    records = find_locked(lock, stack.own, channels, PLATFORM)
    with progress(f"getting the packages from {', '.join(channels)}", len(records)) as report:
        corrected = fetch_packages(records, channel, cache / "archives", report)
    (channel / "noarch").mkdir(exist_ok=True)
    list(build_own_packages(stack, cache, channel / "noarch"))
    write_index(channel, corrected)


def from_wheels(stack: Stack, lock: Path, cache: Path, channel: Path) -> None:
    if not pins_versions_only(lock):
        options = "".join(f" --channel {one}" for one in lock_channels(lock) if one != "./channel") or " --channel ..."
        raise UserError(f"{lock} is one of conda channels", f"python3 release.py build{options}{stack.options}")
    if file_sha256(stack.wheels) not in lock.read_text():
        raise UserError(f"{lock} was made with another {stack.wheels.name}", relock(stack, ()))
    with progress("making conda packages of the wheels", len(pins.read(stack.wheels)) + 1 + len(stack.own)) as report:
        build_channel(stack, cache, channel, report)
