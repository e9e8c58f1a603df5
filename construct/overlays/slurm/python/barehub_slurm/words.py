"""What Slurm says, in plain words."""

import re
import time
from math import inf

from barehub_slurm.jobs import QUEUED, Job
from barehub_slurm.partitions import minutes

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
    "Nodes required for job are DOWN": "the nodes it needs are down, drained, or reserved",
    "BadConstraints": "no node has what it asks for",
    "BeginTime": "it is to begin later",
    "JobHeldAdmin": "an administrator holds it back",
    "JobHeldUser": "you hold it back",
    "Reservation": "its reservation has not begun",
    "Licenses": "a licence it needs is in use",
    "Prolog": "its node is being prepared",
}

# Reasons of a job that has ended (job_reason_string in slurm_protocol_defs.c) that say more than its state.
ENDS = {
    "JobLaunchFailure": "Slurm could not launch it{on}",
    "SystemFailure": "Slurm failed{on}",
    "Prolog": "the prolog of Slurm failed{on}",
    "BootFailure": "its node{on} did not boot",
    "InactiveLimit": "Slurm ended it as inactive",
}

GENERAL = "Batch job submission failed"  # sbatch's last word, whatever came before


def spoken(mins: float) -> str:
    """Return a length of time as people say it: `30 s`, `45 min`, `2 h`, `1 h 30 min`, `3 days`."""
    if mins == inf:
        return "any time"
    if 0 < mins < 1:
        return f"{round(mins * 60)} s"
    hours, rest = divmod(round(mins), 60)
    if hours >= 48 and hours % 24 == 0 and not rest:
        return f"{hours // 24} days"
    return " ".join([*([f"{hours} h"] if hours else []), *([f"{rest} min"] if rest or not hours else [])])


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


def moment(text: str) -> float:
    """Return a time that Slurm printed as time.time has it; 0 if it printed none."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return 0.0


def why_it_ended(job: Job | None, found: dict[str, str], launched: bool = True) -> str:
    """Say why a job ended, from what squeue and scontrol report. `launched`: it is known to have had a server."""
    state = found.get("JobState") or (job.state if job else "")
    node, memory = found.get("BatchHost", ""), found.get("memory", "share")
    code, _, signal = found.get("ExitCode", "").partition(":")
    on = f" on the node {node}" if node else ""
    if job and job.state in QUEUED:
        return "Slurm has put it back into the queue, where it would become another server"
    if comment := found.get("Comment"):
        return comment
    reason = failed_launch(found, launched)
    if reason and state not in ("TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL"):
        return f"{ENDS[reason].format(on=on)} ({reason})"
    match state:
        case "DEADLINE":
            return "its deadline has passed"
        case "REVOKED":
            return "another cluster of the federation runs it"
        case "TIMEOUT":
            return (
                f"it reached its time limit of {spoken(minutes(found.get('TimeLimit') or (job.limit if job else '')))}"
            )
        case "OUT_OF_MEMORY":
            return f"it used more than its {memory} of memory"
        case "LAUNCH_FAILED":
            return f"Slurm could not launch it{on}"
        case "NODE_FAIL" | "BOOT_FAIL":
            return f"the node {node} failed" if node else "its node failed"
        case "PREEMPTED":
            return "a job of higher priority took its place"
        case "CANCELLED" if node and not launched:
            return f"it was cancelled: by you, by an administrator, or by Slurm, which could not launch it{on}"
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


def failed_launch(found: dict[str, str], launched: bool) -> str:
    """Return Slurm's word for why a job could not be launched; empty if it was.

    22.05 says JobLaunchFailure of a job that was killed for its memory, too: then there is a signal.
    """
    reason = found.get("Reason", "").partition(":")[0]
    killed = found.get("ExitCode", "").endswith(":9")
    return reason if reason in ENDS and not launched and not killed else ""


def refusal(error: str) -> str:
    """Return why sbatch refused a job: all its error lines, the general one last; or sudo's first line, if it failed.

    job_submit plugins and cli_filters print the reason, after which sbatch says only that there was an error.
    """
    lines = error.strip().splitlines() or ["sbatch gave no reason"]
    own = [line for line in lines if line.startswith("sbatch:")]
    if not own:
        return lines[0]
    errors = [line for line in own if line.startswith("sbatch: error:")] or own
    errors.sort(key=lambda line: GENERAL in line)
    said = [re.sub(rf"^sbatch: (error: )?|{GENERAL}: ", "", line).strip().rstrip(".") for line in errors]
    return "; ".join(words for words in dict.fromkeys(said) if words)
