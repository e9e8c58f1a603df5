"""When a server would start: `sbatch --test-only` as its user, for what the form has at present.

    POST /hub/api/users/NAME/slurm-start   {"partition": "main", "hours": "4", ...}  ->  {"text": ..., "hours": ...}

For an answer slurmctld goes through its queue. So it is asked only when a user presses a button, an answer serves for a
minute, and a few questions are asked at once, of which each user has one.
"""

import asyncio
import dataclasses
import math
import re
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from jupyterhub.apihandlers import APIHandler, default_handlers
from jupyterhub.scopes import needs_scope
from tornado.web import HTTPError

from barehub_slurm import form, words
from barehub_slurm.options import RefusedError, Request
from barehub_slurm.reservations import Reservation
from barehub_slurm.script import template
from barehub_slurm.slurm import Slurm, SlurmError

PATH = r"/api/users/([^/]+)/slurm-start"
AGE = 60.0  # seconds for which an answer serves
AT_ONCE = 2
SOON = 60  # seconds from now that are called "now"
CLOSE = 3600  # seconds after a maintenance that still are because of it
TRIES, BEFORE = 4, 2  # how many shorter times are tried: halves, and what ends before a reservation


class Estimates:
    """The answers that there are, for all users."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, Request], tuple[float, float]] = {}  # -> when it was asked, and the answer
        self.asking: set[str] = set()
        self.turns = asyncio.Semaphore(AT_ONCE)

    async def starts(self, slurm: Slurm, request: Request, script: str) -> float:
        """Return when Slurm would start this (time.time). Raises SlurmError."""
        now = time.monotonic()
        self.known = {key: answer for key, answer in self.known.items() if answer[0] > now - AGE}
        if answer := self.known.get((slurm.user, request)):
            return answer[1]
        async with self.turns:
            starts = read_start(await slurm.would_start(script))
        self.known[slurm.user, request] = (now, starts)
        return starts

    async def say(self, spawner: Any, request: Request, reserved: Sequence[Reservation] = ()) -> dict[str, Any]:
        """Return in words when a server would start, and with how many hours it would start now. Raises SlurmError.

        `reserved` has the reservations of the cluster, before which a shorter job may fit.
        """
        starts = await self.starts(spawner.slurm, request, question(spawner, request))
        if is_now(starts):
            return {"text": "It would start now."}
        text = f"It would start {spoken(starts)}{after(reserved, starts)}."
        for minutes in shorter(request.minutes, reserved):
            request = dataclasses.replace(request, minutes=minutes)
            if is_now(await self.starts(spawner.slurm, request, question(spawner, request))):
                fits = f" For {words.spoken(minutes)} or less, it would start now."
                return {"text": text + fits, "hours": math.floor(minutes / 0.6) / 100}
        return {"text": text}


def shorter(minutes: int, reserved: Sequence[Reservation]) -> list[int]:
    """Return lengths to try, the longest first: what ends before each of the next reservations; halves."""
    until = [int((one.start - time.time()) / 60) - 1 for one in reserved]
    before = sorted({one for one in until if 0 < one < minutes}, reverse=True)[:BEFORE]
    halves = [half for power in range(1, TRIES + 1) if (half := minutes >> power)]
    return before + [half for half in halves if half < min(before, default=minutes)]


def after(reserved: Sequence[Reservation], starts: float) -> str:
    """Return that this is after a maintenance, if one ends then, or a little before."""
    for one in reserved:
        if one.maintenance and -SOON <= starts - one.end < CLOSE:
            return ", after the maintenance" + (f" that begins {spoken(one.start)}" if one.start > time.time() else "")
    return ""


def question(spawner: Any, request: Request) -> str:
    """Return the job's script as far as sbatch reads options: nothing of the server, and no token, is in it."""
    variables = spawner.get_req_subvars() | request.words() | {"job_name": "jupyterhub-test"}
    return template().render(variables).partition("\n\n")[0] + "\n"


def read_start(printed: str) -> float:
    """Return the time in what sbatch printed, `Job 7 to start at 2026-11-29T07:43:13 ...`. Raises SlurmError."""
    found = re.search(r"to start at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", printed)
    starts = words.moment(found[1]) if found else 0.0
    if not starts:
        raise SlurmError(f"sbatch printed {printed[:200]!r}")
    return starts


def is_now(starts: float) -> bool:
    return starts - time.time() < SOON


def spoken(starts: float) -> str:
    """Return a time as people say it: `about 14:30`, with the day if that is not today."""
    local = time.localtime(starts)
    far = time.strftime("%Y-%m-%d", local)
    day = "" if far == time.strftime("%Y-%m-%d") else time.strftime(" on %A", local)
    return f"about {time.strftime('%H:%M', local)}{day if starts - time.time() < 6 * 86400 else f' on {far}'}"


class StartHandler(APIHandler):  # type: ignore[misc]  # JupyterHub ships no types
    estimates = Estimates()

    @needs_scope("servers")  # type: ignore[untyped-decorator]
    async def post(self, user_name: str) -> None:
        user = self.find_user(user_name)
        if user is None:
            raise HTTPError(HTTPStatus.NOT_FOUND)
        sent = self.get_json_body()
        if not isinstance(sent, dict):
            raise HTTPError(HTTPStatus.BAD_REQUEST, "this takes the fields of the form")
        if user_name in self.estimates.asking:
            raise HTTPError(HTTPStatus.TOO_MANY_REQUESTS, "one question at a time")
        self.estimates.asking.add(user_name)
        try:
            self.finish(await answer(self.estimates, user.spawner, sent))
        finally:
            self.estimates.asking.discard(user_name)


async def answer(estimates: Estimates, spawner: Any, sent: dict[str, Any]) -> dict[str, Any]:
    try:
        await spawner.apply_group_overrides()  # as the form does, which may be that of another server
        options = form.from_form({name: [str(value)] for name, value in sent.items()})
        request = (await spawner.offer()).check(options)
        reserved = await spawner.reservations.all(spawner.slurm)
        return await estimates.say(spawner, request, reserved or [])
    except RefusedError as error:
        return {"text": f"{error}."}
    except SlurmError as error:
        if error.unreachable:
            return {"text": "Slurm does not answer at present."}
        return {"text": f"Slurm would not start it: {words.refusal(str(error))}."}


def add_handler() -> None:
    default_handlers[:] = [entry for entry in default_handlers if entry[0] != PATH] + [(PATH, StartHandler)]
