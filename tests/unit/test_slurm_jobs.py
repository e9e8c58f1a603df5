"""The overlay `slurm`: how the hub's jobs are found in the queue."""

import asyncio
import dataclasses
import pwd
import time
from pathlib import Path

import pytest
from barehub_slurm import slurm
from barehub_slurm.jobs import Job, Queue, select
from barehub_slurm.slurm import SlurmError

from tests.unit.slurm_commands import AWAY, JOB, NO_JOB, SHOWN, UID, Commands


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def queue(*, hidden: bool = False) -> Queue:
    new = Queue()
    new.may_be_hidden = hidden
    new.watch("jupyterhub-1")
    return new


def test_one_squeue_answers_for_all_users(commands: Commands) -> None:
    async def ask() -> None:
        asked = queue()
        commands.say("squeue", JOB)
        for number in range(50):
            asked.watch(f"jupyterhub-{number}")
        slurm = commands.slurm()
        found = await asyncio.gather(*(asked.own_jobs(slurm, f"jupyterhub-{number}", 5) for number in range(50)))
        assert [job.id for jobs in found for job in jobs] == ["17"]
        assert commands.called("squeue") == 1
        await asked.own_jobs(slurm, "jupyterhub-1")
        assert commands.called("squeue") == 2

    asyncio.run(ask())


def test_a_job_is_known_by_its_name_and_its_users_number() -> None:
    """An account's name may have several spellings, and anybody can give a job the name of another's."""
    mine = Job(*JOB.split("|"))
    theirs = Job(*JOB.replace(f"|{UID}|", f"|{UID + 1}|").split("|"))
    ended = Job(*JOB.replace("17|PENDING", "16|CANCELLED").split("|"))
    assert select([theirs, mine], UID, "jupyterhub-1") == [mine]
    assert select([ended, mine], UID, "jupyterhub-1") == [mine, ended]
    assert select([mine], UID, "jupyterhub-2") == []


def test_an_answer_from_before_a_job_says_nothing_about_it(commands: Commands) -> None:
    async def ask() -> None:
        asked = queue()
        assert await asked.own_jobs(commands.slurm(), "jupyterhub-1", 60) == []
        commands.say("squeue", JOB)
        asked.watch("jupyterhub-1")
        assert (await asked.own_jobs(commands.slurm(), "jupyterhub-1", 60))[0].alive

    asyncio.run(ask())


@pytest.mark.parametrize(("lines", "error"), [("", "no"), ("slurm_load_jobs: strange words", ""), (JOB, "no")])
def test_a_slurm_that_does_not_answer_is_not_an_empty_queue(commands: Commands, lines: str, error: str) -> None:
    async def ask() -> None:
        asked = queue()
        commands.say("squeue", lines, error=error)
        for _ in range(3):  # nor is it asked again by everybody at once
            with pytest.raises(SlurmError):
                await asked.own_jobs(commands.slurm(), "jupyterhub-1", 5)
        assert commands.called("squeue") == 1

    asyncio.run(ask())


def test_lines_that_are_no_jobs_are_passed_over(commands: Commands) -> None:
    commands.say("squeue", f"CLUSTER: testing\n\nplugin: a warning\n{JOB}")
    assert asyncio.run(queue().own_jobs(commands.slurm(), "jupyterhub-1"))[0].id == "17"


def test_what_slurm_hides_from_the_hub_is_asked_as_the_user(commands: Commands) -> None:
    """slurm.conf(5), PrivateData=jobs; root sees everything."""
    commands.say("squeue", "", as_user=JOB)
    assert asyncio.run(queue(hidden=True).own_jobs(commands.slurm(), "jupyterhub-1"))[0].id == "17"
    assert commands.calls[-1].startswith("user squeue -h -a -t all -n jupyterhub-1 -o %i|")
    assert asyncio.run(queue().own_jobs(commands.slurm(), "jupyterhub-1")) == []


@pytest.mark.parametrize(("euid", "state"), [(0, ""), (1000, "RUNNING")])
def test_so_are_the_details_of_a_job(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, euid: int, state: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: euid)
    commands.say("scontrol", error=NO_JOB, as_user=SHOWN.format("RUNNING"))
    if not state:
        with pytest.raises(SlurmError, match="Invalid job id"):
            asyncio.run(commands.slurm().details("17"))
        return
    assert asyncio.run(commands.slurm().details("17"))["JobState"] == state
    assert commands.calls == ["scontrol show job 17 -o", "user scontrol show job 17 -o"]


def test_a_sudoers_that_does_not_allow_it_is_no_reason_to_stop(commands: Commands) -> None:
    commands.say("squeue", "", first='[ -z "$AS_USER" ] || { echo "sudo: a password is required" >&2; exit 1; }')
    assert asyncio.run(queue(hidden=True).own_jobs(commands.slurm(), "jupyterhub-1")) == []
    commands.say("squeue", "", first=f'[ -z "$AS_USER" ] || {{ echo "{AWAY}" >&2; exit 1; }}')
    with pytest.raises(SlurmError):
        asyncio.run(queue(hidden=True).own_jobs(commands.slurm(), "jupyterhub-1"))


