"""Follow a job from the queue to a server that answers, and say why it has ended."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jupyterhub.spawner import SpawnException

from barehub_slurm import internals, slurm
from barehub_slurm.slurm import Job, Queue, SlurmError

MARGIN = 5  # seconds before JupyterHub's own time limit, which gives no reason

KEPT = ("job_name", "job_id", "token_id", "reported", "up", "submitted")


class JobError(SpawnException):  # type: ignore[misc]  # JupyterHub ships no types
    """Why there is no server, in words that JupyterHub shows to its user."""

    def __init__(self, text: str) -> None:
        super().__init__(text, reason="slurm")
        self.jupyterhub_message = text


@dataclass
class Following:
    """The job of one spawner. `spawner` is asked for the site's settings; the rest is this class's own state."""

    spawner: Any
    queue: Queue
    job_name: str = ""  # of the job that exists, may exist, or is about to
    job_id: str = ""
    token_id: int = 0  # of the token that the job was given
    reported: int = 0  # the port, once the job has told it
    up: bool = False
    submitted: float = 0.0
    last_end: str = ""  # why the server before ended, for the form
    said: str = "Asking Slurm"
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def state(self) -> dict[str, Any]:
        """What the database keeps."""
        state: dict[str, Any] = {"last_end": self.last_end} if self.last_end else {}
        return state | ({name: getattr(self, name) for name in KEPT} if self.job_name else {})

    def load(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name in (*KEPT, "last_end"):
                setattr(self, name, value)
        if self.job_name:
            self.queue.watch(self.job_name)

    def clear(self) -> None:
        self.queue.forget(self.job_name)
        self.job_name, self.job_id, self.token_id, self.reported, self.up = "", "", 0, 0, False
        self.news.clear()

    async def ask(self, age: float = 0) -> Job | None:
        """The job, from an answer that is at most `age` seconds old. Raises SlurmError."""
        return await self.queue.job(self.spawner.user.name, self.job_name, age)

    async def wait_until_up(self) -> tuple[str, int]:
        """Follow the job until its server can be reached; its address. Raises JobError."""
        started = 0.0
        while True:
            job, answers = None, True
            try:
                job = await self.ask(0 if self.news.is_set() else self.spawner.queue_interval)
                self.job_id = job.id if job else self.job_id
            except SlurmError as error:
                answers = False
                self.spawner.log.warning("squeue: %s", error)
                self.said = f"Slurm does not answer at present; job {self.job_id} keeps its place"
            self.news.clear()
            if answers and not (job and job.alive):
                raise JobError(f"Your server did not start: {await self.why(job)}.")
            if job and job.running:
                started = started or time.time()
                if self.reported and await reachable(job.node, self.reported):
                    self.up, self.last_end = True, ""
                    return job.node, self.reported
            if job:
                self.said = self.progress_of(job)
                self.require_patience(job, started)
            wait = 0.5 if job and job.running and self.reported else self.spawner.queue_interval
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
            patience = self.spawner.launch_timeout
            if time.time() - started < patience:
                return
            log = f"~/.jupyterhub/job-{job.id}.log"
            if self.reported:
                what = f"the hub cannot connect to it at {job.node}:{self.reported}. Is there a firewall?"
            else:
                what = f"it has not told the hub its port. Its log is {log}."
            raise JobError(f"Job {job.id} runs on {job.node} for {patience} s, but {what}")
        if time.time() - self.submitted > self.spawner.start_timeout - MARGIN:
            waited = slurm.spoken((time.time() - self.submitted) / 60)
            raise JobError(f"Your job waited {waited} and was given up: {slurm.why_it_waits(job)}.")

    def take_port(self, port: int) -> bool:
        """Note what the job reports; False if it has done so before."""
        if self.reported:
            return False
        self.reported = port
        return True

    async def why(self, job: Job | None) -> str:
        """Say why a job has ended, as far as Slurm still knows."""
        found: dict[str, str] = {}
        try:
            for _ in range(5 if self.job_id else 0):  # while it is COMPLETING, the reason is not known
                scontrol = self.spawner.command("scontrol")
                found = slurm.details(await slurm.output(scontrol, "show", "job", self.job_id, "-o"))
                if found.get("JobState") != "COMPLETING":
                    break
                await asyncio.sleep(1)
        except SlurmError as error:
            self.spawner.log.info("scontrol: %s", error)
        return slurm.why_it_ended(
            found.get("JobState") or (job.state if job else ""),
            found.get("TimeLimit") or (job.limit if job else ""),
            found.get("BatchHost", ""),
            found.get("memory", "share"),
            found.get("ExitCode", ""),
            found.get("Comment", ""),
        )

    async def adopt(self) -> tuple[str, int] | int:
        """Wait for a job that was on its way when the hub was restarted, as the hub did before.

        Returns the server's address; or 0 if its user has stopped it meanwhile, or 1 if it failed.

        JupyterHub asks each spawner once, at its start, whether its server is there; this is the answer. Meanwhile
        the server counts as one that is being started, so that its user sees how it goes on, and can stop it.
        """
        name = internals.log_name(self.spawner)
        self.spawner.log.info("%s: job %s was on its way when the hub was stopped", name, self.job_id)
        waiting = asyncio.ensure_future(self.wait_until_up())
        internals.mark_as_starting(self.spawner, asyncio.ensure_future(self.finish_adoption(waiting)))
        await asyncio.wait([waiting])
        if waiting.cancelled():  # its user has stopped it, and JupyterHub goes on to cancel the job
            return 0
        if waiting.exception():
            self.spawner.log.warning("%s: %s", name, waiting.exception())
            return 1
        return waiting.result()

    async def finish_adoption(self, waiting: "asyncio.Future[tuple[str, int]]") -> None:
        """Add the route once the hub's check of this spawner is over. Fails as the start did."""
        await waiting
        while internals.is_being_checked(self.spawner):
            await asyncio.sleep(0.1)
        if self.spawner.server:
            await internals.add_route(self.spawner)


async def reachable(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 5)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True
