"""The directory in which a server starts, as a user names it: below the home, or from the root."""

import posixpath
from typing import Any

from barehub_slurm.access import RefusedError

PATH_MAX = 4096  # linux/limits.h


def directory(asked: Any) -> str:
    """Return the path as the job's script goes to it from the home, empty for the home itself. Raises RefusedError.

    `~` and `~/a` are understood, another user's `~ada` is not. Whether it is there, only the node knows.
    """
    if not asked:
        return ""
    if not isinstance(asked, str) or not asked.isprintable() or len(asked) >= PATH_MAX:
        raise RefusedError(f"Working directory: {str(asked)[:40]!r} is no path")
    path = asked.strip()
    if path == "~" or path.startswith("~/"):
        path = path[2:]
    elif path.startswith("~"):
        raise RefusedError(f"Working directory: write {path[:40]} as a path from the root")
    path = posixpath.normpath(path) if path else "."
    return "" if path == "." else path if path.startswith("/") else f"./{path}"
