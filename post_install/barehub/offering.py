"""What the overlays' spawners share: several environments for users, of which each user chooses one in the form.

    class MySpawner(OffersEnvironments, Spawner): ...

The spawner puts `environment_field` into its form, and its start asks `chosen`.
"""

import asyncio
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from html import escape
from math import inf
from typing import Any

from traitlets import Dict, HasTraits, TraitError, Unicode, validate

from barehub.environments import Found, misfit, modules, offered_by, prefixes, read
from barehub.logins import NoServerError

AGE = 60.0  # seconds for which a look at the environments serves everyone's form
PATIENCE = 5.0  # seconds that a form waits for it
FIELD = "environment"  # of the form, and of the options of a server


class NotOfferedError(NoServerError):
    """The user has asked for an environment that is not offered; `why` says so, and what there is."""

    kind = "environment"

    def __init__(self, why: str) -> None:
        super().__init__(f"Your server was not started. {why}.")
        self.why = why


class Lookout:
    """What the hub's account sees of the environments; one look, and never two at a time, serves all forms."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.asked = -inf  # time.monotonic
        self.found: dict[str, Found] = {}

    async def look(self, environments: Iterable[str]) -> dict[str, Found]:
        """Return what was found at most a minute ago."""
        wanted = sorted(environments)
        async with self.lock:
            if time.monotonic() - self.asked > AGE or not {*wanted} <= self.found.keys():
                self.found = await look({*wanted, *self.found})  # or groups with other choices would take turns
                self.asked = time.monotonic()
        return {one: self.found[one] for one in wanted}


async def look(environments: Iterable[str], user: str = "") -> dict[str, Found]:
    """Look at environments from another process, which a file system that is away can hold up, as `user` if given.

    Only root can become another account. Raises KeyError if there is no such account.
    """
    wanted = list(environments)
    account: dict[str, Any] = {}
    if user and os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        groups = os.getgrouplist(user, entry.pw_gid)
        account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}
    told = b""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-B", "-m", "barehub.environments", *prefixes(wanted),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={}, cwd="/", start_new_session=True, **account,
        )  # fmt: skip
    except OSError:  # BASE may be closed to users: the hub's account sees where `current` leads, not what they may run
        seen = await look(wanted) if user else read("", wanted)
        return {one: replace(found, missing="") for one, found in seen.items()}
    try:
        with suppress(TimeoutError):
            told, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            with suppress(TimeoutError):  # it may be stuck in the kernel
                await asyncio.wait_for(process.wait(), 1)
    return read(told.decode(errors="replace"), wanted)


class OffersEnvironments(HasTraits):
    """The trait `environments` of a spawner, and the field of its form."""

    environments = Dict(
        Unicode(),
        key_trait=Unicode(),
        help="What users can choose from: a label for each environment -> its prefix, or 'module load NAME...'.",
    ).tag(config=True)

    loads_modules = False
    lookout = Lookout()  # one for all users' spawners

    # JupyterHub's Spawner has them.
    user_options: Any
    apply_group_overrides: Any

    @validate("environments")
    def _validate_environments(self, proposal: Any) -> Any:
        for label, environment in proposal.value.items():
            if environment.startswith("/") or (self.loads_modules and modules(environment)):
                continue
            also = ", or `module load NAME...`" if self.loads_modules else ""
            what = f"The 'environments' trait has {environment!r} for {label!r}: that has to be an absolute path{also}"
            raise TraitError(what)
        return proposal.value

    def chosen(self, options: Mapping[str, Any]) -> tuple[str, str]:
        """Return the label and the environment that options ask for, by default the first; empty texts without any.

        With only one to offer, what an option says is not asked: it may be from before, when there were more, and there
        is no form now to change it. Raises NotOfferedError.
        """
        offered = offered_by(self)
        first = next(iter(offered), "")
        label = (len(offered) > 1 and options.get(FIELD)) or first
        if not isinstance(label, str) or label not in {*offered, first}:
            raise NotOfferedError(f"There is no environment {str(label)[:40]} for you; there is {', '.join(offered)}")
        return label, offered.get(label, "")

    async def environment_field(
        self, options: Mapping[str, Any] | None = None, label: str = "Environment"
    ) -> tuple[str, str]:
        """Return the field of the form, empty if there is no choice, and what is wrong with the only environment.

        What `options` has is selected, by default what the user has chosen last. Without a label there is no field.
        """
        options = self.user_options if options is None else options
        await self.apply_group_overrides()  # or the form would not show what only a group is offered
        offered = offered_by(self)
        found = await self.lookout.look(offered.values())
        versions = {name: found[environment].jupyterhub for name, environment in offered.items()}
        if len(versions) > 1:
            return field(versions, options.get(FIELD), label) if label else "", ""
        return "", "".join(f"The environment is {why}." for why in map(unfit, versions.values()) if why)


def unfit(version: str) -> str:
    """Return what is wrong with a version of jupyterhub, short enough for a telephone; empty if it fits."""
    how = misfit(version)
    return f"{how} for this hub (jupyterhub {version})" if how else ""


def field(versions: Mapping[str, str], last: object, title: str = "Environment") -> str:
    """Return the field as HTML, given the jupyterhub of each label's environment; the last choice is selected."""
    choices = "\n".join(
        f'<option value="{escape(label)}"{" selected" if label == last else ""}>'
        f"{escape(': '.join(filter(None, (label, unfit(version)))))}</option>"
        for label, version in versions.items()
    )
    return (
        f'<div class="mb-3"><label class="form-label" for="{FIELD}">{escape(title)}</label>\n'
        f'<select class="form-select" name="{FIELD}" id="{FIELD}">\n{choices}\n</select></div>'
    )
