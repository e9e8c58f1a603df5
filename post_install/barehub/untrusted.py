"""How root reads a file that another account could have made.

The hub's and the proxy's directories belong to their accounts, and an administrator may keep a certificate anywhere. A
link there would make root read for someone else, a FIFO would make it wait, a sparse file would use up its memory, and
a damaged one would end it with a traceback. What such a file holds decides nothing that matters to root.
"""

import json
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

from barehub.errors import UserError

LIMIT = 16 << 20  # bytes; the largest of these files has a few thousand routes or certificates


class UntrustedError(UserError):
    """A file that is not what it should be."""


def read_bytes(
    path: Path, owners: Collection[int] | None = None, *, follow: bool = False, directory: int | None = None
) -> bytes:
    """Return the content of a regular file of at most LIMIT bytes that has no other names.

    With `owners` it has to belong to one of these user ids, to root, or to this process. A link is read only with
    `follow`, for paths that an administrator has chosen. Raises FileNotFoundError if there is nothing, UntrustedError
    for anything else.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UntrustedError(f"{path} cannot be read: {error.strerror}", f"look at it: ls -l {path}") from None
    try:
        if reason := complaint(os.fstat(descriptor), owners, follow=follow):
            raise UntrustedError(f"{path} {reason}", f"look at it: ls -l {path}")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(LIMIT + 1)
    finally:
        os.close(descriptor)
    if len(content) > LIMIT:
        raise UntrustedError(f"{path} is larger than {LIMIT >> 20} MB", f"look at it: ls -l {path}")
    return content


def complaint(found: os.stat_result, owners: Collection[int] | None, *, follow: bool) -> str:
    """Return what is wrong with a file that is about to be read; empty if nothing is."""
    if not stat.S_ISREG(found.st_mode):
        return "is not a plain file"
    if found.st_nlink != 1 and not follow:
        return "has other names, so it may be another account's file"
    if owners is not None and found.st_uid not in {*owners, 0, os.geteuid()}:
        return f"belongs to the account with the number {found.st_uid}"
    if found.st_size > LIMIT:
        return f"is larger than {LIMIT >> 20} MB"
    return ""


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
        raise UntrustedError(f"{path} is damaged: {error}", f"look at it: ls -l {path}") from None
