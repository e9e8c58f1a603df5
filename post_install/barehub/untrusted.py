"""How root reads a file that another account could have made.

The hub's and the proxy's directories belong to their accounts, and an administrator may keep a certificate anywhere. A
link there would make root read for someone else, a FIFO would make it wait, a sparse file would use up its memory, and
a damaged one would end it with a traceback. What such a file holds decides nothing that matters to root.
"""

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from barehub.errors import UserError, printable

LIMIT = 16 << 20  # bytes; the largest of these files has a few thousand routes or certificates


class UntrustedError(UserError):
    """A file that is not what it should be, and why."""

    def __init__(self, path: Path, why: str) -> None:
        name = printable(str(path), keep="")  # which may be another account's choice
        super().__init__(f"{name} {why}", f"check its type, owner, and content: ls -l {name}")


@contextlib.contextmanager
def opened(path: Path, *, follow: bool = False, directory: int | None = None) -> Iterator[int]:
    """Open a regular file that has no other names, for reading; yield its descriptor.

    A link is opened only with `follow`, for paths that an administrator has chosen, and other names matter only
    without. With `directory`, the descriptor of one, the file is the one of that name in it, wherever `path` leads by
    now. Raises FileNotFoundError if there is nothing, UntrustedError for anything else.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path if directory is None else path.name, flags, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UntrustedError(path, f"cannot be read: {error.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UntrustedError(path, "is not a plain file")
        if found.st_nlink != 1 and not follow:
            raise UntrustedError(path, "has other names, so it may be another account's file")
        yield descriptor
    finally:
        os.close(descriptor)


def content_of(descriptor: int, path: Path, limit: int = LIMIT) -> bytes:
    """Return all of an opened file, which is at `path`. Raises UntrustedError if that is more than `limit` bytes."""
    with open(descriptor, "rb", closefd=False) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UntrustedError(path, f"is larger than {limit >> 10} KB")
    return content


def read_bytes(path: Path, owners: Collection[int] | None = None, *, follow: bool = False) -> bytes:
    """Return the content of a file that `opened` opens.

    With `owners` it has to belong to one of these user ids, to root, or to this process. Raises as `opened` and
    `content_of`, and UntrustedError for another owner.
    """
    with opened(path, follow=follow) as descriptor:
        owner = os.fstat(descriptor).st_uid
        if owners is not None and owner not in {*owners, 0, os.geteuid()}:
            raise UntrustedError(path, f"belongs to the account with the number {owner}")
        return content_of(descriptor, path)


def make_way(path: Path) -> None:
    """Remove directories from where `process.write_atomically` is about to write, in a directory of another account.

    Its account has no other use for one there than to keep root from going on. Raises OSError.
    """
    for one in (path, path.with_name(f".{path.name}.new")):
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)


def holds(path: Path, content: bytes, mode: int, owner: tuple[int, int]) -> bool:
    """Return True if `path` is a file of this content, mode, and owner; -1 is any owner."""
    try:
        found = path.lstat()
        if (found.st_mode, found.st_size) != (stat.S_IFREG | mode, len(content)):
            return False
        if owner[0] not in (-1, found.st_uid) or owner[1] not in (-1, found.st_gid):
            return False
        return read_bytes(path) == content
    except (OSError, UntrustedError):
        return False


def read_text(path: Path, owners: Collection[int] | None = None) -> str:
    """Return the text of a file; raises as `read_bytes`."""
    return read_bytes(path, owners).decode(errors="replace")


def read_json(path: Path, owners: Collection[int] | None = None) -> Any:
    """Return what a JSON file holds; raises as `read_bytes`, and UntrustedError if it is not JSON."""
    return parse_json(read_text(path, owners), path)


def parse_json(text: str, path: Path) -> Any:
    """Return what a JSON text from `path` holds. Raises UntrustedError if it is damaged, or nested to do harm."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UntrustedError(path, f"is damaged: {error}") from None
