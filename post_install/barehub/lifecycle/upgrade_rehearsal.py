"""An upgrade as it would be, beside the hub that runs: what works, and how long it takes. It leaves nothing.

`--rehearse` is no more than that; with `--canary USER`, an upgrade begins with it, and is refused if it fails.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from barehub import accounts
from barehub.errors import Exit, UserError
from barehub.evaluation import evaluate
from barehub.health import wait_until_healthy
from barehub.lifecycle import misfits
from barehub.lifecycle.added_packages import report_added
from barehub.lifecycle.canary import NOBODY, Canary
from barehub.lifecycle.options import Request
from barehub.lifecycle.second_hub import SecondHub, second_hub
from barehub.lifecycle.servers import Api, read_token
from barehub.listeners import Owner
from barehub.settings import Installation, Settings

HUB_SECONDS = 120  # for the second hub to answer, on a machine that is at work

Say = Callable[[str], None]


def rehearse_alone(new: Installation, before: Settings | None, request: Request, say: Say) -> None:
    """Rehearse the upgrade to `new`, and change nothing. Raises UserError with the step that has failed, and why."""
    if before is None:
        raise UserError(f"there is nothing to upgrade in {new.layout.base}", "install it first", Exit.USAGE)
    if new.settings.hub_user != before.hub_user:  # an upgrade would let it read the configuration
        what = f"a rehearsal runs as the hub's account, {before.hub_user}"
        raise UserError(what, "leave out --hub-user", Exit.USAGE)
    if not accounts.exists(new.settings.proxy_user):  # an upgrade would create it
        new = replace(new, settings=replace(new.settings, proxy_user=before.proxy_user))
    if new.layout.active in new.layout.complete and new.layout.active != request.release:
        old = new.layout.release(new.layout.active)
        report_added(old, new.layout.prefix, required=request.same_packages, say=say)
    found = evaluate(new.layout, new.settings)
    misfits.report_environments(new.settings.hub_user, found.environments, say)
    rehearse(new, request, say)
    say(f"the rehearsal is over, and nothing is left of it: {new.layout.active} is active as before")


def rehearse(new: Installation, request: Request, say: Say) -> None:
    """Run the new release beside the old one, with a user at work. Raises UserError with the step that has failed."""
    say(f"rehearsing the upgrade to {request.release}, beside the hub that runs")

    @contextlib.contextmanager
    def step(doing: str, done: str) -> Iterator[list[str]]:
        """Tell how long the block took, with what it adds to the list; or which step has failed."""
        began, details = time.monotonic(), [done]
        try:
            yield details
        except UserError as error:
            fix = error.fix or "fix the cause, then run this again"
            raise UserError(f"the rehearsal could not {doing}: {error}", fix, error.code) from error
        say(f"  {' '.join(details):<60} {time.monotonic() - began:6.1f} s")

    with contextlib.ExitStack() as stack:
        with step("load the configuration", "loaded the configuration"):
            second = stack.enter_context(second_hub(new, request))
            second.found.require_proxy()
        with step("copy the database", "copied the database, and migrated the copy") as details:
            ran = second.copy_database()
            if ran is None:
                why = "there is none yet" if second.source else "yours is not SQLite's"
                details[:] = [f"began with an empty database: {why}"]
        settings, owner = second.copy.settings, Owner.of_proxy(second.copy.settings)
        with step("start hub and proxy", "started hub and proxy"):
            endpoints = second.configure()
            stack.enter_context(second.running())
            wait_until_healthy(settings, endpoints, seconds=HUB_SECONDS, say=lambda _: None)
        with step("log in", f"logged in {request.canary or 'a canary'}"):
            token = read_token(second.copy.layout)
            canary = Canary.log_in(endpoints.public, owner, token, request.canary or NOBODY)
        if request.canary:
            require_no_server(second, canary.name, ran)
            use_server(canary, step)


def use_server(canary: Canary, step: Callable[[str, str], contextlib.AbstractContextManager[list[str]]]) -> None:
    """Start the user's server, compute, and stop it. Raises UserError."""
    name = canary.name
    with step(f"start the server of {name}", f"started the server of {name}"):
        server = canary.start_server()
    with step("open a kernel", "opened a kernel:") as details:
        value = canary.compute(server)
        details += [f"1+1 is {value}" if value else "the server has none"]
        if value not in ("2", ""):
            raise UserError(f"1+1 is {value} there")
    with step(f"stop the server of {name}", f"stopped the server of {name}"):
        canary.stop_server()


def require_no_server(second: SecondHub, user: str, ran: list[str] | None) -> None:
    """Raises UserError if the user has a server: some spawners know one for each user, and would end it."""
    if ran is None:
        real = second.real
        servers = Api(second.found.endpoints.api, read_token(real.layout), Owner.of_hub(real.settings)).servers()
        if servers is None:
            raise UserError(
                f"the hub does not report whether {user} has a server", "start the hub, then run this again"
            )
        ran = [server.name for server in servers]
    if user.casefold() in {name.partition("/")[0].casefold() for name in ran}:
        what = f"{user} has a server at the hub that runs, which a second one could end"
        raise UserError(what, "stop it, or name another user with --canary", Exit.USAGE)
