"""The one exception for people."""

# What a command's exit status means; README.md, "Exit codes". The installer's header.sh uses the same numbers.
ERROR, USAGE, PLATFORM, SPACE, INTEGRITY, BASE, HOOK, PORTS = range(1, 9)


class UserError(Exception):
    """Something the administrator can mend: what is wrong, what to do about it, and the exit status it deserves."""

    def __init__(self, what: str, fix: str = "", code: int = ERROR) -> None:
        super().__init__(what)
        self.fix = fix
        self.code = code
