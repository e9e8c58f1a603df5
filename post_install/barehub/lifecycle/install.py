"""The post-install hooks: from a filled release prefix to a running hub. Safe to run twice.

The installer's shell header runs this with the new release's own interpreter, BASE locked, and the release complete.
Every step is named by its verb and leaves a state; if that state exists already, the step changes nothing.
"""

import socket
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from barehub import accounts, systemd
from barehub.errors import Exit, UserError
from barehub.health import Endpoints
from barehub.layout import Layout, release_key
from barehub.lifecycle import changes
from barehub.lifecycle.options import Request, choose_settings
from barehub.lifecycle.ports import other_installations
from barehub.lifecycle.releases import remove_older
from barehub.lifecycle.restore import finish, restore
from barehub.lifecycle.servers import ForgottenError
from barehub.lifecycle.switchover import Switchover
from barehub.lifecycle.upgrade_rehearsal import rehearse, rehearse_alone
from barehub.process import signals_later
from barehub.proxy_unit.certificates import examine
from barehub.proxy_unit.renewal import Source
from barehub.settings import Installation, Settings

Say = Callable[[str], None]


def install(layout: Layout, request: Request, say: Say) -> None:
    """Make `request.release` the active release of `layout.base` and, where systemd runs, start it.

    Raises UserError; then what was active before is active, with its settings and database, and running if it ran.
    """
    require_complete(layout, request.release)
    check_certificate(request)  # before a restore puts anything in place
    restore(layout, request, say)
    before = Settings.load(layout)
    new = Installation(layout, choose_settings(before, request, shared_by_default=chose_shared_account(layout)))
    managed = systemd.systemd_runs(layout)
    if (request.rehearse or request.canary) and not managed:
        raise UserError("a rehearsal needs systemd", "leave out --rehearse and --canary", Exit.USAGE)
    if request.rehearse:
        rehearse_alone(new, before, request, say)
        return
    if managed:
        systemd.require_version(layout.oldest_systemd(request.release))
        systemd.require_no_foreign_units(new)
        new = with_proxy_account(new, say)
    then = changes.observe(new, managed=managed)
    switchover = Switchover(new, before, request, managed=managed, say=say)
    try:
        plan = switchover.prepare()
        if request.canary and switchover.switches:
            rehearse(new, request, say)
        plan = switchover.stop_hub(plan)
        switchover.commit(plan)
    except BaseException as error:  # Ctrl-C and signals too
        with signals_later():  # a second one must not cut this short
            switchover.roll_back(data_changed=isinstance(error, ForgottenError))
        if isinstance(error, OSError):
            raise UserError(str(error), "fix the cause, then run the installer again", Exit.HOOK) from error
        raise
    plan.migration.finish()
    finish(layout)
    previous = switchover.previous
    if previous and release_key(request.release) > release_key(previous):
        remove_older(new, previous, keep=request.keep, say=say)
    print_summary(
        new,
        plan.endpoints,
        previous,
        first=not (previous or request.restore),
        running=managed and request.start,
        say=say,
    )
    more = {"database": plan.migration.done, "files": request.restart, "channel": request.kept_channel}
    now = changes.observe(new, managed=managed)
    say(changes.last_line(then, now, *(name for name, changed in more.items() if changed)))


def require_complete(layout: Layout, release: str) -> None:
    """Check that the release has its receipt. Raises UserError if not."""
    if not layout.receipt(release).is_file():
        raise UserError(f"{layout.release(release)} is not complete", "run its installer again", Exit.HOOK)


def chose_shared_account(layout: Layout) -> bool:
    """Return True if the active release is one of those that took www-data for the proxy: their receipts are older."""
    return layout.active in layout.complete and not layout.oldest_systemd(layout.active or "")


def check_certificate(request: Request) -> None:
    """Check the certificate that the options name. Raises UserError if it cannot be served."""
    if request.tls_cert and request.tls_key:
        examine(*Source(request.tls_cert, request.tls_key).read(), ())


def with_proxy_account(new: Installation, say: Say) -> Installation:
    """Create the proxy's own account if it is to be used and missing; return the installation that knows so."""
    settings = new.settings
    if settings.proxy_user == accounts.own_account(settings.name) and accounts.create_account(settings.proxy_user):
        say(f"created the account {settings.proxy_user}")
        settings = replace(settings, created_account=settings.proxy_user)
    return Installation(new.layout, settings)


def print_summary(
    installation: Installation, endpoints: Endpoints, previous: str | None, *, first: bool, running: bool, say: Say
) -> None:
    """Print what an administrator needs next: where it answers, and how to start, configure, check and roll back.

    `first` tells that nothing has been configured yet.
    """
    layout, settings = installation.layout, installation.settings
    active = layout.active or ""
    url = endpoints.public.replace("127.0.0.1", socket.gethostname(), 1)
    what = f"{layout.distribution(active)} {active}"
    say("")
    if running:
        say(f"{what} is running at {url}")
        if not systemd.lingers():
            say("  warning: it stops when you log out, since lingering is off: loginctl enable-linger")
    elif systemd.systemd_runs(layout):
        say(f"{what} is installed; it was not started")
        say(f"  start   {systemd.advice('systemctl', 'start', settings.target)}")
    else:
        say(f"{what} is installed; nothing was started, since this account has no systemd")
        say(f"  start   {layout.hub}/bin/barehub run      in the foreground; it answers at {url}")
    if first:
        say("  log in  no user can until an authenticator allows it: for instance")
        say(f"          {layout.hub}/share/barehub/examples/50-pam-users.py")
        say(f"  config  {layout.config}/*.py, then: {systemd.advice('systemctl', 'reload', settings.hub_unit)}")
        others = other_installations(layout)
        if others and urlsplit(url).path == "/":
            say(f"  cookies do not know ports: in one browser, a login here ends one at the hub of {others[0].base},")
            say("          unless one of them has its own path or host name, such as")
            say(f"          --bind-url http://:{urlsplit(url).port or 80}/{settings.name}/")
    say(f"  logs    {systemd.advice('journalctl', '-u', settings.hub_unit, '-u', settings.proxy_unit)}")
    say(f"  health  {layout.hub}/bin/barehub status")
    if previous and release_key(previous) < release_key(active):
        say(f"  back    {layout.hub}/bin/barehub rollback      to {previous}")
