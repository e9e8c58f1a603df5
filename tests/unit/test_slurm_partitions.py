"""The overlay `slurm`: what sinfo prints, and what a user is offered of it."""

import asyncio
import math
from pathlib import Path

import pytest
from barehub_slurm import words
from barehub_slurm.partitions import Catalogue, Shape, count_gpus, minutes, partitions
from barehub_slurm.slurm import SlurmError

from tests.unit.slurm_commands import AWAY, Commands

SINFO = """\
main*|up|1-00:00:00|64|256000|gpu:a100:4(S:0-1)|idle|3|all
main*|up|1-00:00:00|128|512000|(null)|mixed-|20|all
main*|up|1-00:00:00|256|999000|gpu:8|drained*|1|all
long|inact|infinite|64|256000|(null)|idle|3|all
old|up|30:00|8|16000|gpu:2,nic:1|down*|2|all
"""


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def test_what_sinfo_offers_is_what_nodes_in_service_have() -> None:
    main, long, old = partitions(SINFO).values()
    assert (main.default, main.up, main.minutes, main.nodes) == (True, True, 1440, 23)
    assert (main.cores, main.memory, main.gpus) == (128, 512000, 4)
    assert main.shapes == [Shape(64, 256000, 4), Shape(128, 512000, 0)]
    assert (long.default, long.up, long.minutes) == (False, False, math.inf)
    assert (old.nodes, old.gpus, old.minutes) == (0, 0, 30)


def test_lines_that_are_no_partitions_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """Plugins print to stdout, and -M prints the cluster; a state may be in capitals, or missing."""
    odd = "up|up|1:00|2|4000|(null)|DOWN*|1|all\nno|up|1:00|2|4000|||1|all\n"
    found = partitions(f"CLUSTER: testing\n\nsinfo: error: plugin\n{SINFO}{odd}")
    assert list(found) == ["main", "long", "old", "up", "no"]
    assert (found["up"].nodes, found["no"].nodes) == (0, 1)
    assert "ignored 2 lines, the first is 'CLUSTER: testing'" in caplog.text
    assert partitions("odd|up|1:00|many|4000|(null)|idle|1|all")["odd"].nodes == 0


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("(null)", 0),
        ("", 0),
        ("gpu:2", 2),
        ("gpu", 1),
        ("gpu:a100", 1),
        ("gpu:a100:4(S:0-1)", 4),
        ("gpu:a100:2(S:0,2),gpu:v100:1(S:1)", 3),
        ("gpu:a100:no_consume:2", 2),
        ("gpu:a100:1K", 1024),
        ("shard:gpu:16", 0),
        ("x-gpu:4", 0),
        ("gpu_mem:80", 0),
        ("nic:1,gpu:2,shard:8", 2),
    ],
)
def test_gpus_are_counted(gres: str, count: int) -> None:
    assert count_gpus(gres) == count


@pytest.mark.parametrize(
    ("text", "mins", "said"),
    [
        ("1-12", 36 * 60, "36 h"),
        ("3-00:00:00", 72 * 60, "3 days"),
        ("1:30:00", 90, "1 h 30 min"),
        ("45:00", 45, "45 min"),
        ("1:40:00", 100, "1 h 40 min"),
        ("30", 0.5, "30 s"),
        ("infinite", math.inf, "any time"),
        ("n/a", math.inf, "any time"),
        (":", math.inf, "any time"),
        ("1:2:3:4", math.inf, "any time"),
    ],
)
def test_time_limits_are_read_and_spoken(text: str, mins: float, said: str) -> None:
    assert minutes(text) == mins
    assert words.spoken(mins) == said


# What a user is offered

ALL = """\
main*|up|1-0|2|4000|(null)|idle|2|all
private|up|1-0|2|4000|(null)|idle|2|staff
hidden|up|1-0|2|4000|(null)|idle|1|all
"""


def test_a_user_is_offered_what_that_user_may_use(commands: Commands) -> None:
    """Root sees hidden partitions and those of others' groups (sinfo(1), --all)."""
    commands.say("sinfo", ALL, as_user="main")

    async def ask() -> None:
        catalogue, slurm = Catalogue(), commands.slurm()
        assert list(await catalogue.offered(slurm, 5)) == ["main"]
        # A site may offer a hidden partition by name, but not one that is closed to the user's groups.
        assert list(await catalogue.offered(slurm, 5, ["hidden", "private", "none"])) == ["hidden"]
        assert commands.calls == [
            "sinfo -h -a -e -o %P|%a|%l|%c|%m|%G|%T|%D|%g",
            "scontrol show node -d -a -o",
            "scontrol show partition -a -o",
            "user sinfo -h -o %R",
        ]

    asyncio.run(ask())