# The commands


def test_slurm_conf_and_the_sites_variables_reach_the_commands(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", "/cm/slurm/slurm.conf")
    monkeypatch.setenv("SECRET", "of the hub")
    commands.say("squeue", first='echo "$SLURM_CONF|$MUNGE|$SECRET"')
    asked = commands.slurm(environment=slurm.environment({"MUNGE": "x"}))
    assert asyncio.run(asked.run("squeue")) == "/cm/slurm/slurm.conf|x|"
    assert asyncio.run(asked.run_as_user("squeue")) == "/cm/slurm/slurm.conf|x|"
    assert slurm.environment({"SLURM_CONF": "/own"}) == {"SLURM_CONF": "/own"}
    monkeypatch.setenv("SLURM_CONF_SERVER", "head:6817")  # without a file (slurm.conf(5), "configless")
    assert slurm.environment({})["SLURM_CONF_SERVER"] == "head:6817"


@pytest.mark.parametrize("user", ["4001", "0day", "Ada", "a b", "dora@example.org", "DOM\\ada", "x{y}", "-x", "$HOME"])
def test_any_accounts_name_is_one_word(commands: Commands, monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    account = pwd.getpwuid(UID)
    monkeypatch.setattr("pwd.getpwnam", lambda name: account)
    told = dataclasses.replace(commands.slurm(), user=user, prefix=r"printf '%s\n' -u {username} --")
    assert asyncio.run(told.run_as_user("sinfo", "-h")).splitlines()[:3] == ["-u", user, "--"]


@pytest.mark.parametrize("prefix", ["sudo -u {user}", "sudo -u {}", "sudo '", "sudo {username"])
def test_a_prefix_that_makes_no_command_is_named(commands: Commands, prefix: str) -> None:
    broken = dataclasses.replace(commands.slurm(), prefix=prefix)
    with pytest.raises(SlurmError, match=r"c\.SlurmSpawner\.exec_prefix is "):
        asyncio.run(broken.run_as_user("sinfo"))


@pytest.mark.parametrize("name", ["#0", "0", "-u", "root x", "ada\n", "{username}", "*", "ada\\", ""])
def test_only_an_account_by_its_name_runs_anything(commands: Commands, name: str) -> None:
    """To sudo, #0 is root."""
    with pytest.raises(SlurmError, match="is not known on this machine"):
        asyncio.run(dataclasses.replace(commands.slurm(), user=name).run_as_user("squeue"))
    assert commands.calls == []


def test_a_command_that_takes_too_long_is_ended_with_its_children(commands: Commands, tmp_path: Path) -> None:
    commands.say("sbatch", first=f"sh -c 'echo $$ >{tmp_path}/child; exec sleep 60'")
    with pytest.raises(SlurmError) as error:
        asyncio.run(commands.slurm(submit_patience=3).submit("#!/bin/sh\n"))
    assert error.value.uncertain
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 120
    while (state := state_of(child)) not in ("", "Z") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert state in ("", "Z")


def state_of(pid: int) -> str:
    """Return the state of a process, empty if there is none: proc(5), stat."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("text", "unreachable", "uncertain"),
    [
        (AWAY, True, False),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", True, True),
        ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", True, True),
        ("sbatch: error: Batch job submission failed: Invalid account", False, False),
        ("sudo: a password is required", False, False),
    ],
)
def test_what_an_error_says_about_a_job(text: str, unreachable: bool, uncertain: bool) -> None:
    assert (SlurmError(text).unreachable, SlurmError(text).uncertain) == (unreachable, uncertain)


@pytest.mark.parametrize(
    "printed",
    [
        "17", "17;cluster", "a plugin's words\n17", "17\nmore words", "Submitted batch job 17",
        "Submitted batch job 17 on cluster c1",
    ],
)  # fmt: skip
def test_sbatchs_number_is_found(commands: Commands, printed: str) -> None:
    commands.say("sbatch", printed)
    assert asyncio.run(commands.slurm().submit("#!/bin/sh\n")) == "17"


def test_submissions_take_turns() -> None:
    order: list[str] = []

    async def submit(turns: slurm.Turns, number: int) -> None:
        told: list[int] = []
        async with turns.turn(2, told.append):
            assert told == sorted(told, reverse=True)
            assert (told[0], told[-1]) == (max(0, number - 2), 0)
            order.append(f"+{number}")
            await asyncio.sleep(0)
            order.append(f"-{number}")

    async def all_at_once() -> None:
        turns = slurm.Turns()
        await asyncio.gather(*(submit(turns, number) for number in range(6)))
        assert turns.waiting == 0

    asyncio.run(all_at_once())
    assert [step for step in order if step[0] == "+"] == [f"+{number}" for number in range(6)]
    running = 0
    for step in order:
        running += 1 if step[0] == "+" else -1
        assert running <= 2
