"""The overlay `slurm`: what it reads of Slurm 22.05 (Debian 12) and of 24.11 (Debian 13).

slurm_output/ has what both printed for the same commands on the same cluster of one node that serves and one that is
down: a job that runs, one that has failed, one with a comment, and one that was killed for its memory. 24.11 ran in
namespaces, without systemd. barehub_slurm/slurm.py says what differs.
"""

from pathlib import Path

import pytest
from barehub_slurm import words
from barehub_slurm.jobs import read_jobs
from barehub_slurm.partitions import partitions, read_limits
from barehub_slurm.slurm import SlurmError, details

OUTPUT = Path(__file__).parent / "slurm_output"
VERSIONS = sorted(path.name for path in OUTPUT.iterdir())
version = pytest.mark.parametrize("version", VERSIONS)


def read(version: str, name: str) -> str:
    return (OUTPUT / version / f"{name}.txt").read_text()


def test_both_versions_are_recorded() -> None:
    assert VERSIONS == ["22.05", "24.11"]


@version
def test_partitions_and_nodes(version: str) -> None:
    found = partitions(read(version, "sinfo"))
    assert {name: (one.up, one.nodes, one.minutes) for name, one in found.items() if name != "private"} == {
        "main": (True, 1, 1440), "hidden": (True, 0, float("inf")), "second": (True, 1, 120), "shut": (False, 1, 30),
    }  # fmt: skip
    assert (found["main"].default, found["private"].groups) == (True, "root")
    (shape,) = found["main"].shapes
    assert (shape.cores, shape.memory, shape.gpus) == (4, 8000, 2)  # and no GPUs for the shards
    limits = read_limits(read(version, "partitions"))
    assert {name: one.closed for name, one in limits.items()} == dict.fromkeys(found, False)


@version
def test_jobs_in_the_queue(version: str) -> None:
    jobs = {job.name[-1]: job for job in read_jobs(read(version, "squeue"))}
    assert {name: job.state for name, job in jobs.items()} == {
        "a": "RUNNING", "b": "PENDING", "c": "FAILED", "d": "FAILED", "e": "FAILED", "f": "FAILED", "g": "RUNNING",
        "h": "PENDING",
    }  # fmt: skip
    assert (jobs["a"].node, jobs["a"].limit, jobs["a"].uid, jobs["a"].partition) == ("c1", "4:00:00", "1001", "main")
    assert words.why_it_waits(jobs["b"]) == "it is to begin later (BeginTime)"


@version
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("failed", "it failed with exit status 3"),
        ("comment", "there is no /x/bin/python on the node c1"),
        ("memory", "it was killed, most likely because it used more than its 50M of memory"),
        ("cancelled", "hello"),  # its comment
    ],
)
def test_why_jobs_have_ended(version: str, name: str, said: str) -> None:
    found = details(read(version, f"job-{name}"))
    assert words.why_it_ended(None, found, launched=False) == said
    assert (found["BatchHost"], found["memory"][-1]) == ("c1", "M")


@version
def test_a_job_that_runs(version: str) -> None:
    found = details(read(version, "job-running"))
    assert found == {
        "JobState": "RUNNING", "Reason": "None", "TimeLimit": "04:00:00", "BatchHost": "c1", "ExitCode": "0:0",
        "memory": "500M", "Comment": "hello",
    }  # fmt: skip


@version
def test_errors(version: str) -> None:
    errors = [SlurmError(line) for line in read(version, "errors").splitlines()]
    # From when slurmctld was ended on.
    began = next(number for number, error in enumerate(errors) if "reservation is invalid" in str(error)) + 1
    assert [error.unreachable for error in errors] == [False] * began + [True] * (len(errors) - began)
    # What was reset may have been done; what could not connect was not.
    assert {str(error) for error in errors if error.uncertain} == (
        {"slurm_load_jobs error: Connection reset by peer"} if version == "24.11" else set()
    )
    assert [str(error) for error in errors if error.job_is_gone] == ["slurm_load_jobs error: Invalid job id specified"]
    refused = words.refusal("\n".join(str(error) for error in errors if "node configuration" in str(error)))
    assert refused == "Requested node configuration is not available"
