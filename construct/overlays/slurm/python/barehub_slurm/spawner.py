"""The spawner: a user's server is a batch job of that user.

It keeps batchspawner's names for what a site sets (`c.SlurmSpawner.req_account`, `req_qos`, `exec_prefix` ...) and
does the rest itself, because batchspawner

- forgets a job that is queued while the hub restarts: here its name is in the database before it is submitted, and the
  next hub continues to wait for it;
- treats a slurmctld that does not answer as a server that has stopped;
- asks slurmctld twice a second for each user who waits: here one squeue answers for all (slurm.py);
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
from importlib.resources import files
from typing import Any

import jupyterhub
from batchspawner import SlurmSpawner
from jupyterhub import orm
from traitlets import Dict, Float, Integer, List, Unicode, default

from barehub_slurm import internals, options, slurm
from barehub_slurm.following import Following, JobError
from barehub_slurm.slurm import Queue, SlurmError

LOOPBACK = ("", "127.0.0.1", "localhost", "::1", "0.0.0.0", "::")  # noqa: S104 - compared with


class SlurmJobSpawner(SlurmSpawner):  # type: ignore[misc]  # batchspawner ships no types
    """`c.JupyterHub.spawner_class` of the overlay. The example 50-site.py has what a site must set."""

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
        return lambda spawner, user_options: None  # start() does it, where Slurm can be asked

    def command(self, name: str) -> str:
        return f"{self.commands}/{name}"

    # What the user chooses

    async def offer(self) -> options.Offer:
        """Return what can be asked for, at most `queue_interval` old. Raises SlurmError if that is not known."""
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
            return (await self.offer()).form(self.job.last_end)
        except SlurmError as error:
            self.log.warning("sinfo: %s", error)
            return '<p class="alert alert-danger">Slurm does not answer at present. Try again in a minute.</p>'

    def options_from_form(self, form_data: dict[str, list[str]]) -> dict[str, Any]:
        return options.from_form(form_data)

    # What the database keeps

    def get_state(self) -> dict[str, Any]:
        return self.job.state

    def load_state(self, state: dict[str, Any]) -> None:
        self.job.load(state)
        self.job_id = self.job.job_id

    def clear_state(self) -> None:
        super().clear_state()
        self.job.clear()

    def remember(self) -> None:
        """Write the state to the database now, because the hub may be stopped before the server is up."""
        self.job_id = self.job.job_id  # batchspawner's own, which a site's hooks may read
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
        self.job.job_name = f"jupyterhub-{secrets.token_hex(4)}"
        self.job.token_id = orm.APIToken.find(self.user.db, self.api_token).id
        self.job.submitted = time.time()
        self.job.said = "Submitting the job to Slurm"
        self.queue.squeue = self.command("squeue")
        self.queue.watch(self.job.job_name)
        self.remember()
        # Not cancelled with this coroutine: a job that is accepted a moment later would belong to nobody.
        self.submission = asyncio.ensure_future(self.submit(await self.script(request)))
        try:
            self.job.job_id = await asyncio.shield(self.submission)
        except SlurmError as error:
            raise JobError(f"Slurm did not accept the job: {slurm.refusal(str(error))}") from None
        self.queue.watch(self.job.job_name)  # an earlier answer did not know it yet
        self.remember()
        self.ip, self.port = await self.job.wait_until_up()
        return self.ip, self.port

    def require_site(self) -> None:
        """Raise JobError if a setting of the site is missing or the user has no account."""
        where = "Administrators: see 50-site.py among the examples."
        if self.hub.ip in LOOPBACK and self.hub.connect_ip in LOOPBACK and not self.hub_connect_url:
            listens = self.hub.ip or "every address"
            raise JobError(f"No server can run: the hub listens at {listens}, which nodes cannot reach. {where}")
        if not self.users_environment:
            raise JobError(f"No server can run: the users' environment is not set. {where}")
        try:
            pwd.getpwnam(self.user.name)
        except KeyError:
            raise JobError(f"There is no account {self.user.name} on the head node, so Slurm knows none.") from None

    async def script(self, request: options.Request) -> str:
        environment = {name: value for name, value in self.get_env().items() if name not in ("HOME", "USER", "SHELL")}
        cmd = [self.oldest_jupyterhub, jupyterhub.__version__, str(self.report_timeout), *self.cmd, *self.get_args()]
        return internals.render(
            self.batch_script,
            self.get_req_subvars()
            | vars(request)
            | {
                "job_name": self.job.job_name,
                "users_environment": shlex.quote(self.users_environment.rstrip("/")),
                "env": [(name, shlex.quote(str(value))) for name, value in environment.items()],
                "launch": (files(__package__) / "launch.py").read_text(),
                "cmd": shlex.join(cmd),
            },
        )

    async def submit(self, script: str) -> str:
        """Submit the job and return its id. The script holds the token, so it goes by stdin."""
        printed = await self.as_user("sbatch", "--parsable", stdin=script)
        return printed.splitlines()[-1].partition(";")[0]

    async def as_user(self, command: str, *arguments: str, stdin: str = "") -> str:
        """Run a Slurm command as the server's user. Raises SlurmError."""
        prefix = [word.format(username=self.user.name) for word in shlex.split(self.exec_prefix)]
        account = pwd.getpwnam(self.user.name)
        names = {"USER": self.user.name, "LOGNAME": self.user.name, "HOME": account.pw_dir, "SHELL": account.pw_shell}
        return await slurm.output(*prefix, self.command(command), *arguments, stdin=stdin, env=names)

    @property
    def token_id(self) -> int:
        """Of the token that the job was given."""
        return self.job.token_id

    def take_port(self, port: int) -> bool:
        """Note the port that the job reports; False if it has reported one before."""
        if not self.job.take_port(port):
            return False
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
        """Return None while the job exists or may exist, else 0."""
        if self.submission and not self.submission.done():
            return None
        if not self.job.job_name:
            return 0
        if internals.is_being_checked(self) and not self.job.up:
            return await self.adopt()
        stopping = internals.is_being_stopped(self)
        try:
            job = await self.job.ask(0 if stopping else self.queue_interval)
        except SlurmError as error:
            self.log.warning("squeue: %s; treating %s as running", error, internals.log_name(self))
            return None
        if job and job.alive:
            return None
        if self.job.up and not stopping:
            self.job.last_end = f"Your last server, job {self.job.job_id}, has ended: {await self.job.why(job)}."
        return 0

    async def adopt(self) -> int | None:
        """Wait for a job that was on its way when the hub was stopped; None once its server is up."""
        found = await self.job.adopt()
        if isinstance(found, int):
            if found == 0:
                self.server: Any = None
            return found
        self.ip, self.port = found
        self.server.ip, self.server.port = found
        self.remember()
        return None

    async def stop(self, now: bool = False) -> None:
        """Cancel the job. Returns when it has ended: until Slurm confirms that, it is not forgotten."""
        if self.submission:
            await asyncio.wait([self.submission])
            if not self.submission.exception():
                self.job.job_id = self.submission.result()
        wait = 0.5
        while True:
            try:
                job = await self.job.ask()
                if not (job and job.alive):
                    return
                await self.as_user("scancel", job.id)
            except SlurmError as error:
                name = internals.log_name(self)
                self.log.warning("%s: job %s cannot be cancelled yet: %s", name, self.job.job_id, error)
            await asyncio.sleep(wait)
            wait = min(2 * wait, self.queue_interval)
