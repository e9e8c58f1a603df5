"""How the overlay `slurm` reads Slurm, its form, and what it accepts from a job. Here squeue is a script."""

import asyncio
import math
import time
from pathlib import Path

import pytest
from barehub_slurm import port, slurm
from barehub_slurm.options import Offer, RefusedError, from_form
from barehub_slurm.slurm import Job, Queue, SlurmError
from jupyterhub.apihandlers import default_handlers
from tornado.web import HTTPError

SINFO = """\
main*|up|1-00:00:00|64|256000|gpu:a100:4(S:0-1)|idle|3
main*|up|1-00:00:00|128|512000|(null)|mixed-|20
main*|up|1-00:00:00|256|999000|gpu:8|drained*|1
long|inact|infinite|64|256000|(null)|idle|3
old|up|30:00|8|16000|gpu:2,nic:1|down*|2
"""
DEFAULTS = {"cores": 1, "memory": 2, "gpus": 0, "hours": 4}


def offer(**limits: float) -> Offer:
    return Offer(slurm.partitions(SINFO), limits, DEFAULTS)


def test_what_sinfo_offers_is_what_nodes_in_service_have() -> None:
    main, long, old = slurm.partitions(SINFO).values()
    assert (main.default, main.up, main.minutes, main.nodes) == (True, True, 1440, 23)
    assert (main.cores, main.memory, main.gpus) == (128, 512000, 4)
    assert (long.default, long.up, long.minutes) == (False, False, math.inf)
    assert (old.nodes, old.gpus, old.minutes) == (0, 0, 30)


@pytest.mark.parametrize(
    ("text", "mins", "words"),
    [
        ("1-12", 36 * 60, "36 h"),
        ("3-00:00:00", 72 * 60, "3 days"),
        ("1:30:00", 90, "1 h 30 min"),
        ("45:00", 45, "45 min"),
        ("30", 0.5, "0 min"),
        ("infinite", math.inf, "any time"),
        ("n/a", math.inf, "any time"),
    ],
)
def test_time_limits_are_read_and_spoken(text: str, mins: float, words: str) -> None:
    assert slurm.minutes(text) == mins
    assert slurm.spoken(mins) == words


def test_a_request_is_what_was_asked_within_what_there_is() -> None:
    asked = offer(cores=8).check({"partition": "main", "cores": "8", "memory": "1.5", "gpus": "1", "hours": "0.5"})
    assert vars(asked) == {"partition": "main", "cores": 8, "memory": 1536, "gpus": 1, "minutes": 30}
    assert offer(hours=2).check({}).minutes == 120  # the default, but never beyond a limit


@pytest.mark.parametrize(
    "options",
    [
        {"cores": 9},
        {"cores": "1.5"},
        {"cores": 0},
        {"cores": "nan"},
        {"memory": -1},
        {"hours": "inf"},
        {"hours": [1]},
        {"gpus": 5},
        {"partition": "long"},
        {"partition": "old"},
        {"partition": "main\n#SBATCH --uid=0"},
        {"partition": ["main"]},
        {"partition": {"main": 1}},
    ],
)
def test_whatever_else_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(RefusedError):
        offer(cores=8).check(options)


def test_the_form_shows_what_can_be_had_and_what_cannot() -> None:
    text = offer(hours=12).form("<b>gone</b>")
    assert "&lt;b&gt;gone&lt;/b&gt;" in text
    assert '<option value="main" selected>main: up to 128 cores, 500 GB, GPUs: 4, 12 h</option>' in text
    assert '<option value="long" disabled>' in text
    assert "old: down at present, none of its nodes is in service" in text
    assert 'name="gpus" id="slurm-gpus" value="0" min="0" step="1" max="4"' in text
    assert from_form({"partition": ["main"], "cores": [" 2 "], "hours": [""], "evil": ["x"]}) == {
        "partition": "main",
        "cores": "2",
    }


# The queue


def make_squeue(path: Path, lines: str, exit_status: int = 0) -> str:
    """A squeue that counts how often it is called."""
    path.write_text(f"#!/bin/sh\necho >>{path}.calls\ncat <<'END'\n{lines}\nEND\nexit {exit_status}\n")
    path.chmod(0o755)
    return str(path)


def calls(queue: Queue) -> int:
    return len(Path(f"{queue.squeue}.calls").read_text().splitlines())


JOB = "17|PENDING|Resources|alice|n/a|2026-11-24T09:31:36|N/A|4:00:00|main|jupyterhub-1"


def test_one_squeue_answers_for_all_users(tmp_path: Path) -> None:
    async def ask() -> None:
        queue = Queue()
        queue.squeue = make_squeue(tmp_path / "squeue", JOB)
        for number in range(50):
            queue.watch(f"jupyterhub-{number}")
        found = await asyncio.gather(*(queue.job("alice", f"jupyterhub-{number}", 5) for number in range(50)))
        assert [job.id for job in found if job] == ["17"]
        assert calls(queue) == 1
        # Of another user's job with that name she hears nothing.
        assert await queue.job("bob", "jupyterhub-1", 5) is None
        assert calls(queue) == 1
        await queue.job("alice", "jupyterhub-1")
        assert calls(queue) == 2

    asyncio.run(ask())


