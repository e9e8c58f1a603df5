"""What an administrator tells people by a file in BASE. It is read whenever a page is shown, and upgrades keep it.

    announcement.md     on the hub's own pages
    maintenance.md      on the page that stands in for the hub while it is away (barehub.proxy_unit.pages)

The text becomes HTML with paragraphs, line breaks, **bold**, # headings in bold, and links. Everything else, HTML for
example, is shown as it was written. The hub environment holds no Markdown library.

There is no maintenance that lets some people through by name. The proxy does not know who asks. JupyterHub does after
the login, but its pages are only a part of it: the API, and an address that starts a server, would have to be closed to
the others as well, inside JupyterHub's own handlers. While the hub is stopped, all of them are closed.
"""

import os
import re
from html import escape
from pathlib import Path
from typing import Any

from barehub.errors import UserError
from barehub.layout import Layout
from barehub.untrusted import UntrustedError, content_of, opened

MARKS = re.compile(
    r"^\#{1,6}[ ]+(?P<heading>.+)$"
    r"|\*\*(?P<bold>[^*\n]+)\*\*"
    r"|\[(?P<name>[^\[\]]+)\]\((?P<target>(?:https?://|mailto:|/)[^\s()]+)\)"
    r"|(?P<bare>https?://[^\s()<>\"]*[^\s()<>\".,:;!?])",
    re.MULTILINE,
)


def as_html(text: str) -> str:
    """Return a text as HTML, escaped but for the marks above; nothing for a blank one."""
    # Not <p>: a box with space of its own is around it, JupyterHub's or that of the page.
    text = re.sub(r"\n\s*\n", "\n\n", text.replace("\r\n", "\n").strip())
    done, parts = 0, []
    for found in MARKS.finditer(text):
        parts += [escape(text[done : found.start()]), element(found)]
        done = found.end()
    return "<br>".join(("".join(parts) + escape(text[done:])).splitlines())


def element(found: re.Match[str]) -> str:
    """Return the HTML element for one mark."""
    if strong := found["heading"] or found["bold"]:
        return f"<strong>{escape(strong)}</strong>"
    target = found["target"] or found["bare"]
    return f'<a href="{escape(target)}">{escape(found["name"] or target)}</a>'


def text_of(path: Path) -> str:
    """Return what such a file says; nothing if there is none.

    Raises UntrustedError if it cannot be read, or if another account than root and the owner of BASE can change it.
    """
    try:
        with opened(path) as descriptor:
            found = os.fstat(descriptor)
            if found.st_uid not in (0, path.parent.stat().st_uid) or found.st_mode & 0o022:
                raise UntrustedError(path, "can be changed by other accounts")
            return content_of(descriptor, path).decode(errors="replace")
    except FileNotFoundError:
        return ""


def shown(path: Path) -> str:
    """Return what a page shows of such a file, as HTML; nothing if there is none, or none that can be trusted."""
    try:
        return as_html(text_of(path))
    except UserError:
        return ""  # `barehub status` says so


class Announcement:
    """JupyterHub's template variable `announcement`, which its pages show as the HTML that it is (`| safe`).

    While there is no file, it is what the configuration has set; a callable gets the user whom the page is for.
    """

    def __init__(self, path: Path, otherwise: Any = "") -> None:
        self.path = path
        self.otherwise = otherwise

    def __call__(self, user: Any) -> "Announcement":
        return Announcement(self.path, self.otherwise(user) if callable(self.otherwise) else self.otherwise)

    def __html__(self) -> str:
        return shown(self.path) or str(self.otherwise or "")

    def __bool__(self) -> bool:
        return bool(self.__html__())


def register_announcement(layout: Layout, config: Any) -> None:
    """Let the hub's pages show BASE/announcement.md: set the template variable in its configuration."""
    found = config.JupyterHub.get("template_vars", {})
    variables = found.get_value({}) if hasattr(found, "get_value") else found  # of a file that has only added to it
    ours = {"announcement": Announcement(layout.announcement, variables.get("announcement", ""))}
    config.JupyterHub.template_vars = {**variables, **ours}


def complaint(path: Path) -> str:
    """Return why hub and proxy do not show such a file; nothing if they do, or if there is none."""
    try:
        if not text_of(path) or os.geteuid() != 0 or path.stat().st_mode & 0o004:
            return ""
    except UserError as error:
        return f"{error}, so it is not shown: {error.fix}"
    return f"{path} cannot be read by the accounts of hub and proxy, so it is not shown: chmod 644 {path}"
