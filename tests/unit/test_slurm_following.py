"""The overlay `slurm`: a job followed, with Slurm's commands as scripts; "not shown" is not "ended"."""

import asyncio
import dataclasses
import logging
import socket
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from barehub_slurm.following import REFUSALS, Following, JobError
from barehub_slurm.jobs import Queue
from barehub_slurm.slurm import SlurmError

from tests.unit.slurm_commands import AWAY, ENDED, JOB, NO_JOB, RUNS, SHOWN, UID, Commands


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    new = Commands(tmp_path)
    new.say("scontrol", error=NO_JOB)
    return new


def follow(commands: Commands, **settings: Any) -> Following:
    times = {"queue_interval": 0.05, "unseen_timeout": 30, "launch_timeout": 30, "start_timeout": 300}
    spawner = SimpleNamespace(
        slurm=commands.slurm(),
        log=logging.getLogger("test"),
        **times,
        _log_name="alice",
        get_env=lambda: {"JUPYTERHUB_API_TOKEN": "s3cretOfTheJob"},
    )
    vars(spawner).update(settings)
    queue = Queue()
    queue.may_be_hidden = False
    new = Following(spawner, queue)
    new.begin("jupyterhub-1", 1)
    new.job_id = "17"
    return new


def run(coroutine: Coroutine[Any, Any, Any], limit: float = 10) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, limit))


async def eventually(job: Following, said: str) -> None:
    while said not in job.said:
        await asyncio.sleep(0.02)


def test_a_job_that_is_not_shown_is_waited_for(commands: Commands) -> None:
    async def story() -> None:
        job = follow(commands)
        waiting = asyncio.ensure_future(job.wait_until_up())
        await eventually(job, "Slurm has accepted job 17 but does not show it yet")
        commands.say("squeue", JOB)
        await eventually(job, "Job 17 waits in the partition main")
        commands.say("squeue", "")  # S33: one squeue that succeeds and is empty
        await eventually(job, "does not show it yet")
        commands.say("squeue", error=AWAY)
        await eventually(job, "Slurm does not answer at present; job 17 keeps its place")
        with socket.create_server(("127.0.0.1", 0)) as server:
            job.reported = server.getsockname()[1]
            commands.say("squeue", RUNS)
            assert await waiting == ("localhost", job.reported)

    run(story())


def test_after_a_while_it_has_ended(commands: Commands) -> None:
    with pytest.raises(JobError, match="Slurm does not know it any more"):
        run(follow(commands, unseen_timeout=0.3).wait_until_up())


def test_scontrol_says_at_once_that_it_has_ended(commands: Commands) -> None:
    commands.say("scontrol", SHOWN.format("TIMEOUT"))
    with pytest.raises(JobError, match="it reached its time limit of 4 h"):
        run(follow(commands).wait_until_up())
    job = follow(commands, unseen_timeout=0)
    commands.say("scontrol", SHOWN.format("RUNNING"))
    run(job.look())
    run(job.look())
    assert not job.ended


def test_an_error_between_two_empty_answers_starts_the_time_again(commands: Commands) -> None:
    job = follow(commands, unseen_timeout=30)
    run(job.look())
    assert job.unseen > 0
    commands.say("squeue", error=AWAY)
    with pytest.raises(Exception, match="Unable to contact"):
        run(job.look())
    assert job.unseen == 0


def test_who_listens_when_the_server_has_ended_is_not_connected_to(commands: Commands) -> None:
    commands.say("squeue", RUNS)
    connected = []

    async def story() -> None:
        thief = await asyncio.start_server(lambda *streams: connected.append(streams), "localhost", 0)
        job = follow(commands, launch_timeout=1)
        job.reported, job.left = thief.sockets[0].getsockname()[1], 1.0
        with pytest.raises(JobError, match="the hub cannot connect to it"):
            await job.wait_until_up()

    run(story())
    assert connected == []


def test_the_log_and_the_node_of_a_server_that_ends_early_are_named(commands: Commands) -> None:
    commands.say("squeue", RUNS.replace("RUNNING", "FAILED"))
    commands.say("scontrol", SHOWN.format("FAILED").replace("ExitCode=0:0", "ExitCode=1:0"))
    said = r"it failed with exit status 1\. Its log is ~/\.jupyterhub/job-17\.log on the node c1\."
    with pytest.raises(JobError, match=said):
        run(follow(commands).wait_until_up())
    commands.say("scontrol", SHOWN.format("FAILED") + " Comment=no home StdErr=/dev/null")
    with pytest.raises(JobError, match=r"did not start: no home\.$"):
        run(follow(commands).wait_until_up())


def test_a_job_that_waits_longer_than_allowed_is_given_up(commands: Commands) -> None:
    commands.say("squeue", JOB)
    with pytest.raises(JobError, match=r"was given up: all nodes that suit it are busy \(Resources\)"):
        run(follow(commands, start_timeout=5).wait_until_up())
    commands.say("squeue", error=AWAY)
    with pytest.raises(JobError, match="was given up: Slurm did not show it"):
        run(follow(commands, start_timeout=5).wait_until_up())


@pytest.mark.parametrize("state", ["SUSPENDED", "STOPPED", "SIGNALING", "A_STATE_OF_A_LATER_SLURM"])
def test_a_state_that_is_no_end_ends_nothing(commands: Commands, state: str) -> None:
    job = follow(commands)
    job.up = True
    commands.say("squeue", RUNS.replace("RUNNING", state))
    found = run(job.look())
    assert not job.ended
    assert (state in ("SUSPENDED", "STOPPED")) is ("is suspended by Slurm" in job.progress_of(found))
    commands.say("squeue", "")
    commands.say("scontrol", SHOWN.format(state))
    run(job.look())
    assert not job.ended


