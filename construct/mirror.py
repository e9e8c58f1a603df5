"""`release.py mirror DIR`: the locked packages as a static conda channel, and the wheels that a build needs.

What `--extract` of an installer does on the air-gapped side, this does on the connected one; the same shell script adds
packages to what is there. Beside them, DIR/wheels is for pip: `PIP_NO_INDEX=1 PIP_FIND_LINKS=DIR/wheels`.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from construct.packages import fill_channel
from recipe import pins
from recipe.channel import PLATFORM, fetch_wheels, running_target
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.overlay import Stack
from recipe.report import say

ADD_TO_CHANNEL = Path(__file__).with_name("add_to_channel.sh")


def mirror(stack: Stack, lock: Path | None, channels: Sequence[str], directory: Path) -> None:
    """Add the stack's packages to the channel in `directory`, which may be new. Twice is once.

    Raises UserError for what the person can mend; then the channel is as usable as before.
    """
    cache = stack.root / ".cache"
    cache.mkdir(exist_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()) and not (directory / "noarch/repodata.json").exists():
        raise UserError(f"{directory} is not empty and no channel", "name a new directory, or one that this has made")
    with tempfile.TemporaryDirectory(dir=cache, prefix="mirror-") as work, locked(directory):
        gathered = Path(work, "channel")
        fill_channel(stack, lock or stack.lock_for(PLATFORM), channels, cache, gathered)
        stage = directory / ".new"
        shutil.rmtree(stage, ignore_errors=True)
        try:
            shutil.copytree(gathered, stage)
            write_archive_sums(stage)
            add_to_channel(stage, directory)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        if not channels:
            add_wheels(stack, cache, directory / "wheels")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock that an installer's --extract takes as well. Raises UserError if somebody has it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"somebody else is adding to {directory}", "wait until that has finished") from None
    finally:
        os.close(descriptor)


def write_archive_sums(channel: Path) -> None:
    """Write SHA256SUMS over the archives; the index changes with each release."""
    archives = sorted([*channel.glob("*/*.conda"), *channel.glob("*/*.tar.bz2")])
    lines = [f"{file_sha256(path)}  {path.relative_to(channel)}\n" for path in archives]
    (channel / "SHA256SUMS").write_text("".join(lines))


def add_to_channel(source: Path, target: Path) -> None:
    """Move one channel's packages into another. Raises UserError, nothing changed, if they do not fit together."""
    done = subprocess.run(
        ["sh", ADD_TO_CHANNEL, source, target], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        what, _, fix = done.stderr.strip().removeprefix("error: ").partition("\n  fix: ")
        raise UserError(what, fix)
    say(done.stdout.strip())


def add_wheels(stack: Stack, cache: Path, directory: Path) -> None:
    """Have the wheels of the environment and of the tools that build it, for this Python, in `directory`."""
    target = running_target()
    paths = [wheel.path for wheel in fetch_wheels(stack.wheels, cache / "wheels", target).values()]
    with tempfile.TemporaryDirectory(dir=cache, prefix="tools-") as tools:
        pins.download(stack.root / "recipe/tools.txt", Path(tools), target.minor)
        paths += Path(tools).glob("*.whl")
        directory.mkdir(exist_ok=True)
        for path in paths:
            place = directory / path.name
            if not place.exists() or file_sha256(place) != file_sha256(path):
                staged = directory / f".{path.name}.new"
                shutil.copyfile(path, staged)
                staged.replace(place)
    staged = directory / ".SHA256SUMS.new"
    wheels = sorted(directory.glob("*.whl"))
    staged.write_text("".join(f"{file_sha256(path)}  {path.name}\n" for path in wheels))
    staged.replace(directory / "SHA256SUMS")
    say(f"{len(wheels)} wheels are in {os.path.relpath(directory)}")
