"""The one exception for what the operator can fix, and what must not be in any message."""

import re

# A URL up to the end of its user and password, however they are written; conda's token; a query, which may hold a key.
SECRETS = (
    (re.compile(r"(://)[^\s'\"<>]*@"), r"\1"),
    (re.compile(r"(://[^\s'\"<>]*?/t/)[^/\s'\"<>()?]+"), r"\1***"),
    (re.compile(r"(://[^\s'\"<>?]+\?)[^\s'\"<>()]+"), r"\1***"),
)


class UserError(Exception):
    """Says what is wrong, and in `fix` what to do about it; of URLs without user, password and token.

    Raised where the fact is known, printed once in `main()`. Any other exception is our bug.
    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(masked(what))
        self.fix = masked(fix)


def masked(text: str) -> str:
    """Return a text whose URLs have no user, no password and no token."""
    for secret, instead in SECRETS:
        text = secret.sub(instead, text)
    return text