def test_a_running_job_that_goes_back_into_the_queue_is_cancelled_with_its_reason(commands: Commands) -> None:
    """An administrator can allow it (scontrol update Requeue=1). Its report would be refused."""
    job = follow(commands)
    commands.say("squeue", JOB)
    run(job.look())
    assert (job.ended, commands.called("scancel")) == (False, 0)
    job.up = True
    found = run(job.look())
    assert job.ended
    assert commands.calls[-1] == "user scancel 17"
    assert "Slurm has put it back into the queue" in run(job.why(found))


def test_an_account_that_is_unknown_for_a_moment_loses_no_job(commands: Commands) -> None:
    """sssd or LDAP may be away. What the hub asks for itself needs no account, and the rest is no answer."""
    job = follow(commands)
    job.up = True
    job.spawner.slurm = dataclasses.replace(job.spawner.slurm, user="nobody-here")
    commands.say("squeue", RUNS)
    assert run(job.look()).running
    assert job.state["uid"] == UID
    commands.say("squeue", "")
    job.queue.may_be_hidden = True
    with pytest.raises(SlurmError, match="the account nobody-here is not known") as error:
        run(job.look())
    assert error.value.unreachable
    job.queue.may_be_hidden = False
    run(job.cancel())
    assert "could not be cancelled (the account nobody-here is not known" in job.last_end


# A slow sbatch


def test_a_job_that_sbatch_did_not_confirm_is_found_by_its_name(commands: Commands) -> None:
    async def story() -> None:
        job = follow(commands)
        job.job_id, job.doubt = "", "sbatch has not answered in 60 s"
        waiting = asyncio.ensure_future(job.wait_until_up())
        await eventually(job, "Slurm has not confirmed your job (sbatch has not answered in 60 s); looking for it")
        commands.say("squeue", JOB)
        await eventually(job, "Job 17 waits")
        assert job.job_id == "17"
        commands.say("scancel", first=f"printf %s '{ENDED}' >{commands.directory}/squeue.hub")
        waiting.cancel()
        await job.cancel()
        assert "user scancel 17" in commands.calls

    run(story())


def test_one_that_is_never_found_is_given_up_with_the_reason(commands: Commands) -> None:
    job = follow(commands, unseen_timeout=0.2)
    job.job_id, job.doubt = "", "sbatch has not answered in 60 s"
    with pytest.raises(JobError, match=r"Slurm has not confirmed it \(sbatch has not answered in 60 s\)"):
        run(job.wait_until_up())
    run(job.cancel())
    assert commands.called("scancel") == 0


def test_of_two_jobs_that_sbatch_submitted_one_is_kept(commands: Commands) -> None:
    """sbatch tries again if slurmctld has not answered in time, though it may have accepted the first."""
    commands.say("squeue", f"{JOB}\n{JOB.replace('17|', '18|')}")
    job = follow(commands)
    job.job_id = "18"
    assert run(job.look()).id == "18"
    assert commands.calls[-1] == "user scancel 17"
    job.job_id = ""
    assert run(job.look()).id == "17"
    assert commands.calls[-1] == "user scancel 18"


# Cancelling


def test_what_is_given_up_is_cancelled_even_if_slurm_does_not_show_it(commands: Commands) -> None:
    for error, refused in (("", 0), (NO_JOB, 0), ("scancel: error: Job/step already completing or completed", 0)):
        commands.say("scancel", error=error)
        job = follow(commands, unseen_timeout=0)
        run(job.look())
        run(job.look())
        assert (job.ended, job.lost) == (True, True)
        run(job.cancel())
        assert commands.calls[-1] == "user scancel 17"
        assert job.last_end == "" or refused


def test_a_job_that_cannot_be_cancelled_is_named_to_its_user(commands: Commands) -> None:
    commands.say("squeue", JOB)
    commands.say("scancel", error="scancel: error: Kill job error on job id 17: Access/permission denied")
    job = follow(commands)
    run(job.cancel())
    assert commands.called("scancel") == REFUSALS
    assert job.last_end.startswith("Job 17 could not be cancelled (scancel: error: Kill job error")
    assert job.last_end.endswith("Use: scancel 17")


def test_a_slurm_that_is_away_is_waited_for(commands: Commands) -> None:
    async def story() -> None:
        job = follow(commands)
        commands.say("squeue", error=AWAY)
        commands.say("scancel", error=AWAY)
        cancelling = asyncio.ensure_future(job.cancel())
        for _ in range(2 * REFUSALS):
            before = commands.called("squeue")
            while commands.called("squeue") == before:
                await asyncio.sleep(0.02)
        assert not cancelling.done()
        commands.say("squeue", ENDED)
        await cancelling

    run(story())


# Names of nodes


def test_a_node_whose_name_cannot_be_resolved_is_reached_at_slurms_address(commands: Commands) -> None:
    commands.say("squeue", RUNS.replace("localhost", "n1.invalid"))
    commands.say("scontrol", "NodeName=n1.invalid NodeAddr=127.0.0.1 NodeHostName=c1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        job = follow(commands)
        job.reported = server.getsockname()[1]
        assert run(job.wait_until_up()) == ("127.0.0.1", job.reported)


def test_if_slurm_knows_none_either_that_is_said_at_once(commands: Commands) -> None:
    commands.say("squeue", RUNS.replace("localhost", "n1.invalid"))
    for said in ("NodeName=n1.invalid NodeAddr=n1.invalid", "slurm_load_node error"):
        commands.say("scontrol", said)
        job = follow(commands)
        job.reported = 8888
        with pytest.raises(JobError, match=r"the hub's machine cannot resolve the name n1\.invalid"):
            run(job.wait_until_up())
