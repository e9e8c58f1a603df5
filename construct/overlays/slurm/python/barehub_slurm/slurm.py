"""Run Slurm's own commands, read what they print, and put it in plain words.

The formats are those of sinfo(1), squeue(1) and scontrol(1). Of what squeue is asked for, a user can choose only the
job's name, and that must be one that the hub made: no line of its output can be forged.
"""

import asyncio
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

PATIENCE = 30  # seconds that a Slurm command may take; slurmctld can be busy


class SlurmError(Exception):
    """A Slurm command failed, with its own words, or did not answer in time."""


async def output(*argv: str, stdin: str = "", env: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed. Raises SlurmError."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath), **(env or {}), "LC_ALL": "C.UTF-8"},
            cwd="/",  # the hub's own directory is closed to users
        )
    except OSError as error:
        raise SlurmError(f"{argv[0]}: {error.strerror}") from error
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), PATIENCE)
    except TimeoutError:
        raise SlurmError(f"{argv[0]} has not answered in {PATIENCE} s") from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise SlurmError(err.decode(errors="replace").strip() or f"{argv[0]} exited with {process.returncode}")
    return out.decode(errors="replace").strip()


# What a user can choose

# Nodes in these states run nothing new (sinfo(1), NODE STATE CODES); flags such as * or ~ may follow.
OUT_OF_SERVICE = {"down", "drained", "draining", "fail", "failing", "error", "inval", "maint", "unknown", "future"}
PARTITION_FORMAT = "%P|%a|%l|%c|%m|%G|%T|%D"


@dataclass
class Partition:
    """What the nodes of a partition that are in service offer; `cores` is 0 if none is."""

    name: str
    default: bool = False
    up: bool = False
    minutes: float = inf
    nodes: int = 0
    cores: int = 0
    memory: int = 0  # MB
    gpus: int = 0


def partitions(text: str) -> dict[str, Partition]:
    """Read what `sinfo --exact --format=PARTITION_FORMAT` printed: a line for each group of equal nodes."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        name, available, limit, cores, memory, gres, state, nodes = line.split("|")
        partition = found.setdefault(name.rstrip("*"), Partition(name.rstrip("*"), name.endswith("*")))
        partition.up = available == "up"
        partition.minutes = minutes(limit)
        if re.sub(r"[^a-z].*", "", state) not in OUT_OF_SERVICE:
            partition.nodes += int(nodes)
            partition.cores = max(partition.cores, number(cores))
            partition.memory = max(partition.memory, number(memory))
            gpus = re.findall(r"\bgpu(?::[^:,()]+)?:(\d+)", gres)
            partition.gpus = max(partition.gpus, sum(map(int, gpus)))
    return found


def number(text: str) -> int:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0


def minutes(text: str) -> float:
    """Return a Slurm time limit, [days-][[hours:]minutes:]seconds, in minutes; `infinite` and `n/a` are none."""
    days, dash, clock = text.rpartition("-")
    if not re.fullmatch(r"[\d:]+", clock):
        return inf
    parts = [int(part) for part in clock.split(":")]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, mins, secs = (*parts, 0, 0)[:3]
    else:
        hours, mins, secs = (0, 0, *parts)[-3:]
    return int(days or 0) * 24 * 60 + hours * 60 + mins + secs / 60


def spoken(mins: float) -> str:
    """Return a length of time as people say it: `45 min`, `2 h`, `1 h 30 min`, `3 days`."""
    if mins == inf:
        return "any time"
    hours, rest = divmod(round(mins), 60)
    if hours >= 48 and hours % 24 == 0 and not rest:
        return f"{hours // 24} days"
    return " ".join([*([f"{hours} h"] if hours else []), *([f"{rest} min"] if rest or not hours else [])])


# Jobs

JOB_FORMAT = "%i|%T|%r|%u|%B|%V|%S|%l|%P|%j"
ALIVE = {
    "PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT",
    "RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    id: str
    state: str
    reason: str
    user: str
    node: str  # the first one; meaningful for a job that has started
    submitted: str  # times are local, as 2026-11-24T09:31:36
    starts: str
    limit: str
    partition: str
    name: str

    @property
    def alive(self) -> bool:
        """Whether it may have a server, now or later. COMPLETING is dead: its processes are gone or going."""
        return self.state in ALIVE

    @property
    def running(self) -> bool:
        return self.state == "RUNNING"


class Queue:
    """The hub's jobs, of all users. One squeue, and never two at a time, asks for all of them.

    slurmctld is busy enough: its answer serves every caller that accepts one of that age.
    """

    def __init__(self) -> None:
        self.squeue = "squeue"
        self.names: dict[str, float] = {}  # of the jobs to ask for -> since when (time.monotonic)
        self.jobs: dict[tuple[str, str], Job] = {}
        self.asked = -inf
        self.error = ""
        self.asking: asyncio.Task[None] | None = None

    def watch(self, name: str) -> None:
        """Ask for this job too, from now on. An earlier answer says nothing about it."""
        self.names[name] = time.monotonic()

    def forget(self, name: str) -> None:
        self.names.pop(name, None)

    async def job(self, user: str, name: str, age: float = 0) -> Job | None:
        """Return the job of this user and name, or None, from an answer that is at most `age` seconds old.

        Raises SlurmError if Slurm does not answer, which says nothing about the job.
        """
        since = max(time.monotonic() - age, self.names.get(name, -inf))
        while self.asked < since:
            if self.asking is None:
                self.asking = asyncio.ensure_future(self.ask())
            await asyncio.shield(self.asking)
        if self.error:
            raise SlurmError(self.error)
        return self.jobs.get((user, name))

    async def ask(self) -> None:
        now = time.monotonic()
        names = f"--name={','.join(self.names)}"
        try:
            text = await output(self.squeue, "--noheader", "--states=all", names, f"--format={JOB_FORMAT}")
            jobs = [Job(*line.split("|")) for line in text.splitlines()]
            self.jobs, self.error = {(job.user, job.name): job for job in reversed(jobs)}, ""
        except (SlurmError, TypeError) as error:
            self.error = str(error)
        finally:
            self.asked = now
            self.asking = None


# Words

WAITS = {
    "None": "Slurm has not considered it yet",
    "Priority": "other jobs are before it",
    "Resources": "all nodes that suit it are busy",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is closed at present",
    "PartitionTimeLimit": "it asks for more time than the partition allows",
    "PartitionNodeLimit": "it asks for more than the partition allows",
    "ReqNodeNotAvail": "the nodes it needs are not available, perhaps reserved for maintenance",
    "NodeDown": "the nodes it needs are down",
    "BeginTime": "it is to begin later",
    "JobHeldAdmin": "an administrator holds it back",
    "JobHeldUser": "you hold it back",
    "Reservation": "its reservation has not begun",
    "Licenses": "a licence it needs is in use",
}


def why_it_waits(job: Job) -> str:
    """Say why a job is not running yet, with Slurm's own word for users who want to look it up."""
    reason = job.reason.partition(",")[0].strip("()") or "None"
    if reason in WAITS:
        words = WAITS[reason]
    elif re.match(r"(QOS|Assoc|Max)", reason):
        words = "a limit of your account or of the cluster is reached"
    else:
        words = "Slurm gives a reason of its own"
    return words if reason == "None" else f"{words} ({reason})"


