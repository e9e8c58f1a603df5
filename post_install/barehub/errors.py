"""The one exception that is meant for people, and what a command's exit status means."""

import logging
from enum import IntEnum


class Exit(IntEnum):
    """The exit statuses; ADMIN.md, "Exit codes". The installer's header.sh uses the same numbers."""

    ERROR = 1
    USAGE = 2
    PLATFORM = 3
    SPACE = 4
    INTEGRITY = 5
    BASE = 6
    HOOK = 7
    PORTS = 8


class UserError(Exception):
    """Something the administrator can fix: what is wrong, what to do about it, and the exit status it deserves.

    `code` is an Exit, or the status of a program that has failed.
    """

    def __init__(self, what: str, fix: str = "", code: int = Exit.ERROR) -> None:
        super().__init__(what)
        self.fix = fix
        self.code = code


def render(error: UserError) -> str:
    """Return an error as people see it: what is wrong, and below that what to do."""
    return printable(f"error: {error}" + (f"\n  fix: {error.fix}" if error.fix else ""))


def printable(text: str, keep: str = "\n\t") -> str:
    """Return a text that does nothing to a terminal or a log, whoever wrote parts of it: a user, or a user's program.

    Control characters, also those that turn the direction of writing, become \\x1b and the like, except those to
    `keep`. A name keeps none: with a new line in it, it could pass for a message of ours.
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


class PrintableRecord(logging.LogRecord):
    """A line of the hub's log, for `logging.setLogRecordFactory`: JupyterHub puts into it what users have typed."""

    def getMessage(self) -> str:  # noqa: N802 - logging's own name
        return printable(super().getMessage())
