"""The spawner: a user's server is a batch job of that user.

- A job's name is in the database before it is submitted, so the next hub continues to wait for a job that is queued
  while the hub restarts.
- A slurmctld that does not answer says nothing about a server.
- One squeue answers for all users (jobs.py).

Settings have batchspawner's names where they mean the same (base.py). Its other settings are refused by name:
settings.py.
"""

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from html import escape
from typing import Any

from barehub.environments import SILENT
from barehub.in_use import note
from barehub.lifecycle.servers import SURVIVES_RESTART
from barehub.logins import require_account
from barehub.offering import OffersEnvironments
from jupyterhub import orm
from jupyterhub.spawner import Spawner
from traitlets import Dict, Unicode, default

from barehub_slurm import internals, options, settings, words
from barehub_slurm.base import JobSettings, SlurmSpawner
from barehub_slurm.choosing import ChoosesResources
from barehub_slurm.following import Following, JobError
from barehub_slurm.jobs import Queue
from barehub_slurm.script import job_script
from barehub_slurm.slurm import Slurm, SlurmError, Turns, environment
from barehub_slurm.summary import Summary, asked_for, summary

LINGERS = 60  # seconds for which a job may go on whose server has ended


class SlurmJobSpawner(ChoosesResources, OffersEnvironments, JobSettings, SlurmSpawner, Spawner):  # type: ignore[misc]  # JupyterHub ships no types
    """`c.JupyterHub.spawner_class` of the overlay. The example 50-site.py has what a site must set."""

    loads_modules = True

    users_environment = Unicode(
        help="The prefix of the only environment, as the compute nodes see it, if `environments` has none."
    ).tag(config=True)
    commands = Unicode(help="Directory of sbatch, squeue, scancel, sinfo, scontrol, and sacctmgr.").tag(config=True)
    environment_of_commands = Dict(
        Unicode(),
        help="Variables for Slurm's commands, SLURM_CONF for instance, which they also get from the hub's unit. With"
        " sudo, slurm-sudoers has to let them through.",
    ).tag(config=True)

    # Shared by all users' spawners: there is one slurmctld.
    queue = Queue()
    turns = Turns()

    def __init__(self, **traits: Any) -> None:
        self.job = Following(self, self.queue)
        self.submission: asyncio.Future[str] | None = None
        self.noticing: asyncio.Task[None] | None = None
        self.job_id = ""
        super().__init__(**traits)

    # Defaults

    @default("commands")
    def _default_commands(self) -> str:
        return os.path.dirname(shutil.which("sbatch") or "/usr/bin/sbatch")  # noqa: PTH120

    @default("env_keep")
    def _default_env_keep(self) -> list[str]:
        return []  # the hub's PATH and the like mean nothing on a node

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        return lambda spawner, user_options: None  # start() does it, where Slurm can be asked

    @property
    def slurm(self) -> Slurm:
        variables = environment(self.environment_of_commands)
        return Slurm(self.commands, self.user.name, self.exec_prefix, variables, self.submit_timeout)

    async def get_options_form(self) -> Any:
        """As JupyterHub has it, and above it the server's name, if it has one: JupyterHub's page does not say it."""
        found = await super().get_options_form()
        return f'<p class="text-center">For your server <b>{escape(self.name)}</b></p>\n{found}' if self.name else found

    @property
    def summary(self) -> Summary | None:
        """What the hub's home page says about the job; None if Slurm has not shown it yet, or it has ended."""
        seen = self.job.seen
        return summary(seen, self.job.asked) if seen and seen.alive and not self.job.ended else None

    # What the database keeps

    def get_state(self) -> dict[str, Any]:
        # An upgrade of barehub does not wait for this server: the next hub goes on with the job, queued or not.
        state = self.job.state | ({SURVIVES_RESTART: True} if self.job.job_name else {})
        note(self, state)
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        self.job.load(state)
        self.job_id = self.job.job_id
        note(self, state)

    def clear_state(self) -> None:
        super().clear_state()
        self.job.clear()
        self.job_id = ""
        self.submission = None

    def remember(self) -> None:
        """Write the state to the database now: the hub may be stopped any time.

        Not with whatever is written next: JupyterHub drops what is not yet written when a request of anybody's ends.
        """
        self.job_id = self.job.job_id  # a site's hooks may read it here, as batchspawner has it
        self.orm_spawner.state = self.get_state()
        self.user.db.commit()

    # Start

    async def start(self) -> tuple[str, int]:
        """Submit the job and wait for its server; its address. Raises JobError, NoAccountError, NotOfferedError."""
        self.require_site()
        # Not cancelled with this coroutine: a job that is accepted a moment later would belong to nobody.
        self.submission = asyncio.ensure_future(self.submit_in_turn())
        try:
            self.job.job_id = await asyncio.shield(self.submission)
        except SlurmError as error:
            if not error.uncertain:
                self.job.ended = True
                refused = f"Slurm did not accept the job: {words.refusal(str(error))}"
                raise JobError(no_answer(error) if error.unreachable else refused) from None
            self.job.doubt = words.refusal(str(error))
            self.log.warning("%s: sbatch: %s; looking for its job", internals.log_name(self), error)
        self.queue.watch(self.job.job_name)  # an earlier answer did not know it yet
        self.remember()
        self.ip, self.port = await self.job.wait_until_up()
        return self.ip, self.port

    def require_site(self) -> None:
        """Raise JobError if a setting of the site is missing or has no effect, NoAccountError if the user has none."""
        try:
            settings.require_site(self)
        except settings.SettingError as error:
            raise JobError(f"No server can run: {error}.") from None
        require_account(self.user.name)

    async def submit_in_turn(self) -> str:
        """Submit the job and return its id. A few do so at once, first come, first served: all that asks Slurm as its
        user is part of a turn, or the first would have to wait for the last. Raises SlurmError, and as `request` does.
        """
        async with self.turns.turn(self.concurrent_submissions, self.say_who_is_before):
            name = f"jupyterhub-{secrets.token_hex(4)}"
            script, asked, prefix = await self.request(name)
            if internals.is_being_stopped(self):
                raise SlurmError("you have stopped the server before the job was submitted")
            self.job.begin(name, orm.APIToken.find(self.user.db, self.api_token).id, asked, prefix)
            self.remember()
            self.job.said = "Submitting the job to Slurm"
            return await self.slurm.submit(script)

    def say_who_is_before(self, ahead: int) -> None:
        others = f"; {ahead} {'others are' if ahead > 1 else 'other is'} before it" if ahead else ""
        self.job.said = f"The job waits to be submitted to Slurm{others}"

    async def request(self, name: str) -> tuple[str, str, str]:
        """Return the script of a job, in words what it asks for, and where the prefix that it will run from leads to.

        Raises JobError, NotOfferedError.
        """
        try:
            _, environment = self.chosen(self.user_options)
            request = (await self.offer()).check(self.user_options)
            prefix = self.lookout.found.get(environment, SILENT).real or environment  # as far as a form has looked
            return job_script(self, request, name, environment), asked_for(request), prefix
        except SlurmError as error:
            raise JobError(no_answer(error)) from None
        except options.RefusedError as error:
            if self.catalogue.error:  # what was known may not be so any more
                raise JobError(no_answer(self.catalogue.error)) from None
            raise JobError(f"Your server was not started. {error}.") from None

    @property
    def token_id(self) -> int:
        """Of the token that the job was given."""
        return self.job.token_id

    def take_port(self, port: int, environment: dict[str, str]) -> bool:
        """Note the port that the job reports, and what its server runs from; False if it has reported one before."""
        if not self.job.take_port(port, environment):
            return False
        self.log.info("%s: job %s runs from %s", internals.log_name(self), self.job.job_id, environment.get("prefix"))
        self.remember()
        self.job.news.set()
        return True

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        said = ""
        while True:
            if self.job.said != said:
                said = self.job.said
                yield {"message": said, "progress": 80 if self.job.reported else 50 if " runs on " in said else 20}
            await asyncio.sleep(0.3)

    # Poll and stop

    @property
    def pending(self) -> Any:
        """As JupyterHub has it: while anything is pending, it adds no route."""
        return "stop" if self.job.left and self.job.up else super().pending

    async def leave_port(self) -> None:
        """Delete the route: the server has ended, and its job frees the port when this returns."""
        if not self.job.left:
            self.job.left = time.time()
            self.remember()
            self.noticing = asyncio.create_task(self.notice_end())
        await internals.delete_route(self)

    async def notice_end(self) -> None:
        while await self.poll_and_notify() is None:
            await asyncio.sleep(self.queue_interval / 5)

    async def poll(self) -> int | None:
        """Return None while the job exists or may exist, else 0. JupyterHub's stop() asks this first."""
        if self.submission and not self.submission.done():
            return None
        if not self.job.job_name:
            return 0
        stopping = internals.is_being_stopped(self)
        if (
            self.job.left
            and not stopping
            and (internals.is_being_checked(self) or time.time() > self.job.left + LINGERS)
        ):
            return 0  # whatever the job does: JupyterHub's stop() cancels it
        if internals.is_being_checked(self) and not self.job.up:
            return await self.adopt()
        try:
            if not (self.job.ended and stopping):
                job = await self.job.look(0 if stopping or self.job.left else self.queue_interval)
        except SlurmError as error:
            self.log.warning("squeue: %s; treating %s as running", error, internals.log_name(self))
            return None
        if not self.job.ended or (self.job.lost and stopping):
            return None
        if self.job.up and not stopping:
            self.job.last_end = f"Your last server, job {self.job.job_id}, has ended: {await self.job.why(job)}."
        return 0

    async def adopt(self) -> int | None:
        """Wait for a job that was on its way when the hub was stopped; None once its server is up.

        JupyterHub asks each spawner once, at its start, whether its server is there; this is the answer. Meanwhile the
        server counts as one that is being started, so that its user sees how it goes on, and can stop it.
        """
        name = internals.log_name(self)
        self.log.info("%s: job %s was on its way when the hub was stopped", name, self.job.job_id)
        waiting = asyncio.ensure_future(self.job.wait_until_up())
        internals.mark_as_starting(self, asyncio.ensure_future(self.finish_adoption(waiting)))
        await asyncio.wait([waiting])
        if waiting.cancelled():  # its user has stopped it, and JupyterHub goes on to cancel the job
            self.server: Any = None
            return 0
        if waiting.exception():
            self.log.warning("%s: %s", name, waiting.exception())
            return 1
        self.ip, self.port = self.server.ip, self.server.port = waiting.result()
        self.remember()
        return None

    async def finish_adoption(self, waiting: "asyncio.Future[tuple[str, int]]") -> None:
        """Add the route once the hub's check of this spawner is over. Fails as the start did."""
        await waiting
        while internals.is_being_checked(self):
            await asyncio.sleep(0.1)
        if self.server:
            await internals.add_route(self)

    async def stop(self, now: bool = False) -> None:
        """Cancel the job. Returns when it has ended: until Slurm confirms that, it is not forgotten."""
        if self.submission:
            if not self.job.job_name:  # it waits for its turn
                self.submission.cancel()
            await asyncio.wait([self.submission])
            if not self.submission.cancelled() and not self.submission.exception():
                self.job.job_id = self.submission.result()
        if self.job.job_name and (not self.job.ended or self.job.lost):
            await self.job.cancel()


def no_answer(error: SlurmError) -> str:
    return f"Slurm does not answer at present ({words.refusal(str(error))}). Try again later."
