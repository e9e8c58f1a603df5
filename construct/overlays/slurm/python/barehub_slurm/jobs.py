"""The hub's jobs in Slurm's queue.

Of what squeue is asked for, a user can choose only the job's name. A job counts only if the hub made that name and the
job is of the server's user, known by number: no line of its output can be forged. An account's name does not count,
since one account may have several spellings (sssd, winbind), of which squeue prints one.
"""

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from math import inf

from barehub_slurm.slurm import Slurm, SlurmError, rows

log = logging.getLogger("barehub_slurm")

JOB_FORMAT = "%i|%T|%r|%U|%B|%V|%S|%l|%P|%j"
# squeue(1), JOB STATE CODES. Whatever is not among these may be a server, now or later: a state that is new to this
# list must end nobody's. COMPLETING is dead: its processes are gone or going.
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "COMPLETING", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL",
    "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT",
}  # fmt: skip
QUEUED = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}


@dataclass(frozen=True)
class Job:
    id: str
    state: str
    reason: str
    uid: str
    node: str  # the first one; meaningful for a job that has started
    submitted: str  # times are local, as 2026-11-24T09:31:36
    starts: str
    limit: str
    partition: str
    name: str

    @property
    def alive(self) -> bool:
        """Whether it may have a server, now or later."""
        return self.state not in ENDED

    @property
    def running(self) -> bool:
        return self.state == "RUNNING"


def read_jobs(text: str) -> list[Job]:
    """Read what squeue printed with JOB_FORMAT. Raises SlurmError if it printed something, but no job."""
    found, others = rows(text, len(JOB_FORMAT.split("|")))
    if others and not found:
        raise SlurmError(f"squeue printed {others[0][:200]!r}")
    if others:
        log.warning("squeue: ignored %d lines, the first is %r", len(others), others[0][:200])
    return [Job(*row) for row in found]


def squeue_words(names: str) -> tuple[str, ...]:
    """Return squeue's arguments. -a: jobs in hidden partitions too."""
    return ("-h", "-a", "-t", "all", "-n", names, "-o", JOB_FORMAT)


class Queue:
    """The hub's jobs, of all users. One squeue, and never two at a time, asks for all of them.

    slurmctld is busy enough: its answer serves every caller that accepts one of that age. Where PrivateData= in
    slurm.conf hides others' jobs from the hub's account, a job that the hub does not see is asked for as its user.
    """

    def __init__(self) -> None:
        self.names: dict[str, float] = {}  # of the jobs to ask for -> since when (time.monotonic)
        self.jobs: list[Job] = []
        self.asked = -inf
        self.error: SlurmError | None = None
        self.asking: asyncio.Task[None] | None = None
        self.may_be_hidden = os.geteuid() != 0  # slurmctld hides nothing from root
        self.hidden: dict[str, tuple[float, list[Job]]] = {}  # name -> when asked as the user, and the answer

    def watch(self, name: str) -> None:
        """Ask for this job too, from now on. An earlier answer says nothing about it."""
        self.names[name] = time.monotonic()

    def forget(self, name: str) -> None:
        self.names.pop(name, None)
        self.hidden.pop(name, None)

    async def own_jobs(self, slurm: Slurm, name: str, age: float = 0, uid: int = -1) -> list[Job]:
        """Return the user's jobs of this name, the living ones first, from an answer at most `age` seconds old.

        None means that Slurm does not show the job, which is not the same as that it has ended. There may be two, since
        sbatch tries again if slurmctld is slow to answer. Raises SlurmError if Slurm does not answer.
        """
        uid = slurm.uid if uid < 0 else uid
        since = max(time.monotonic() - age, self.names.get(name, -inf))
        while self.asked < since:
            if self.asking is None:
                self.asking = asyncio.ensure_future(self.ask(slurm))
            await asyncio.shield(self.asking)
        if self.error:
            raise self.error
        found = select(self.jobs, uid, name)
        if not found and self.may_be_hidden:
            return select(await self.jobs_as_user(slurm, name, since), uid, name)
        return found

    async def ask(self, slurm: Slurm) -> None:
        now = time.monotonic()
        try:
            self.jobs = read_jobs(await slurm.run("squeue", *squeue_words(",".join(self.names))))
            self.error = None
        except SlurmError as error:
            self.error = error
        finally:
            self.asked = now
            self.asking = None

    async def jobs_as_user(self, slurm: Slurm, name: str, since: float) -> list[Job]:
        asked, jobs = self.hidden.get(name, (-inf, []))
        if asked < since:
            now = time.monotonic()
            try:
                jobs = read_jobs(await slurm.run_as_user("squeue", *squeue_words(name)))
            except SlurmError as error:
                if error.unreachable:
                    raise
                # Not allowed by an older slurm-sudoers, perhaps.
                log.warning("squeue as %s: %s", slurm.user, error)
                jobs = []
            self.hidden[name] = (now, jobs)
        return jobs


def select(jobs: list[Job], uid: int, name: str) -> list[Job]:
    """Return the jobs of this name and user, the living ones first."""
    own = [job for job in jobs if job.name == name and job.uid == str(uid)]
    return sorted(own, key=lambda job: not job.alive)
