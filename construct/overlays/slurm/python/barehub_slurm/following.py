"""Follow a job from the queue to a server that answers, say why it has ended, and cancel it."""

import asyncio
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from typing import Any

from barehub.environments import STATE, modules, started_from
from barehub.logins import NoServerError

from barehub_slurm import internals, joblog, words
from barehub_slurm.jobs import ENDED, QUEUED, Job, Queue
from barehub_slurm.slurm import Slurm, SlurmError

MARGIN = 5  # seconds before JupyterHub's own time limit, which gives no reason
REFUSALS = 5  # of scancel, before its user is told to cancel the job

KEPT = ("job_name", "job_id", "uid", "token_id", "reported", STATE, "up", "left", "submitted", "asked")


class JobError(NoServerError):
    """Why there is no server, as far as Slurm and the site's settings are concerned.

    `log` is the end of its job's log, which pages show below the reason.
    """

    kind = "slurm"

    def __init__(self, text: str, log: str = "") -> None:
        super().__init__(text)
        if log:  # JupyterHub shows this in place of the text (utils.py, format_exception)
            lines = f'<pre class="slurm-log text-start">{escape(log)}</pre>'
            self.jupyterhub_html_message = f"{escape(text)} The last lines of its log:{lines}"


@dataclass
class Following:
    """The job of one spawner. `spawner` is asked for the site's settings; the rest is this class's own state.

    A job that Slurm does not show has not ended for that: it may be new, or hidden, or slurmctld has just started. It
    counts as ended when Slurm says so, or has not shown it for `unseen_timeout` seconds.
    """

    spawner: Any
    queue: Queue
    job_name: str = ""  # of the job that exists, may exist, or is about to
    job_id: str = ""
    uid: int = -1  # the user's number at the submission: the name may be unknown for a moment; -1 in older states
    token_id: int = 0  # of the token that the job was given
    reported: int = 0  # the port, once the job has told it
    environment: dict[str, str] = field(default_factory=dict)  # that the server runs from, as the job has told, or will
    up: bool = False
    left: float = 0.0  # when the job told that its server has ended; what listens there afterwards is another's
    submitted: float = 0.0
    asked: str = ""  # what the job asks for, in words
    seen: Job | None = None  # as squeue has shown it last
    last_end: str = ""  # why the server before ended, for the form
    said: str = "Asking Slurm"
    doubt: str = ""  # why it is not certain that the job was accepted
    ended: bool = False  # Slurm has said so, or never accepted it, or has not shown it for long
    lost: bool = False  # the last of these
    unseen_since: float = 0.0
    addresses: dict[str, str] = field(default_factory=dict)  # of nodes whose names cannot be resolved
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
        self.job_name, self.job_id, self.uid, self.token_id, self.reported, self.up = "", "", -1, 0, 0, False
        self.environment, self.asked, self.seen = {}, "", None
        self.doubt, self.ended, self.lost, self.unseen_since, self.left = "", False, False, 0.0, 0.0
        self.said = "Asking Slurm"
        self.news.clear()

    def begin(self, name: str, token_id: int, asked: str = "", prefix: str = "") -> None:
        """Note a job that is about to be submitted."""
        self.clear()
        self.job_name, self.token_id, self.submitted, self.asked = name, token_id, time.time(), asked
        self.environment = started_from(prefix, "") if prefix and not modules(prefix) else {}
        self.uid = self.slurm.uid
        self.queue.watch(name)

    @property
    def slurm(self) -> Slurm:
        found: Slurm = self.spawner.slurm
        return found

    async def look(self, age: float = 0) -> Job | None:
        """Return the job, or None if Slurm does not show it, from an answer that is at most `age` seconds old.

        Sets `ended` if it has ended. Raises SlurmError if Slurm does not answer.
        """
        try:
            jobs = await self.queue.own_jobs(self.slurm, self.job_name, age, self.uid)
        except SlurmError:
            self.unseen_since = 0.0
            raise
        if jobs:
            job = next((one for one in jobs if one.id == self.job_id), jobs[0])
            requeued = self.up and job.state in QUEUED  # it would become a different server
            await self.cancel_each(one for one in jobs if one.alive and (requeued or one != job))
            self.unseen_since, self.job_id, self.seen = 0.0, job.id, job
            self.ended, self.lost = requeued or not job.alive, False
            return job
        self.unseen_since = self.unseen_since or time.monotonic()
        state = (await self.details()).get("JobState", "")
        if state and state not in ENDED:
            self.unseen_since = 0.0
        self.lost = not state and self.unseen > self.spawner.unseen_timeout
        self.ended = self.lost or state in ENDED
        return None

    async def cancel_each(self, jobs: Iterable[Job]) -> None:
        """Cancel what must not become a server: what sbatch submitted a second time, or Slurm put back in the queue."""
        for job in jobs:
            with suppress(SlurmError):
                await self.slurm.cancel(job.id)

    @property
    def unseen(self) -> float:
        """Seconds for which Slurm has answered without showing the job."""
        return time.monotonic() - self.unseen_since if self.unseen_since else 0.0

    async def details(self) -> dict[str, str]:
        """Return what Slurm still knows of the job by its number; nothing if it knows nothing."""
        try:
            return await self.slurm.details(self.job_id) if self.job_id else {}
        except SlurmError as error:
            self.spawner.log.info("scontrol: %s", error)
            return {}

    async def wait_until_up(self) -> tuple[str, int]:
        """Follow the job until its server can be reached; its address. Raises JobError."""
        started = 0.0
        while True:
            job = None
            try:
                job = await self.look(0 if self.news.is_set() else self.spawner.queue_interval)
                self.said = self.progress_of(job)
            except SlurmError as error:
                self.spawner.log.warning("squeue: %s", error)
                self.said = f"Slurm does not answer at present; {self.called} keeps its place"
            self.news.clear()
            if self.ended:
                raise JobError(f"Your server did not start: {await self.why(job)}.", await self.log())
            if job and job.running:
                started = started or time.time()
                if self.reported and not self.left and (address := await self.reachable_address(job.node)):
                    self.up, self.last_end = True, ""
                    return address, self.reported
            if gives_up := self.impatient(job, started):
                raise JobError(gives_up, await self.log() if job and job.running else "")
            wait = 0.5 if job and job.running and self.reported else self.spawner.queue_interval
            with suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), wait)

    @property
    def called(self) -> str:
        return f"job {self.job_id}" if self.job_id else "your job"

    def progress_of(self, job: Job | None) -> str:
        if job is None:
            if self.doubt:
                return f"Slurm has not confirmed your job ({self.doubt}); looking for it"
            return f"Slurm has accepted {self.called} but does not show it yet"
        if job.state in ("SUSPENDED", "STOPPED"):
            return f"Job {job.id} on {job.node} is suspended by Slurm or an administrator; it goes on later"
        if not job.running:
            expected = words.clock(job.starts)
            begin = f" Slurm expects to start it at {expected}." if expected else ""
            return (
                f"Job {job.id} waits in the partition {job.partition} since {words.clock(job.submitted)}:"
                f" {words.why_it_waits(job)}.{begin}"
            )
        if not self.reported:
            return f"Job {job.id} runs on {job.node} since {words.clock(job.starts)}; its server is starting"
        return f"Job {job.id} runs on {job.node}; connecting to its server at port {self.reported}"

    def impatient(self, job: Job | None, started: float) -> str:
        """Return why there is no point in waiting any longer; nothing while there is."""
        if job and job.running:
            patience = self.spawner.launch_timeout
            if time.time() - started < patience:
                return ""
            if self.reported:
                what = f"the hub cannot connect to it at {job.node}:{self.reported}. Is there a firewall?"
            else:
                what = f"it has not told the hub its port. {self.log_of(job.node)}."
            return f"Job {job.id} runs on {job.node} for {patience} s, but {what}"
        if time.time() - self.submitted > self.spawner.start_timeout - MARGIN:
            waited = words.spoken((time.time() - self.submitted) / 60)
            reason = words.why_it_waits(job) if job else "Slurm did not show it"
            return f"Your job waited {waited} and was given up: {reason}."
        return ""

    async def reachable_address(self, node: str) -> str:
        """Return the address at which the job's server answers, or nothing. Raises JobError if the node has none."""
        address = self.addresses.get(node, node)
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, self.reported), 5)
        except socket.gaierror as error:
            if address == node and error.errno != socket.EAI_AGAIN:
                self.addresses[node] = await self.node_address(node)
            return ""
        except OSError:  # TimeoutError is one
            return ""
        writer.close()
        return address

    async def node_address(self, node: str) -> str:
        """Return Slurm's address for a node whose name cannot be resolved here. Raises JobError."""
        found = ""
        with suppress(SlurmError):
            found = await self.slurm.node_address(node)
        try:
            await asyncio.get_running_loop().getaddrinfo(found or node, None)
        except OSError:
            raise JobError(
                f"Job {self.job_id} runs on the node {node}, but the hub's machine cannot resolve the name"
                f" {found or node}. Administrators: it has to be in the DNS or in /etc/hosts there."
            ) from None
        return found

    def take_port(self, port: int, environment: dict[str, str]) -> bool:
        """Note what the job reports; False if it has done so before."""
        if self.reported:
            return False
        self.reported, self.environment = port, environment
        return True

    async def why(self, job: Job | None) -> str:
        """Say why a job has ended, as far as Slurm still knows."""
        found: dict[str, str] = {}
        for _ in range(5):  # while it is COMPLETING, the reason is not known
            found = await self.details()
            if found.get("JobState") != "COMPLETING":
                break
            await asyncio.sleep(1)
        if not found and not job and self.doubt:
            return f"Slurm has not confirmed it ({self.doubt})"
        why = words.why_it_ended(job, found, launched=bool(self.reported))
        node = found.get("BatchHost") or (job.node if job and (self.reported or self.up) else "")
        # A comment is the job's own and says what is wrong; a job that was not launched has no log.
        told = found.get("Comment") or words.failed_launch(found, bool(self.reported))
        return why if told or not node else f"{why}. {self.log_of(node)}"

    async def log(self) -> str:
        """Return the end of the job's log, as far as it can be read here."""
        return await joblog.last_lines(self.slurm, self.job_id, self.spawner.get_env()) if self.job_id else ""

    def log_of(self, node: str) -> str:
        return f"Its log is ~/.jupyterhub/job-{self.job_id}.log on the node {node}"

    async def cancel(self) -> None:
        """Cancel the job. Returns when it has ended: until Slurm confirms that, it is not forgotten.

        If Slurm refuses to cancel it, its user is told.
        """
        wait, refusals = 0.5, 0
        while True:
            try:
                await self.look()
                if self.ended and not (self.lost and self.job_id):
                    return
                if self.job_id:
                    await self.slurm.cancel(self.job_id)
                if self.lost:
                    return
            except SlurmError as error:
                if error.job_is_gone:
                    return
                refusals += not error.unreachable or self.slurm.uid < 0  # the account is gone, perhaps for good
                name = internals.log_name(self.spawner)
                self.spawner.log.warning("%s: %s cannot be cancelled yet: %s", name, self.called, error)
                if refusals >= REFUSALS:
                    why = str(error).splitlines()[-1]
                    self.last_end = (
                        f"{self.called.capitalize()} could not be cancelled ({why}). Use: scancel {self.job_id}"
                    )
                    return
            await asyncio.sleep(wait)
            wait = min(2 * wait, self.spawner.queue_interval)
