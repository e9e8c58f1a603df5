"""The overlay `slurm`: what Slurm says, in plain words."""

import time

import pytest
from barehub_slurm import words
from barehub_slurm.jobs import Job
from barehub_slurm.slurm import details

from tests.unit.slurm_commands import JOB


def test_why_a_job_waits() -> None:
    job = Job(*JOB.split("|"))
    assert words.why_it_waits(job) == "all nodes that suit it are busy (Resources)"
    other = Job(*JOB.replace("Resources", "QOSMaxJobsPerUserLimit").split("|"))
    assert "a limit of your account or of the cluster is reached (QOSMaxJobs" in words.why_it_waits(other)
    down = "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions"
    assert "the nodes it needs are down, drained, or reserved" in words.why_it_waits(
        Job(*JOB.replace("Resources", down).split("|"))
    )
    today = time.strftime("%Y-%m-%d")
    assert words.clock(f"{today}T09:31:36") == "09:31"
    assert words.clock("2020-01-02T09:31:36") == "2020-01-02 09:31"
    assert words.clock("N/A") == ""


SHOWN = (
    "JobId=17 JobName=jupyterhub-1 UserId=alice(1000) JobState=FAILED Reason=NonZeroExitCode ExitCode=1:0"
    " TimeLimit=04:00:00 BatchHost=c1 TRES=cpu=1,mem=2G,node=1 Comment=it is\nJobState=RUNNING <b>old</b>"
    "  StdErr=/dev/null StdIn=/dev/null"
)


@pytest.mark.parametrize(
    ("state", "exit_code", "said"),
    [
        ("TIMEOUT", "0:15", "it reached its time limit of 4 h"),
        ("OUT_OF_MEMORY", "0:125", "it used more than its 2G of memory"),
        ("NODE_FAIL", "1:0", "the node c1 failed"),
        ("CANCELLED", "0:15", "it was cancelled, by you or by an administrator"),
        ("FAILED", "0:9", "it was killed, most likely because it used more than its 2G of memory"),
        ("FAILED", "3:0", "it failed with exit status 3"),
        ("COMPLETED", "0:0", "it ended by itself"),
        ("DEADLINE", "0:15", "its deadline has passed"),
        ("PREEMPTED", "0:15", "a job of higher priority took its place"),
        ("BOOT_FAIL", "0:0", "the node c1 failed"),
        ("LAUNCH_FAILED", "0:0", "Slurm could not launch it on the node c1"),
        ("REVOKED", "0:0", "another cluster of the federation runs it"),
        ("", "", "Slurm does not know it any more"),
    ],
)
def test_why_a_job_ended(state: str, exit_code: str, said: str) -> None:
    found = {"JobState": state, "ExitCode": exit_code, "TimeLimit": "4:00:00", "BatchHost": "c1", "memory": "2G"}
    assert words.why_it_ended(None, found) == said


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("JobLaunchFailure", "Slurm could not launch it on the node c1 (JobLaunchFailure)"),
        ("Prolog", "the prolog of Slurm failed on the node c1 (Prolog)"),
        ("SystemFailure", "Slurm failed on the node c1 (SystemFailure)"),
        (
            "None",
            "it was cancelled: by you, by an administrator, or by Slurm, which could not launch it on the node c1",
        ),
    ],
)
def test_a_launch_that_failed_was_cancelled_by_nobody(reason: str, said: str) -> None:
    found = {"JobState": "CANCELLED", "Reason": reason, "BatchHost": "c1"}
    assert words.why_it_ended(None, found, launched=False) == said


@pytest.mark.parametrize(("exit_code", "launched"), [("0:9", False), ("0:9", True), ("1:0", True)])
def test_a_job_that_was_killed_was_launched(exit_code: str, launched: bool) -> None:
    """Slurm 22.05 gives this reason for one that was killed for its memory."""
    found = {"JobState": "FAILED", "Reason": "JobLaunchFailure", "BatchHost": "c1", "ExitCode": exit_code}
    why = words.why_it_ended(None, found, launched=launched)
    assert why.startswith("it was killed, most likely" if exit_code == "0:9" else "it failed with exit status 1")


def test_what_a_job_says_of_itself_is_one_line_and_nothing_more() -> None:
    found = details(SHOWN)
    assert (found["JobState"], found["memory"]) == ("FAILED", "2G")
    assert found["Comment"] == "it is JobState=RUNNING <b>old</b>"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sbatch: error: Batch job submission failed: Invalid account", "Invalid account"),
        ("sbatch: a note\nsbatch: error: Batch job submission failed: Invalid account", "Invalid account"),
        (
            "sbatch: error: Your project has expired.\nsbatch: error: Batch job submission failed: Unspecified error",
            "Your project has expired; Unspecified error",
        ),
        (
            "sbatch: error: Batch job submission failed: Unspecified error\nsbatch: error: Ask the help desk",
            "Ask the help desk; Unspecified error",
        ),
        ("sbatch: error: One\nsbatch: error: Two\nsbatch: error: Two\nsbatch: fatal: x", "One; Two"),
        ("sudo: a password is required\nsudo: or so", "sudo: a password is required"),
        ("", "sbatch gave no reason"),
    ],
)
def test_refusals_keep_all_of_slurms_reasons(text: str, said: str) -> None:
    assert words.refusal(text) == said
