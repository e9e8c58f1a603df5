"""`release.py mirror DIR`: the locked packages as a static conda channel, and the wheels and interpreter of a build.

It does on the connected side what `--extract` of an installer does on the air-gapped one; the same shell script adds
the packages to those already there. DIR/wheels is for pip: `PIP_NO_INDEX=1 PIP_FIND_LINKS=DIR/wheels`. DIR/python is
for `--python-mirror`.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from construct.conda_ship import fetch_other
from construct.index import add_to_channel, write_archive_sums
from construct.packages import fill_channel, read_lock
from recipe import pins
from recipe.channel import fetch_wheels
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.metadata import MACHINES, PLATFORM
from recipe.overlay import Stack
from recipe.report import say
from recipe.shipped import running_target
from recipe.standalone import THIS_MACHINE, pinned_archive


def mirror(
    stack: Stack,
    lock: Path | None,
    channels: Sequence[str],
    directory: Path,
    platform: str = PLATFORM,
    python_mirror: str = "",
) -> None:
    """Add the stack's packages to the channel in `directory`, which may be new. Running it twice changes nothing more.

    The packages and the interpreter are for `platform`; the last two parameters are those of `fill_channel`. Raises
    UserError for what the operator can fix; the channel is then as usable as before.
    """
    locked = read_lock(stack, lock, channels, platform)
    cache = stack.root / ".cache"
    cache.mkdir(exist_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()) and not (directory / "noarch/repodata.json").exists():
        raise UserError(f"{directory} is neither empty nor a channel", "name a new directory, or an existing mirror")
    with tempfile.TemporaryDirectory(dir=cache, prefix="mirror-") as work, exclusive(directory):
        gathered = Path(work, "channel")
        fill_channel(stack, locked, channels, cache, gathered, platform, python_mirror)
        stage = directory / ".new"
        shutil.rmtree(stage, ignore_errors=True)
        try:
            shutil.copytree(gathered, stage)
            write_archive_sums(stage)
            say(add_to_channel(stage, directory))
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        # What a build needs before it reads a channel, and the wheels in its place.
        add_wheels(stack, cache, directory / "wheels", platform, environment=not channels)
        for machine in sorted({THIS_MACHINE, MACHINES[platform]}):
            if interpreter := pinned_archive(cache / "python", machine):
                add_file(interpreter, directory / "python")
                say(f"the interpreter for {machine} is in {os.path.relpath(directory / 'python')}: --python-mirror")


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the flock that an installer's --extract takes as well. Raises UserError if another process has it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"another process is adding to {directory}", "wait until it has finished") from None
    finally:
        os.close(descriptor)


def add_wheels(stack: Stack, cache: Path, directory: Path, platform: str, *, environment: bool) -> None:
    """Add the wheels of the tools that build with this Python, and those of the environment, to `directory`."""
    target = replace(running_target(), platform=platform)
    wheels = fetch_wheels(stack.wheels, cache / "wheels", target) if environment else {}
    paths = [wheel.path for wheel in wheels.values()]
    with tempfile.TemporaryDirectory(dir=cache, prefix="tools-") as tools:
        pins.download(stack.root / "recipe/tools.txt", Path(tools), target.minor)
        if platform != PLATFORM:
            fetch_other(stack.root / "recipe/tools.txt", platform, Path(tools))
        paths += Path(tools).glob("*.whl")
        for path in paths:
            add_file(path, directory)
    staged = directory / ".SHA256SUMS.new"
    there = sorted(directory.glob("*.whl"))
    staged.write_text("".join(f"{file_sha256(path)}  {path.name}\n" for path in there))
    staged.replace(directory / "SHA256SUMS")
    say(f"{len(there)} wheels are in {os.path.relpath(directory)}")


def add_file(path: Path, directory: Path) -> None:
    """Copy a file into `directory`, made if it is missing, unless the same file is there."""
    directory.mkdir(exist_ok=True)
    place = directory / path.name
    if not place.exists() or file_sha256(place) != file_sha256(path):
        staged = directory / f".{path.name}.new"
        shutil.copyfile(path, staged)
        staged.replace(place)
