"""What differs in a release's prefix from its manifest."""

import contextlib
import hashlib
import importlib.util
import marshal
import os
import re
import stat
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

from barehub.accounts import has_capabilities, others_can_write
from barehub.manifest import RECORDS, Entry, walk, without_prefix

# The parts of a code object that `==` does not compare in each version of Python.
PARTS = ("co_flags", "co_stacksize", "co_qualname", "co_linetable", "co_exceptiontable")


@dataclass(frozen=True, order=True)
class Finding:
    """A path below the prefix, and what is wrong with it: modified, missing, extra, exposed, or unknown, and why."""

    path: str
    what: str
    why: str = ""


class ModifiedError(Exception):
    """A file is not what it should be, and why."""


class BusyError(OSError):
    """A file was changed while it was read."""


def differences(
    prefix: Path, manifest: Mapping[str, Entry], added: Mapping[str, str], owners: frozenset[int]
) -> list[Finding]:
    """Return what differs from the manifest in a prefix.

    `added` are files of packages that did not come with it, by path, with their sha256 if it is known. Bytecode may
    come and go, if it is what Python makes of the file beside it. `owners` are the accounts that may change files.
    """
    findings: list[Finding] = []

    def unknown(error: OSError) -> None:
        path = Path(error.filename).relative_to(prefix).as_posix()
        findings.append(Finding("" if path == "." else f"{path}/", "unknown", error.strerror or ""))

    found = dict(walk(prefix, unknown))
    closed = tuple(one.path for one in findings)
    expected = {path: Entry(sha256) for path, sha256 in added.items()} | dict(manifest)
    for path in expected.keys() - found.keys():
        if not path.startswith(closed) and not (path in added and path.endswith(".pyc")):
            findings.append(Finding(path, "missing"))
    for path, status in found.items():
        if why := exposed(prefix / path, status, owners):
            findings.append(Finding(path, "exposed", why))
        if path.endswith("/") or RECORDS.fullmatch(path):
            continue
        if path not in expected and not is_bytecode_of(path, expected):
            findings.append(Finding(path, "extra"))
            continue
        try:
            check(prefix, path, status, expected.get(path))
        except ModifiedError as error:
            findings.append(Finding(path, "modified", str(error)))
        except FileNotFoundError:
            findings.append(Finding(path, "missing", "it was removed meanwhile"))
        except OSError as error:
            findings.append(Finding(path, "unknown", error.strerror or str(error)))
    return sorted(findings)


def exposed(path: Path, status: os.stat_result, owners: frozenset[int]) -> str:
    """Return why another account than `owners` can change a file or what is in a directory, or get its owner's rights.

    Empty if none can.
    """
    if status.st_uid not in owners:
        return f"it belongs to the account with the number {status.st_uid}"
    if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return "whoever runs it gets its owner's or its group's rights"
    if stat.S_ISREG(status.st_mode) and has_capabilities(path):
        return "whoever runs it gets rights of root's: setcap -r takes them away"
    if stat.S_ISLNK(status.st_mode):
        return ""
    if others_can_write(path, status):
        return f"other accounts can change it: its mode is {stat.S_IMODE(status.st_mode):o}"
    return ""


def check(prefix: Path, path: str, status: os.stat_result, entry: Entry | None) -> None:
    """Check a file or link against its entry. Without one it is bytecode of a file that is expected.

    Raises ModifiedError if it differs, OSError if it cannot be read.
    """
    if entry and entry.target:
        if not stat.S_ISLNK(status.st_mode) or (prefix / path).readlink() != Path(entry.target):
            raise ModifiedError(f"is no link to {entry.target}")
        return
    if not stat.S_ISREG(status.st_mode):
        raise ModifiedError("is no plain file")
    if entry and entry.sha256 and sha256_of(prefix / path, prefix if entry.relocated else None) == entry.sha256:
        if entry.program and not status.st_mode & 0o100:
            raise ModifiedError("cannot be run: its mode was changed")
        return
    if path.endswith(".pyc") and (source := source_of(path)):
        if not is_compiled_from(read(prefix / path), prefix / source, optimization(path)):
            raise ModifiedError(f"is not what {Path(source).name} compiles to")
    elif entry and entry.sha256:
        raise ModifiedError("is empty" if status.st_size == 0 else "")


def sha256_of(path: Path, prefix: Path | None) -> str:
    """Return the sha256 of a file; with `prefix`, of its content without that path. Raises as `read`."""
    if prefix:
        return hashlib.sha256(without_prefix(read(path), prefix)).hexdigest()
    with opened(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> bytes:
    """Return the content of a plain file. Raises OSError if it cannot be read, BusyError if it changes meanwhile."""
    with opened(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return file.read()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a plain file for the block. Raises OSError, BusyError if it has changed at the block's end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before = os.fstat(descriptor)
        yield descriptor
        after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
            after.st_size,
            after.st_mtime_ns,
            after.st_ctime_ns,
        ):
            raise BusyError("it was changed while it was read")
    finally:
        os.close(descriptor)


# --- bytecode ---------------------------------------------------------------------------------------------------------


def source_of(path: str) -> str:
    """Return the path of the source that Python reads bytecode at `path` for; empty if there is none."""
    try:
        source = importlib.util.source_from_cache(path)
    except ValueError:
        return ""
    # Bytecode of another Python has another place, and ours does not read it.
    ours = importlib.util.cache_from_source(source, optimization=optimization(path))
    return source if ours == path else ""


def optimization(path: str) -> str:
    """Return the level in the name of a file with bytecode: empty, 1 or 2 (PEP 488)."""
    match = re.search(r"\.opt-([12])\.pyc$", path)
    return match[1] if match else ""


def is_bytecode_of(path: str, expected: Mapping[str, Entry]) -> bool:
    """Return True if Python could have made the file at `path` from an expected one."""
    return path.endswith(".pyc") and source_of(path) in expected


def is_compiled_from(bytecode: bytes, source: Path, level: str) -> bool:
    """Return True if bytecode is what this Python makes of the file `source` at that level.

    The head, which tells the time and size of the source, and the path that tracebacks show, make no difference.
    """
    try:
        code = marshal.loads(memoryview(bytecode)[16:])  # noqa: S302 - it is compared, never run
        with warnings.catch_warnings(action="ignore"):
            wanted = compile(read(source), code.co_filename, "exec", dont_inherit=True, optimize=int(level or 0))
    except (FileNotFoundError, IsADirectoryError):  # a source that is not there has a finding of its own
        return False
    except (EOFError, ValueError, TypeError, AttributeError, SyntaxError, RecursionError, MemoryError):
        return False
    return bytecode[:4] == importlib.util.MAGIC_NUMBER and is_same(code, wanted)


def is_same(one: CodeType, other: CodeType) -> bool:
    """Return True if two code objects, and those within them, do the same."""
    return (
        one == other
        and all(getattr(one, part) == getattr(other, part) for part in PARTS)
        and all(
            is_same(mine, theirs)
            for mine, theirs in zip(one.co_consts, other.co_consts, strict=True)
            if isinstance(mine, CodeType)
        )
    )
