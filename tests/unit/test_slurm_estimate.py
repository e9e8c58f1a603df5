"""The overlay `slurm`: when a server would start, from what `sbatch --test-only` prints."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from barehub_slurm.estimate import Estimates, StartHandler, question, read_start, spoken
from barehub_slurm.options import Request
from barehub_slurm.reservations import Reservation, read_reservations
from barehub_slurm.slurm import SlurmError
from tornado.web import HTTPError

from tests.unit.slurm_commands import AWAY, Commands

PRINTED = "sbatch: Job 7 to start at {} using 62 processors on nodes n4 in partition main"  # 22.05 and 24.11, to stderr


def iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + seconds))


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def say(commands: Commands, minutes: int, *reserved: Reservation, **more: str) -> dict[str, Any]:
    """What a user is told who asks for so many minutes on one core."""
    spawner = SimpleNamespace(
        slurm=commands.slurm(), get_req_subvars=lambda: {"qos": "short", "options": "-C x"} | more
    )
    return asyncio.run(Estimates().say(spawner, Request("main", 1, 2048, 0, minutes), reserved))


def reservation(begins: float, ends: float, flags: str = "MAINT,SPEC_NODES") -> Reservation:
    """One from and to so many minutes from now, as scontrol prints it."""
    times = f"StartTime={iso(begins * 60)} EndTime={iso(ends * 60)}"
    (read,) = read_reservations(f"ReservationName=r {times} Flags={flags} Users=root State=INACTIVE")
    return read


def test_a_job_that_would_start_now(commands: Commands) -> None:
    commands.say("sbatch", first=f"echo '{PRINTED.format(iso(5))}' >&2")
    assert say(commands, 240) == {"text": "It would start now."}
    assert commands.calls == ["user sbatch --test-only"]


def test_a_job_that_would_wait_and_a_shorter_one_that_would_not(commands: Commands) -> None:
    """As before a maintenance: what ends before it starts now."""
    fits = f'grep -qx "#SBATCH --time=60" && at={iso(0)} || at={iso(7 * 3600)}; echo "{PRINTED.format("$at")}" >&2'
    commands.say("sbatch", first=fits)
    told = say(commands, 240)
    assert told["hours"] == 1
    assert told["text"].startswith("It would start about ")
    assert told["text"].endswith(" For 1 h or less, it would start now.")
    assert commands.called("sbatch") == 3


def test_before_a_maintenance_the_longest_that_fits_is_found(commands: Commands) -> None:
    """No half of 4 h is: there are 3 h 20 min until then."""
    maintenance, other = reservation(202, 600), reservation(3000, 6000)
    fits = f'time=$(sed -n "s/#SBATCH --time=//p"); [ "$time" -le 200 ] && at={iso(0)} || at={iso(600 * 60)}'
    commands.say("sbatch", first=f'{fits}; echo "{PRINTED.format("$at")}" >&2')
    told = say(commands, 240, other, maintenance)
    assert told["text"] == (
        f"It would start {spoken(maintenance.end)}, after the maintenance that begins {spoken(maintenance.start)}."
        " For 3 h 20 min or less, it would start now."
    )
    assert told["hours"] == 3.33
    assert commands.called("sbatch") == 2
    assert say(commands, 240, reservation(-10, 600))["text"].startswith(
        f"It would start {spoken(maintenance.end)}, after the maintenance. For 2 h"
    )
    assert "maintenance" not in say(commands, 240, reservation(202, 600, "SPEC_NODES"))["text"]


def test_it_is_not_asked_without_end(commands: Commands) -> None:
    commands.say("sbatch", first=f"echo '{PRINTED.format(iso(7 * 3600))}' >&2")
    assert "hours" not in say(commands, 240)
    assert commands.called("sbatch") == 5


def test_an_answer_serves_for_a_while(commands: Commands) -> None:
    commands.say("sbatch", first=f"echo '{PRINTED.format(iso(0))}' >&2")

    async def ask() -> None:
        estimates = Estimates()
        for _ in range(3):
            await estimates.starts(commands.slurm(), Request("main", 1, 2048, 0, 60), "")

    asyncio.run(ask())
    assert commands.called("sbatch") == 1


def test_slurmctld_is_asked_two_questions_at_a_time(commands: Commands) -> None:
    slot, many = commands.directory / "slot", commands.directory / "too-many"
    enter = f"if mkdir {slot}1; then mine=1; elif mkdir {slot}2; then mine=2; else touch {many}; fi 2>/dev/null"
    commands.say("sbatch", first=f"{enter}\nsleep 0.2; echo '{PRINTED.format(iso(0))}' >&2; rmdir {slot}$mine")

    async def ask() -> None:
        estimates = Estimates()
        requests = [Request("main", cores, 2048, 0, 60) for cores in range(1, 9)]
        await asyncio.gather(*(estimates.starts(commands.slurm(), one, "") for one in requests))

    asyncio.run(ask())
    assert commands.called("sbatch") == 8
    assert not many.exists()


def test_each_user_asks_one_question_at_a_time() -> None:
    async def story() -> None:
        go = asyncio.Event()

        async def offer() -> None:
            raise SlurmError(AWAY)

        spawner = SimpleNamespace(apply_group_overrides=go.wait, offer=offer)
        told: list[dict[str, str]] = []
        handler = SimpleNamespace(
            find_user=lambda name: SimpleNamespace(spawner=spawner),
            get_json_body=dict,
            estimates=Estimates(),
            finish=told.append,
        )
        post = StartHandler.post.__wrapped__
        first = [asyncio.ensure_future(post(handler, name)) for name in ("alice", "bob")]
        await asyncio.sleep(0)
        with pytest.raises(HTTPError, match="one question at a time"):
            await post(handler, "alice")
        go.set()
        await asyncio.gather(*first, post(handler, "carol"))
        await post(handler, "alice")
        assert told == [{"text": "Slurm does not answer at present."}] * 4

    asyncio.run(story())


def test_what_slurm_is_asked_has_no_token_and_nothing_to_run() -> None:
    spawner = SimpleNamespace(get_req_subvars=lambda: {"qos": "short", "options": "-C x"})
    script = question(spawner, Request("main", 2, 2048, 1, 60, "a100", "chem"))
    lines = [line for line in script.splitlines() if not line.startswith("#")]
    assert lines == []
    for option in ("--gres=gpu:a100:1", "--account=chem", "--qos=short", "--time=60", "-C x", "--partition=main"):
        assert f"#SBATCH {option}\n" in script


def test_what_is_no_time_is_an_error() -> None:
    for odd in ("odd", "Job 7 to start at 2026-99-99T00:00:00"):
        with pytest.raises(SlurmError, match="sbatch printed '"):
            read_start(odd)


def test_times_are_said_as_people_say_them() -> None:
    tomorrow = time.time() + 86400
    assert spoken(tomorrow) == time.strftime("about %H:%M on %A", time.localtime(tomorrow))
    assert spoken(tomorrow + 30 * 86400).endswith(time.strftime(" on %Y-%m-%d", time.localtime(tomorrow + 30 * 86400)))
