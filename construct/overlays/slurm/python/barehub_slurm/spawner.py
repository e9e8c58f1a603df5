"""The spawner: a user's server is a batch job of that user's.

It keeps batchspawner's names for what a site sets (`c.SlurmSpawner.req_account`, `req_qos`, `exec_prefix` ...), and
does the rest itself, since batchspawner

- forgets a job that is queued while the hub restarts: here its name is in the database before it is submitted, and the
  next hub waits for it where this one left off;
- takes a slurmctld that does not answer for a server that has stopped;
- asks slurmctld twice a second for each user who waits; here one squeue answers for all (slurm.py);
- tells its user little.
"""

import asyncio
import os
import pwd
import secrets
import shlex
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib.resources import files
from typing import Any

import jupyterhub
from batchspawner import SlurmSpawner
from batchspawner.batchspawner import format_template
from jupyterhub import orm
from jupyterhub.spawner import SpawnException
from traitlets import Dict, Float, Integer, List, Unicode, default

from barehub_slurm import options, slurm
from barehub_slurm.slurm import Job, Queue, SlurmError

MARGIN = 5  # seconds before JupyterHub's own time limit, which gives no reason

LOOPBACK = ("", "127.0.0.1", "localhost", "::1", "0.0.0.0", "::")  # noqa: S104 - compared with


class JobError(SpawnException):
    """Why there is no server, in words that JupyterHub shows to its user."""

    def __init__(self, text: str) -> None:
        super().__init__(text, reason="slurm")
        self.jupyterhub_message = text


