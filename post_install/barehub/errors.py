"""The one exception that is meant for people, and what a command's exit status means."""

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
    return f"error: {error}" + (f"\n  fix: {error.fix}" if error.fix else "")
