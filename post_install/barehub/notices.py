"""What an administrator tells people by a file in BASE. It is read whenever a page is shown, and upgrades keep it.

    announcement.md     on the hub's own pages
    maintenance.md      there, too, and the hub is closed to most people (barehub.maintenance); also on the page that
                        stands in for the hub while it is away (barehub.proxy_unit.pages)
    maintenance.html    closes the hub, too, and is itself the page that both show

The text becomes HTML with paragraphs, line breaks, **bold**, # headings in bold, and links. Everything else, HTML for
example, is shown as it was written. The hub environment holds no Markdown library. A page is shown as it is.
"""

import os
import re
from html import escape
from pathlib import Path
from typing import Any

from barehub.errors import UserError
from barehub.layout import Layout
from barehub.process import call_as
from barehub.untrusted import UntrustedError, content_of, opened

SECONDS = 10.0  # for another account to look
SIZE = 1 << 18  # bytes; the page is sent to everybody who waits
# Of a page: its styles and pictures are in it. It comes from the hub's address: no script gets the rights of a reader.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
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


def text_of(path: Path) -> str | None:
    """Return what such a file says; None if there is none.

    Raises UntrustedError if it cannot be read, is larger than SIZE, or if another account than root and the owner of
    BASE can change it.
    """
    try:
        with opened(path) as descriptor:
            found = os.fstat(descriptor)
            if found.st_uid not in (0, path.parent.stat().st_uid) or found.st_mode & 0o022:
                raise UntrustedError(path, "can be changed by other accounts")
            return content_of(descriptor, path, SIZE).decode("utf-8-sig", errors="replace")
    except FileNotFoundError:
        return None


def is_there(path: Path) -> bool:
    """Return True if there is such a file that can be trusted, even an empty one."""
    try:
        return text_of(path) is not None
    except UserError:
        return False  # `barehub status` says so


def places(layout: Layout) -> dict[str, Path]:
    """Return where the files would be, by the names that `barehub status` has for them."""
    page = layout.maintenance_page
    return {"announcement": layout.announcement, "maintenance": layout.maintenance, "maintenance page": page}


def closing(layout: Layout) -> tuple[Path, Path]:
    """Return the files that close the hub, either of them."""
    return layout.maintenance, layout.maintenance_page


def is_there_for(user: str, *paths: Path) -> bool:
    """Return True if there is one of these files for this account; False if it can read none."""
    try:
        return call_as(user, lambda: "yes" if any(map(is_there, paths)) else "", {}, SECONDS) == "yes"
    except UserError:
        return False  # there is no such account


def shown(path: Path) -> str:
    """Return what a page shows of such a file, as HTML; nothing if there is none, or none that can be trusted."""
    try:
        return as_html(text_of(path) or "")
    except UserError:
        return ""  # `barehub status` says so


def page(layout: Layout) -> str:
    """Return BASE/maintenance.html; nothing if there is none, or none that can be trusted."""
    try:
        return text_of(layout.maintenance_page) or ""
    except UserError:
        return ""  # `barehub status` says so


class Announcement:
    """JupyterHub's template variable `announcement`, which its pages show as the HTML that it is (`| safe`).

    What maintenance.md says comes first. While there is no announcement.md, what the configuration has set is shown in
    its place; a callable gets the user whom the page is for.
    """

    def __init__(self, layout: Layout, otherwise: Any = "") -> None:
        self.layout = layout
        self.otherwise = otherwise

    def __call__(self, user: Any) -> "Announcement":
        return Announcement(self.layout, self.otherwise(user) if callable(self.otherwise) else self.otherwise)

    def __html__(self) -> str:
        announced = shown(self.layout.announcement) or str(self.otherwise or "")
        return "<hr>".join(filter(None, (shown(self.layout.maintenance), announced)))

    def __bool__(self) -> bool:
        return bool(self.__html__())


def register_announcement(layout: Layout, config: Any) -> None:
    """Let the hub's pages show BASE/announcement.md: set the template variable in its configuration."""
    found = config.JupyterHub.get("template_vars", {})
    variables = found.get_value({}) if hasattr(found, "get_value") else found  # of a file that has only added to it
    ours = {"announcement": Announcement(layout, variables.get("announcement", ""))}
    config.JupyterHub.template_vars = {**variables, **ours}


def complaint(path: Path) -> str:
    """Return why hub and proxy do not show such a file; nothing if they do, or if there is none."""
    try:
        if text_of(path) is None or os.geteuid() != 0 or path.stat().st_mode & 0o004:
            return ""
    except UserError as error:
        return f"{error}, so it is not shown: {error.fix}"
    return f"{path} cannot be read by all accounts of hub and proxy, so it is not shown by both: chmod 644 {path}"