def test_a_herd_asks_once(commands: Commands) -> None:
    commands.say("sinfo", ALL, as_user="main")

    async def ask() -> None:
        catalogue = Catalogue()
        await asyncio.gather(*(catalogue.refresh(commands.slurm(), 5) for _ in range(50)))

    asyncio.run(ask())
    assert commands.called("sinfo") == 1


def test_an_sinfo_that_fails_leaves_what_was_known(commands: Commands) -> None:
    async def ask() -> None:
        catalogue, slurm = Catalogue(), commands.slurm()
        commands.say("sinfo", error=AWAY)
        with pytest.raises(SlurmError):
            await catalogue.offered(slurm, 0)
        commands.say("sinfo", ALL, as_user="main")
        assert list(await catalogue.offered(slurm, 0)) == ["main"]
        assert not catalogue.stale
        for broken in ({"error": AWAY}, {"text": ""}):
            commands.say("sinfo", **broken)
            assert list(await catalogue.offered(slurm, 0)) == ["main"]
            assert catalogue.stale is ("error" in broken)

    asyncio.run(ask())


def test_an_sinfo_that_is_slow_keeps_nobody_waiting(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barehub_slurm.partitions.HURRY", 0.2)
    commands.say("sinfo", ALL, as_user="main")

    async def ask() -> None:
        catalogue, slurm = Catalogue(), commands.slurm()
        await catalogue.offered(slurm, 0)
        commands.say("sinfo", ALL, as_user="main", first="sleep 60")
        await asyncio.sleep(0.2)
        assert list(await asyncio.wait_for(catalogue.offered(slurm, 0), 5)) == ["main"]
        assert catalogue.stale
        catalogue.asking.cancel()

    asyncio.run(ask())


def test_a_partition_may_limit_what_a_job_has_of_a_node(commands: Commands) -> None:
    """slurm.conf(5), MaxCPUsPerNode and MaxMemPerNode, which sinfo does not print."""
    commands.say(
        "sinfo", "main*|up|1-0|64|256000|gpu:2|idle|2|all\nbig|up|1-0|64|256000|(null)|idle|2|all", as_user="main big"
    )
    commands.say(
        "scontrol",
        "PartitionName=main AllowGroups=ALL MaxCPUsPerNode=8 MaxMemPerNode=16000 State=UP\n"
        "PartitionName=big AllowGroups=ALL MaxCPUsPerNode=UNLIMITED MaxMemPerNode=UNLIMITED State=UP",
    )
    found = asyncio.run(Catalogue().offered(commands.slurm(), 5))
    assert found["main"].shapes == [Shape(8, 16000, 2)]
    assert found["big"].shapes == [Shape(64, 256000, 0)]


def test_partitions_in_which_no_server_can_run_are_not_offered(commands: Commands) -> None:
    commands.say(
        "sinfo", "".join(f"{name}|up|1-0|64|256000|(null)|idle|2|all\n" for name in ("a", "b", "c")), as_user="a b c"
    )
    commands.say(
        "scontrol",
        "PartitionName=a MinNodes=2 RootOnly=NO State=UP\nPartitionName=b MinNodes=0 RootOnly=YES State=UP\n"
        "PartitionName=c MinNodes=1 RootOnly=NO MaxMemPerCPU=2000 MaxCPUsPerNode=8 State=UP",
    )
    found = asyncio.run(Catalogue().offered(commands.slurm(), 5))
    assert list(found) == ["c"]
    assert found["c"].shapes == [Shape(8, 16000, 0)]


def test_a_sudoers_that_does_not_allow_sinfo_leaves_what_is_open_to_all(commands: Commands) -> None:
    commands.say("sinfo", ALL, first='[ -z "$AS_USER" ] || { echo "sudo: a password is required" >&2; exit 1; }')
    assert list(asyncio.run(Catalogue().offered(commands.slurm(), 5))) == ["main", "hidden"]