def test_an_answer_from_before_a_job_says_nothing_about_it(tmp_path: Path) -> None:
    async def ask() -> None:
        queue = Queue()
        queue.squeue = make_squeue(tmp_path / "squeue", "")
        queue.watch("jupyterhub-1")
        assert await queue.job("alice", "jupyterhub-1", 60) is None
        make_squeue(tmp_path / "squeue", JOB)
        queue.watch("jupyterhub-1")
        assert (await queue.job("alice", "jupyterhub-1", 60)).alive

    asyncio.run(ask())


@pytest.mark.parametrize(("lines", "exit_status"), [("", 1), ("slurm_load_jobs: strange words", 0), (JOB, 1)])
def test_a_slurm_that_does_not_answer_is_not_an_empty_queue(tmp_path: Path, lines: str, exit_status: int) -> None:
    async def ask() -> None:
        queue = Queue()
        queue.squeue = make_squeue(tmp_path / "squeue", lines, exit_status)
        queue.watch("jupyterhub-1")
        for _ in range(3):  # nor is it asked again by everybody at once
            with pytest.raises(SlurmError):
                await queue.job("alice", "jupyterhub-1", 5)
        assert calls(queue) == 1

    asyncio.run(ask())


# Words


def test_why_a_job_waits() -> None:
    job = Job(*JOB.split("|"))
    assert slurm.why_it_waits(job) == "all nodes that suit it are busy (Resources)"
    other = Job(*JOB.replace("Resources", "QOSMaxJobsPerUserLimit").split("|"))
    assert "a limit of your account or of the cluster is reached (QOSMaxJobs" in slurm.why_it_waits(other)
    today = time.strftime("%Y-%m-%d")
    assert slurm.clock(f"{today}T09:31:36") == "09:31"
    assert slurm.clock("2020-01-02T09:31:36") == "2020-01-02 09:31"
    assert slurm.clock("N/A") == ""


SHOWN = (
    "JobId=17 JobName=jupyterhub-1 UserId=alice(1000) JobState=FAILED Reason=NonZeroExitCode ExitCode=1:0"
    " TimeLimit=04:00:00 BatchHost=c1 TRES=cpu=1,mem=2G,node=1 Comment=it is\nJobState=RUNNING <b>old</b>"
    "  StdErr=/dev/null StdIn=/dev/null"
)


@pytest.mark.parametrize(
    ("state", "exit_code", "words"),
    [
        ("TIMEOUT", "0:15", "it reached its time limit of 4 h"),
        ("OUT_OF_MEMORY", "0:125", "it used more than its 2G of memory"),
        ("NODE_FAIL", "1:0", "the node c1 failed"),
        ("CANCELLED", "0:15", "it was cancelled, by you or by an administrator"),
        ("FAILED", "0:9", "it was killed, most likely because it used more than its 2G of memory"),
        ("FAILED", "3:0", "it failed with exit status 3"),
        ("COMPLETED", "0:0", "it ended by itself"),
        ("", "", "Slurm does not know it any more"),
    ],
)
def test_why_a_job_ended(state: str, exit_code: str, words: str) -> None:
    assert slurm.why_it_ended(state, "4:00:00", "c1", "2G", exit_code, "") == words


def test_what_a_job_says_of_itself_is_one_line_and_nothing_more() -> None:
    found = slurm.details(SHOWN)
    assert (found["JobState"], found["memory"]) == ("FAILED", "2G")
    assert found["Comment"] == "it is JobState=RUNNING <b>old</b>"


def test_refusals_keep_slurms_reason() -> None:
    text = "sbatch: error: a warning\nsbatch: error: Batch job submission failed: Invalid account"
    assert slurm.refusal(text) == "Invalid account"
    assert slurm.refusal("sudo: a password is required\nsudo: or so") == "sudo: a password is required"


# What a job may tell


def test_a_port_is_taken() -> None:
    assert port.reported(b'{"port": 1024}') == 1024
    assert port.reported(b'{"port": 65535}') == 65535


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"{}", b"[]", b"8888", b'{"port": "8888"}', b'{"port": true}', b'{"port": 8888.0}',
        b'{"port": null}', b'{"port": 1023}', b'{"port": 65536}', b'{"port": -8888}', b'{"port": 8888, "job_id": "1"}',
        b'{"exec_prefix": "x"}', b'{"port": 8888}' + b" " * 200, b"\xff", b"[" * 99,
    ],
)  # fmt: skip
def test_nothing_else_is(body: bytes) -> None:
    with pytest.raises(HTTPError) as error:
        port.reported(body)
    assert error.value.status_code == 400


def test_batchspawners_handler_is_not_there_any_more() -> None:
    before = list(default_handlers)
    try:
        default_handlers.append((port.PATH, "batchspawner's"))
        port.replace_handler()
        assert [entry for entry in default_handlers if entry[0] == port.PATH] == [(port.PATH, port.PortHandler)]
    finally:
        default_handlers[:] = before