class SlurmJobSpawner(SlurmSpawner):
    """`c.JupyterHub.spawner_class` of the overlay. What a site has to set is in its example, 50-site.py."""

    users_environment = Unicode(
        help="Prefix of the environment with the users' jupyterhub and jupyterlab, as the compute nodes see it."
    ).tag(config=True)
    partitions = List(Unicode(), help="The partitions that users may choose; all, if empty.").tag(config=True)
    limits = Dict(Float(), help="The most that one server may have: cores, memory (GB), gpus, hours.").tag(config=True)
    defaults = Dict(
        Float(),
        default_value={"cores": 1, "memory": 2, "gpus": 0, "hours": 4},
        help="What the form suggests; the names are those of limits.",
    ).tag(config=True)
    commands = Unicode(help="Directory of sbatch, squeue, scancel, sinfo and scontrol.").tag(config=True)
    queue_interval = Float(5, help="Seconds for which one squeue, or sinfo, serves all users.").tag(config=True)
    launch_timeout = Integer(180, help="Seconds that a server may take to appear once its job runs.").tag(config=True)
    report_timeout = Integer(60, help="Seconds for which a job tries to reach the hub.").tag(config=True)
    oldest_jupyterhub = Unicode(help="The oldest jupyterhub in the users' environment that is accepted.").tag(
        config=True
    )

    # Shared by all users' spawners: there is one slurmctld.
    queue = Queue()
    offered: tuple[float, options.Offer] | None = None

    def __init__(self, **traits: Any) -> None:
        self.job_name = ""  # of the job there is, may be, or is about to be
        self.token_id = 0  # of the token that the job was given
        self.reported = 0  # the port, once the job has told it
        self.up = False
        self.submitted = 0.0
        self.last_end = ""  # why the server before ended, for the form
        self.said = "Asking Slurm"
        self.news = asyncio.Event()
        self.submission: asyncio.Future[str] | None = None
        super().__init__(**traits)

    # Defaults

    @default("commands")
    def _default_commands(self) -> str:
        return os.path.dirname(shutil.which("sbatch") or "/usr/bin/sbatch")  # noqa: PTH120

    @default("exec_prefix")
    def _default_exec_prefix(self) -> str:
        return "runuser -u {username} --" if os.geteuid() == 0 else "sudo -n -u {username} --"

    @default("batch_script")
    def _default_batch_script(self) -> str:
        return (files(__package__) / "job.sh.jinja").read_text()

    @default("oldest_jupyterhub")
    def _default_oldest_jupyterhub(self) -> str:
        return f"{jupyterhub.version_info[0] - 1}.0"

    @default("env_keep")
    def _default_env_keep(self) -> list[str]:
        return []  # the hub's PATH and the like mean nothing on a node

    @default("options_form")
    def _default_options_form(self) -> Any:
        return lambda spawner: spawner.form()

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        return lambda spawner, user_options: None  # start() does it, where Slurm can be asked what there is

    def command(self, name: str) -> str:
        return f"{self.commands}/{name}"

    # What the user chooses

    async def offer(self) -> options.Offer:
        """What can be asked for now, or could a moment ago. Raises SlurmError if that is not known."""
        cls = type(self)
        if cls.offered is None or time.monotonic() - cls.offered[0] > self.queue_interval:
            words = ("--noheader", "--exact", f"--format={slurm.PARTITION_FORMAT}")
            found = slurm.partitions(await slurm.output(self.command("sinfo"), *words))
            names = self.partitions or list(found)
            kept = {name: found[name] for name in names if name in found}
            cls.offered = (time.monotonic(), options.Offer(kept, self.limits, self.defaults))
        return cls.offered[1]

    async def form(self) -> str:
        try:
            return (await self.offer()).form(self.last_end)
        except SlurmError as error:
            self.log.warning("sinfo: %s", error)
            return '<p class="alert alert-danger">Slurm does not answer at present. Try again in a minute.</p>'

    def options_from_form(self, form_data: dict[str, list[str]]) -> dict[str, Any]:
        return options.from_form(form_data)

    # What the database keeps

    def get_state(self) -> dict[str, Any]:
        state = {"last_end": self.last_end} if self.last_end else {}
        if self.job_name:
            names = ("job_name", "job_id", "token_id", "reported", "up", "submitted")
            state |= {name: getattr(self, name) for name in names}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name in ("job_name", "job_id", "token_id", "reported", "up", "submitted", "last_end"):
                setattr(self, name, value)
        if self.job_name:
            self.queue.watch(self.job_name)

    def clear_state(self) -> None:
        super().clear_state()
        self.queue.forget(self.job_name)
        self.job_name, self.token_id, self.reported, self.up = "", 0, 0, False
        self.news.clear()

    def remember(self) -> None:
        """Write the state to the database now, not when the server is up: the hub may be stopped before."""
        self.orm_spawner.state = self.get_state()
        self.user.db.commit()

    # Start

    async def start(self) -> tuple[str, int]:
        """Submit the job and wait for its server; its address. Raises JobError."""
        self.require_site()
        try:
            request = (await self.offer()).check(self.user_options)
        except SlurmError as error:
            why = slurm.refusal(str(error))
            raise JobError(f"Slurm does not answer at present ({why}). Try again later.") from None
        except options.RefusedError as error:
            raise JobError(f"Your server was not started. {error}.") from None
        self.job_name = f"jupyterhub-{secrets.token_hex(4)}"
        self.token_id = orm.APIToken.find(self.user.db, self.api_token).id
        self.submitted = time.time()
        self.said = "Handing the job to Slurm"
        self.queue.squeue = self.command("squeue")
        self.queue.watch(self.job_name)
        self.remember()
        # Not cancelled with this coroutine: a job that is accepted a moment later would belong to nobody.
        self.submission = asyncio.ensure_future(self.submit(await self.script(request)))
        try:
            self.job_id = await asyncio.shield(self.submission)
        except SlurmError as error:
            raise JobError(f"Slurm did not accept the job: {slurm.refusal(str(error))}") from None
        self.queue.watch(self.job_name)  # an answer of a moment ago did not know it yet
        self.remember()
        return await self.wait_until_up()

    def require_site(self) -> None:
        """Raise JobError for what an administrator has forgotten, or a user who is no user of Slurm's."""
        where = "Administrators: see 50-site.py among the examples."
        if self.hub.ip in LOOPBACK and self.hub.connect_ip in LOOPBACK and not self.hub_connect_url:
            listens = self.hub.ip or "every address"
            raise JobError(f"No server can run: the hub listens at {listens}, which is no address for nodes. {where}")
        if not self.users_environment:
            raise JobError(f"No server can run: it is not said where the users' environment is. {where}")
        try:
            pwd.getpwnam(self.user.name)
        except KeyError:
            raise JobError(f"There is no account {self.user.name} on the head node, so Slurm knows none.") from None

    async def script(self, request: options.Request) -> str:
        environment = {name: value for name, value in self.get_env().items() if name not in ("HOME", "USER", "SHELL")}
        cmd = [self.oldest_jupyterhub, jupyterhub.__version__, str(self.report_timeout), *self.cmd, *self.get_args()]
        return format_template(
            self.batch_script,
            **self.get_req_subvars()
            | vars(request)
            | {
                "job_name": self.job_name,
                "users_environment": shlex.quote(self.users_environment.rstrip("/")),
                "env": [(name, shlex.quote(str(value))) for name, value in environment.items()],
                "launch": (files(__package__) / "launch.py").read_text(),
                "cmd": shlex.join(cmd),
            },
        )

    async def submit(self, script: str) -> str:
        """Hand the job to Slurm; its id. The script holds the token, so it goes by no command line and no log."""
        printed = await self.as_user("sbatch", "--parsable", stdin=script)
        return printed.splitlines()[-1].partition(";")[0]

    async def as_user(self, command: str, *arguments: str, stdin: str = "") -> str:
        """Run a command of Slurm's as the server's user. Raises SlurmError."""
        prefix = [word.format(username=self.user.name) for word in shlex.split(self.exec_prefix)]
        account = pwd.getpwnam(self.user.name)
        names = {"USER": self.user.name, "LOGNAME": self.user.name, "HOME": account.pw_dir, "SHELL": account.pw_shell}
        return await slurm.output(*prefix, self.command(command), *arguments, stdin=stdin, env=names)

    async def wait_until_up(self) -> tuple[str, int]:
        """Follow the job until its server can be reached; its address. Raises JobError."""
        started = 0.0
        while True:
            job, answers = None, True
            try:
                age = 0 if self.news.is_set() else self.queue_interval
                job = await self.queue.job(self.user.name, self.job_name, age)
                self.job_id = job.id if job else self.job_id
            except SlurmError as error:
                answers = False
                self.log.warning("squeue: %s", error)
                self.said = f"Slurm does not answer at present; job {self.job_id} keeps its place"
            self.news.clear()
            if answers and not (job and job.alive):
                raise JobError(f"Your server did not start: {await self.why(job)}.")
            if job and job.running:
                started = started or time.time()
                if self.reported and await reachable(job.node, self.reported):
                    self.up, self.last_end = True, ""
                    self.ip, self.port = job.node, self.reported
                    return job.node, self.reported
            if job:
                self.said = self.progress_of(job)
                self.require_patience(job, started)
            wait = 0.5 if job and job.running and self.reported else self.queue_interval
            with suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), wait)

    def progress_of(self, job: Job) -> str:
        if not job.running:
            expected = slurm.clock(job.starts)
            begin = f" Slurm expects to start it at {expected}." if expected else ""
            return (
                f"Job {job.id} waits in the partition {job.partition} since {slurm.clock(job.submitted)}:"
                f" {slurm.why_it_waits(job)}.{begin}"
            )
        if not self.reported:
            return f"Job {job.id} runs on {job.node} since {slurm.clock(job.starts)}; its server is starting"
        return f"Job {job.id} runs on {job.node}; connecting to its server at port {self.reported}"

    def require_patience(self, job: Job, started: float) -> None:
        """Raise JobError if there is no point in waiting any longer."""
        if job.running:
            if time.time() - started < self.launch_timeout:
                return
            log = f"~/.jupyterhub/job-{job.id}.log"
            if self.reported:
                what = f"the hub cannot connect to it at {job.node}:{self.reported}. Is there a firewall?"
            else:
                what = f"it has not told the hub its port. Its log is {log}."
            raise JobError(f"Job {job.id} runs on {job.node} for {self.launch_timeout} s, but {what}")
        if time.time() - self.submitted > self.start_timeout - MARGIN:
            waited = slurm.spoken((time.time() - self.submitted) / 60)
            raise JobError(f"Your job waited {waited} and was given up: {slurm.why_it_waits(job)}.")

    def take_port(self, port: int) -> bool:
        """Called with what the job reports; False if it has done so before."""
        if self.reported:
            return False
        self.reported = port
        self.remember()
        self.news.set()
        return True

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        said = ""
        while True:
            if self.said != said:
                said = self.said
                yield {"message": said, "progress": 80 if self.reported else 50 if " runs on " in said else 20}
            await asyncio.sleep(0.3)

    # Poll and stop

    async def poll(self) -> int | None:
        """None while there is a job, or may be; 0 when there is none."""
        if self.submission and not self.submission.done():
            return None
        if not self.job_name:
            return 0
        if self._check_pending and not self.up:
            return await self.adopt()
        try:
            job = await self.queue.job(self.user.name, self.job_name, 0 if self._stop_pending else self.queue_interval)
        except SlurmError as error:
            self.log.warning("squeue: %s; taking %s for running", error, self._log_name)
            return None
        if job and job.alive:
            return None
        if self.up and not self._stop_pending:
            self.last_end = f"Your last server, job {self.job_id}, has ended: {await self.why(job)}."
        return 0

    async def why(self, job: Job | None) -> str:
        """Why a job is not there any more, as far as Slurm still knows."""
        found: dict[str, str] = {}
        try:
            for _ in range(5 if self.job_id else 0):  # while it is COMPLETING the end is not told
                found = slurm.details(await slurm.output(self.command("scontrol"), "show", "job", self.job_id, "-o"))
                if found.get("JobState") != "COMPLETING":
                    break
                await asyncio.sleep(1)
        except SlurmError as error:
            self.log.info("scontrol: %s", error)
        return slurm.why_it_ended(
            found.get("JobState") or (job.state if job else ""),
            found.get("TimeLimit") or (job.limit if job else ""),
            found.get("BatchHost", ""),
            found.get("memory", "share"),
            found.get("ExitCode", ""),
            found.get("Comment", ""),
        )

    async def adopt(self) -> int | None:
        """The hub was restarted while this job was on its way: wait for it, as the hub before did.

        JupyterHub asks each spawner once, at its start, whether its server is there; this is the answer. Meanwhile
        the server counts as one that is being started, so that its user sees how it goes on, and can stop it.
        """
        self.log.info("%s: job %s was on its way when the hub was stopped", self._log_name, self.job_id)
        waiting = asyncio.ensure_future(self.wait_until_up())
        self._spawn_pending = True
        self._spawn_future = asyncio.ensure_future(self.finish_adoption(waiting))
        self._spawn_future.add_done_callback(self.note_end_of_start)
        await asyncio.wait([waiting])
        if waiting.cancelled():  # its user has stopped it, and JupyterHub goes on to cancel the job
            self.server = None
            return 0
        if waiting.exception():
            self.log.warning("%s: %s", self._log_name, waiting.exception())
            return 1
        self.server.ip, self.server.port = waiting.result()
        self.remember()
        return None

    async def finish_adoption(self, waiting: "asyncio.Future[tuple[str, int]]") -> None:
        """Add the route, as JupyterHub does at the end of a start. Fails as the start did."""
        await waiting
        while self._check_pending:
            await asyncio.sleep(0.1)
        if self.server:
            await self.user.settings["proxy"].add_user(self.user, self.name)

    def note_end_of_start(self, ended: "asyncio.Future[None]") -> None:
        """As JupyterHub does: the reason of a failure is kept, to be shown."""
        self._spawn_pending = False
        if ended.cancelled() or not ended.exception():
            self._spawn_future = None

    async def stop(self, now: bool = False) -> None:
        """Cancel the job. Returns when it has ended; until Slurm has said so it is not forgotten."""
        if self.submission:
            await asyncio.wait([self.submission])
            if not self.submission.exception():
                self.job_id = self.submission.result()
        wait = 0.5
        while True:
            try:
                job = await self.queue.job(self.user.name, self.job_name)
                if not (job and job.alive):
                    return
                await self.as_user("scancel", job.id)
            except SlurmError as error:
                self.log.warning("%s: job %s cannot be cancelled yet: %s", self._log_name, self.job_id, error)
            await asyncio.sleep(wait)
            wait = min(2 * wait, self.queue_interval)


async def reachable(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 5)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True
