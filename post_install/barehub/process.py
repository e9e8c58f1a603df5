"""One door out to other programs, files that are written whole or not at all, and the lock on BASE."""

import contextlib
import fcntl
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from barehub.errors import BASE, UserError


def attempt(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command quietly and return what became of it; a missing program is exit status 127."""
    words = [os.fspath(word) for word in argv]
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: not found")


def output(*argv: str | Path) -> str:
    """Run a command quietly and return what it printed. Raises UserError with its stderr if it fails."""
    done = attempt(*argv)
    if done.returncode:
        raise UserError(f"{shlex.join(done.args)} exited with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def write_atomically(path: Path, text: str, mode: int = 0o644, owner: tuple[int, int] = (-1, -1)) -> bool:
    """Give `path` this text and mode so that readers see the old or the new content, also after a power cut.

    The file gets its mode, and its owner and group, before its first byte. Returns False if it was so already and
    nothing was written.
    """
    if path.is_file() and path.read_text() == text and path.stat().st_mode & 0o777 == mode:
        found = path.stat()
        if owner[0] in (-1, found.st_uid) and owner[1] in (-1, found.st_gid):
            return False
    staged = path.with_name(f".{path.name}.new")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w") as file:
        os.fchmod(descriptor, mode)  # whatever the umask
        os.fchown(descriptor, *owner)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    staged.replace(path)
    sync_directory(path.parent)
    return True


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(base: Path) -> Iterator[None]:
    """Hold the lock that installers take on BASE. Raises UserError if one has it."""
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"an installer is at work in {base}", "wait until it has finished", BASE) from None
    finally:
        os.close(descriptor)
