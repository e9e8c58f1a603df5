"""The spawner: a user's server is a batch job of that user.

It keeps batchspawner's names for what a site sets (`c.SlurmSpawner.req_account`, `req_qos`, `exec_prefix` ...) and
does the rest itself, because batchspawner

- forgets a job that is queued while the hub restarts: here its name is in the database before it is submitted, and the
  next hub continues to wait for it;
- treats a slurmctld that does not answer as a server that has stopped;
- asks slurmctld twice a second for each user who waits: here one squeue answers for all (jobs.py);
- tells its user little.

Settings of batchspawner that have no effect here are refused by name: settings.py.
"""

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from typing import Any

import jupyterhub
from barehub.lifecycle.servers import SURVIVES_RESTART
from barehub.logins import require_account
from barehub.offering import OffersEnvironments
from batchspawner import SlurmSpawner
from jupyterhub import orm
from traitlets import Dict, Float, Integer, Unicode, default

from barehub_slurm import internals, options, settings, words
from barehub_slurm.choosing import ChoosesResources
from barehub_slurm.following import Following, JobError
from barehub_slurm.jobs import Queue
from barehub_slurm.script import job_script
from barehub_slurm.slurm import Slurm, SlurmError, Turns, environment


class SlurmJobSpawner(ChoosesResources, OffersEnvironments, SlurmSpawner):  # type: ignore[misc]  # batchspawner ships no types
    """`c.JupyterHub.spawner_class` of the overlay. The example 50-site.py has what a site must set."""

    loads_modules = True

    users_environment = Unicode(
        help="The prefix of the only environment, as the compute nodes see it, if `environments` has none."
    ).tag(config=True)
    commands = Unicode(help="Directory of sbatch, squeue, scancel, sinfo and scontrol.").tag(config=True)
    environment_of_commands = Dict(
        Unicode(),
        help="Variables for Slurm's commands, SLURM_CONF for instance, which they also get from the hub's unit. With"
        " sudo, slurm-sudoers has to let them through.",
    ).tag(config=True)
    queue_interval = Float(5, help="Seconds for which one squeue, or sinfo, serves all users.").tag(config=True)
    submit_timeout = Float(60, help="Seconds that sbatch may take; then its job is looked for by name.").tag(
        config=True
    )
    concurrent_submissions = Integer(4, help="How many sbatch run at once; the others wait their turn.").tag(
        config=True
    )
    unseen_timeout = Float(60, help="Seconds after which a job that squeue does not show has ended.").tag(config=True)
    launch_timeout = Integer(180, help="Seconds that a server may take to appear once its job runs.").tag(config=True)
    login_timeout = Integer(60, help="Seconds that a user's login files may take in the job.").tag(config=True)
    report_timeout = Integer(60, help="Seconds for which a job tries to reach the hub.").tag(config=True)
    oldest_jupyterhub = Unicode(help="The oldest jupyterhub in the users' environment that is accepted.").tag(
        config=True
    )

    # Shared by all users' spawners: there is one slurmctld.
    queue = Queue()
    turns = Turns()

    def __init__(self, **traits: Any) -> None:
        self.job = Following(self, self.queue)
        self.submission: asyncio.Future[str] | None = None
        super().__init__(**traits)

    # Defaults

    @default("commands")
    def _default_commands(self) -> str:
        return os.path.dirname(shutil.which("sbatch") or "/usr/bin/sbatch")  # noqa: PTH120

    @default("exec_prefix")
    def _default_exec_prefix(self) -> str:
        return "runuser -u {username} --" if os.geteuid() == 0 else "sudo -n -u {username} --"

    @default("oldest_jupyterhub")
    def _default_oldest_jupyterhub(self) -> str:
        return f"{jupyterhub.version_info[0] - 1}.0"

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

    # What the database keeps

    def get_state(self) -> dict[str, Any]:
        # An upgrade of barehub does not wait for this server: the next hub goes on with the job, queued or not.
        return self.job.state | ({SURVIVES_RESTART: True} if self.job.job_name else {})

    def load_state(self, state: dict[str, Any]) -> None:
        self.job.load(state)
        self.job_id = self.job.job_id

    def clear_state(self) -> None:
        super().clear_state()
        self.job.clear()
        self.submission = None

    def remember(self) -> None:
        """Write the state to the database now, because the hub may be stopped before the server is up."""
        self.job_id = self.job.job_id  # batchspawner's own, which a site's hooks may read
        self.orm_spawner.state = self.get_state()
        self.user.db.commit()

    # Start

    async def start(self) -> tuple[str, int]:
        """Submit the job and wait for its server; its address. Raises JobError, NoAccountError, NotOfferedError."""
        self.require_site()
        name = f"jupyterhub-{secrets.token_hex(4)}"
        try:
            _, environment = self.chosen(self.user_options)
            script = job_script(self, (await self.offer()).check(self.user_options), name, environment)
        except SlurmError as error:
            raise JobError(no_answer(error)) from None
        except options.RefusedError as error:
            if self.catalogue.error:  # what was known may not be so any more
                raise JobError(no_answer(self.catalogue.error)) from None
            raise JobError(f"Your server was not started. {error}.") from None
        self.job.begin(name, orm.APIToken.find(self.user.db, self.api_token).id)
        self.remember()
        # Not cancelled with this coroutine: a job that is accepted a moment later would belong to nobody.
        self.submission = asyncio.ensure_future(self.submit_in_turn(script))
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

    async def submit_in_turn(self, script: str) -> str:
        """Submit the job and return its id, a few at a time. Raises SlurmError."""
        ahead = self.turns.waiting
        others = f"; {ahead} others are before it" if ahead >= self.concurrent_submissions else ""
        self.job.said = f"Submitting the job to Slurm{others}"
        async with self.turns.turn(self.concurrent_submissions):
            if internals.is_being_stopped(self):
                raise SlurmError("you have stopped the server before the job was submitted")
            return await self.slurm.submit(script)

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

    async def poll(self) -> int | None:
        """Return None while the job exists or may exist, else 0. JupyterHub's stop() asks this first."""
        if self.submission and not self.submission.done():
            return None
        if not self.job.job_name:
            return 0
        if internals.is_being_checked(self) and not self.job.up:
            return await self.adopt()
        stopping = internals.is_being_stopped(self)
        try:
            if not (self.job.ended and stopping):
                job = await self.job.look(0 if stopping else self.queue_interval)
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
            await asyncio.wait([self.submission])
            if not self.submission.exception():
                self.job.job_id = self.submission.result()
        if not self.job.ended or self.job.lost:
            await self.job.cancel()


def no_answer(error: SlurmError) -> str:
    return f"Slurm does not answer at present ({words.refusal(str(error))}). Try again later."