def clock(text: str) -> str:
    """Return the hour of a time that Slurm printed, with the date if that is not today; empty if it printed none."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", text):
        return ""
    day, _, hour = text.partition("T")
    return hour[:5] if day == time.strftime("%Y-%m-%d") else f"{day} {hour[:5]}"


def why_it_ended(state: str, limit: str, node: str, memory: str, exit_code: str, comment: str) -> str:
    """Say why a job ended, from what scontrol and squeue report. `exit_code` is CODE:SIGNAL."""
    code, _, signal = exit_code.partition(":")
    if comment:
        return comment
    match state:
        case "TIMEOUT" | "DEADLINE":
            return f"it reached its time limit of {spoken(minutes(limit))}"
        case "OUT_OF_MEMORY":
            return f"it used more than its {memory} of memory"
        case "NODE_FAIL" | "BOOT_FAIL":
            return f"the node {node} failed" if node else "its node failed"
        case "PREEMPTED":
            return "a job of higher priority took its place"
        case "CANCELLED":
            return "it was cancelled, by you or by an administrator"
        case "COMPLETED":
            return "it ended by itself"
        case "COMPLETING":
            return "it was ended, and Slurm has not said yet why"
        case _ if signal == "9":
            return f"it was killed, most likely because it used more than its {memory} of memory"
        case "FAILED":
            return f"it failed with exit status {code or 'unknown'}"
    return "Slurm does not know it any more"


def details(text: str) -> dict[str, str]:
    """Return the fields that matter here of what `scontrol show job ID --oneliner` printed."""
    found = {}
    for name in ("JobState", "TimeLimit", "BatchHost", "ExitCode"):
        if match := re.search(rf" {name}=(\S+)", text):
            found[name] = match[1]
    if match := re.search(r"[=,]mem=(\d+\.?\d*[KMGT]?)", text):
        found["memory"] = match[1]
    # The only words here that are a user's own; they are shown to nobody else.
    if match := re.search(r" Comment=(.*?)\s+(?:StdErr|SystemComment)=", text, re.DOTALL):
        found["Comment"] = " ".join(match[1].split())[:500]
    return found


def refusal(error: str) -> str:
    """Return why sbatch refused a job: its last line without its prefix; or sudo's first line, if sudo failed."""
    lines: Sequence[str] = error.strip().splitlines() or ["sbatch gave no reason"]
    line = lines[-1] if lines[-1].startswith("sbatch:") else lines[0]
    return re.sub(r"^sbatch: (error: )?|Batch job submission failed: ", "", line)
