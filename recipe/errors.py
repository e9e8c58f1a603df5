"""The one exception for what the operator can fix."""


class UserError(Exception):
    """Says what is wrong, and in `fix` what to do about it.

    Raised where the fact is known, printed once in `main()`. Any other exception is our bug.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.fix = fix
