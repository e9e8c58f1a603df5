"""Maintenance: while BASE/maintenance.md or .html is there, the hub is open only to those who maintain it.

These are the hub's administrators and the members of its group `maintenance`. The proxy does not know who asks, and
JupyterHub has no setting for this. So the step that all of its handlers begin with, which finds out who asks, gets one
more check. A handler of JupyterHub's own is closed unless it is named here: a new version's new page is closed, too.
Handlers of others stay open. They belong to authenticators (the way in) and to spawners (servers report there).

What running servers need stays open, since they continue. Services continue as well: the idle culler stops servers,
`barehub` asks about them for an upgrade. But none starts one.
"""

import functools
from html import escape
from typing import Any

from jupyterhub.apihandlers import APIHandler
from jupyterhub.handlers import BaseHandler
from jupyterhub.orm import Service
from tornado.httputil import url_concat
from tornado.web import HTTPError

from barehub import notices
from barehub.layout import Layout

GROUP = "maintenance"
RETRY = 60  # seconds
# The way in and out, who has logged in at a server and what it may do, and the numbers.
OPEN_MODULES = {"jupyterhub.handlers.login", "jupyterhub.handlers.metrics", "jupyterhub.apihandlers.auth"}
OPEN = {
    *("HealthCheckHandler", "RootAPIHandler", "CSPReportHandler"),
    *("AddSlashHandler", "PrefixRedirectHandler"),  # at addresses outside of the hub's, where nobody's login is known
    *("SelfAPIHandler", "ActivityAPIHandler"),  # what running servers ask and report
}
STARTS = "UserServerAPIHandler"


class ClosedError(HTTPError):
    """The answer to those who wait: JupyterHub shows it as a page, its API as JSON."""

    def __init__(self, handler: Any) -> None:
        super().__init__(503, reason="Closed for maintenance")
        who, settings = handler.current_user, handler.settings
        login = url_concat(settings["login_url"], {"next": handler.request.uri})
        way, link = ("Log out", settings["logout_url"]) if who else ("Administrators: log in", login)
        self.headers = {"Retry-After": str(RETRY), "Refresh": str(RETRY), "Cache-Control": "no-store"}
        self.jupyterhub_message = "the hub is closed for maintenance: try again later"
        self.jupyterhub_html_message = (
            '<span class="d-block fs-5 mb-4">Servers that are running continue, with their notebooks and kernels.<br>'
            "This page reloads every minute until the hub is open again.</span>"
            f'<a class="btn btn-sm btn-outline-contrast" href="{escape(link)}">{way}</a>'
        )


def close_during_maintenance(layout: Layout) -> None:
    """Let JupyterHub's handlers in this process obey BASE/maintenance.md and .html."""
    prepare = getattr(BaseHandler.prepare, "__wrapped__", BaseHandler.prepare)  # the configuration may load twice

    @functools.wraps(prepare)
    async def prepare_unless_closed(handler: Any) -> None:
        await prepare(handler)
        if is_closed(handler, layout):
            page = "" if isinstance(handler, APIHandler) else notices.page(layout)
            if not page:
                raise ClosedError(handler)
            show(handler, page)

    BaseHandler.prepare = prepare_unless_closed


def show(handler: Any, page: str) -> None:
    """Answer with a site's own page, in place of JupyterHub's."""
    closed = ClosedError(handler)
    handler.set_status(closed.status_code, closed.reason)
    ours = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": notices.POLICY}
    for name, value in (closed.headers | ours).items():
        handler.set_header(name, value)
    handler.finish(page)


def is_closed(handler: Any, layout: Layout) -> bool:
    """Return True if maintenance keeps the one who asks from this handler of JupyterHub's."""
    if is_open(type(handler)) or not any(map(notices.is_there, notices.closing(layout))):
        return False
    who = handler.current_user
    if isinstance(who, Service):
        return type(handler).__name__ == STARTS and handler.request.method == "POST"
    return not (who and (who.admin or any(group.name == GROUP for group in who.groups)))


def is_open(kind: type) -> bool:
    """Return True for a class of handlers that maintenance does not close."""
    return not kind.__module__.startswith("jupyterhub.") or kind.__module__ in OPEN_MODULES or kind.__name__ in OPEN
