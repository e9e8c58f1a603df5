"""What the hub's home page says about the jobs of a user's servers: share/barehub/templates/home.html."""

import time
from dataclasses import dataclass
from math import inf

from barehub_slurm import words
from barehub_slurm.jobs import Job
from barehub_slurm.options import Request
from barehub_slurm.partitions import minutes

WARNING = 15  # minutes before the end


@dataclass(frozen=True)
class Summary:
    """A job in words. `left` is in minutes, infinite if nothing limits it."""

    job_id: str
    asked: str
    doing: str
    ends: str
    left: float

    @property
    def ends_soon(self) -> bool:
        return self.left <= WARNING

    @property
    def warn_in(self) -> float:
        """Seconds until the warning is due; 0 if it is, or never will be."""
        return max(0.0, (self.left - WARNING) * 60) if self.left < inf else 0.0

    @property
    def time_left(self) -> str:
        return words.spoken(max(0, self.left)) if self.left < inf else ""


def summary(job: Job, asked: str) -> Summary:
    """Return what is said about a job that squeue has shown. `asked` is of `asked_for`."""
    left = minutes_left(job) if job.running else inf
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + left * 60)) if left < inf else ""
    waits = "is suspended" if job.state in ("SUSPENDED", "STOPPED") else f"waits: {words.why_it_waits(job)}"
    where = ", ".join(filter(None, [job.partition, asked]))
    return Summary(job.id, where, f"runs on {job.node}" if job.running else waits, words.clock(end), left)


def minutes_left(job: Job) -> float:
    """Return the minutes until Slurm ends a job that runs; infinite if its limit or its start cannot be read."""
    started = words.moment(job.starts)
    return (started - time.time()) / 60 + minutes(job.limit) if started else inf


def asked_for(request: Request) -> str:
    """Return in words what a job asks for beside its partition and its time."""
    parts = [f"{request.cores} core{'s' if request.cores > 1 else ''}"]
    parts += [f"{request.memory / 1024:g} GB"] if request.memory else []
    parts += [f"GPUs: {request.gpus}"] if request.gpus else []
    return ", ".join(parts)
