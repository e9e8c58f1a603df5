"""The overlay `slurm`: accounts, QoS and reservations, from what a Slurm 22.05 printed to a request."""

import asyncio
from pathlib import Path

import pytest
from barehub_slurm.access import Access
from barehub_slurm.accounts import Accounts, accounts_of, read_caps
from barehub_slurm.answer import Answer
from barehub_slurm.limits import Limit, Rule
from barehub_slurm.options import RefusedError
from barehub_slurm.reservations import Reservation, read_reservations

from tests.unit.slurm_commands import Commands
from tests.unit.slurm_recorded import RECORDED, offer, replayed, standing


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return replayed(tmp_path, monkeypatch)


# Accounts and QoS


def test_partitions_in_which_a_user_may_run_nothing_are_not_offered(commands: Commands) -> None:
    """closed has AllowAccounts=other, gpu physics and chem, private AllowGroups=root."""
    assert list(offer(commands, "alice").partitions) == ["main", "gpu", "teaching", "nodeny", "plain", "qosed"]
    assert list(offer(commands, "bob").partitions) == ["main", "teaching", "closed", "nodeny", "plain", "qosed"]


def test_accounts_and_qos_are_those_of_the_user_in_the_partition(commands: Commands) -> None:
    alice, bob = offer(commands, "alice").access, offer(commands, "bob").access
    assert [(name, alice.qos(one)) for name, one in alice.choices("main").items()] == [
        ("chem", ["", "short"]),
        ("physics", ["", "long", "short"]),
    ]
    assert [(name, alice.qos(one)) for name, one in alice.choices("nodeny").items()] == [("physics", ["", "short"])]
    assert list(bob.choices("main")) == ["other", "chem"]
    assert list(bob.choices("teaching")) == ["other"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"account": "other"}, "There is no account other for you in the partition main; there is chem, physics"),
        ({"account": ["chem"]}, "There is no account"),
        ({"account": "chem", "qos": "long"}, "no QoS long for you in the partition main with chem; there is short"),
        (
            {"partition": "nodeny", "account": "chem"},
            "no account chem for you in the partition nodeny; there is physics",
        ),
        ({"partition": "closed"}, "There is no partition closed for you"),
        ({"reservation": "maint"}, "no reservation maint for you in the partition main; there is course, chemres"),
        ({"reservation": "chemres", "account": "physics"}, "no reservation chemres for you in the partition main"),
        ({"reservation": "chemres", "partition": "gpu"}, "no reservation chemres for you"),
        ({"account": "chem", "qos": "short", "hours": 2}, "can have 1 h, not 2"),
        ({"qos": "short", "cores": 17}, "can have 16, not 17"),
        ({"partition": "qosed", "hours": 2}, "can have 1 h, not 2"),
    ],
)
def test_what_is_sent_is_checked(commands: Commands, options: dict[str, object], why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        offer(commands).check(options)


def test_an_account_without_the_reservation_that_a_partition_needs_is_told_so(commands: Commands) -> None:
    only_for_chem = Reservation("r", "", frozenset(), frozenset(), frozenset({"chem"}), "")
    standing = offer(commands).access.standing
    access = Access(standing, {"course": Limit(reserved=True)}, [only_for_chem])
    assert access.choose("course", {})[:3] == ("chem", "", "r")
    with pytest.raises(RefusedError, match=r"The partition course takes only jobs .* the account physics may use none"):
        access.choose("course", {"account": "physics"})


def test_a_job_is_submitted_with_what_was_chosen(commands: Commands) -> None:
    one = offer(commands).check({"account": "physics", "qos": "long", "reservation": "course"})
    assert (one.account, one.qos, one.reservation) == ("physics", "long", "course")
    nothing = offer(commands).check({})
    assert (nothing.account, nothing.qos, nothing.reservation) == ("chem", "", "")
    assert offer(commands).check({"qos": "normal"}).qos == ""  # Slurm's default, by its name


def test_limits_of_an_account_hold(commands: Commands) -> None:
    bob = offer(commands, "bob")
    assert bob.check({}).minutes == 120
    for options, why in (({"cores": 9}, "can have 8, not 9"), ({"memory": 17}, "can have 16 GB, not 17")):
        with pytest.raises(RefusedError, match=why):
            bob.check(options)
    assert bob.check({"account": "chem", "cores": 9}).cores == 9


def test_what_the_site_sets_is_not_asked_for(commands: Commands) -> None:
    fixed = offer(commands, account="Physics", qos="Short")
    for options in ({}, {"qos": "short"}, {"account": "physics"}):
        one = fixed.check(options)
        assert (one.account, one.qos, one.minutes) == ("physics", "short", 60)
    assert "closed" not in offer(commands, account="other").partitions  # alice may not use that account
    hidden = offer(commands, fields={"account": None, "cores": None})
    assert hidden.check({"account": "physics", "cores": 7}).words()["account"] == "chem"
    assert hidden.check({"cores": 7}).cores == 1


def test_one_look_serves_everybody(commands: Commands) -> None:
    async def ask() -> None:
        accounts = Accounts()
        await asyncio.gather(*(standing(commands, user, accounts) for user in ("alice", "bob") * 20))

    asyncio.run(ask())
    assert commands.called("sacctmgr") == 3


def test_without_accounting_there_is_nothing_to_choose(commands: Commands) -> None:
    commands.say("scontrol", "AccountingStorageType   = accounting_storage/none\nClusterName = testing\n")
    found = asyncio.run(standing(commands, "alice"))
    assert (found.known, found.associations, found.shut_out) == (True, (), False)
    assert commands.called("sacctmgr") == 0
    access = Access(found, {"closed": Limit(accounts=Rule(frozenset({"other"})))})
    assert access.admits("main")
    assert not access.admits("closed")
    assert access.choose("main", {"account": "physics", "qos": "long"})[:2] == ("", "")


def test_that_nobody_could_look_is_not_that_there_is_nothing(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("barehub_slurm.answer.FIRST", 0.2)
    for broken in ({"error": "sacctmgr: error: Sending PersistInit msg: Connection refused"}, {"first": "sleep 60"}):
        commands.say("sacctmgr", **broken)
        access = Access(asyncio.run(standing(commands, "alice")))
        assert not access.standing.known
        assert access.admits("main")
        assert access.choose("main", {})[:2] == ("", "")
        assert access.choose("main", {"account": "physics"})[:2] == ("physics", "")  # Slurm checks it
        with pytest.raises(RefusedError, match="'physics --uid=0' cannot be the account of a job"):
            access.choose("main", {"account": "physics --uid=0"})


def test_the_first_answer_is_worth_waiting_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the form has no accounts; a head node that has just started is slow."""
    monkeypatch.setattr("barehub_slurm.answer.HURRY", 0.01)

    async def slow() -> str:
        await asyncio.sleep(0.5)
        return "accounts"

    async def story() -> None:
        answer: Answer[str] = Answer(0)
        assert await answer.get(slow) == "accounts"
        assert not answer.failed
        assert await answer.get(slow) == "accounts"  # the old one, at once
        assert answer.failed

    asyncio.run(story())


def test_an_answer_that_was_had_stays_while_there_is_no_new_one(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        accounts = Accounts()
        accounts.site.age = 0
        assert len((await standing(commands, "alice", accounts)).associations) == 2
        commands.say("sacctmgr", error="slurmdbd is away")
        assert len((await standing(commands, "alice", accounts)).associations) == 2
        assert accounts.site.failed

    asyncio.run(ask())


def test_who_has_no_account_is_told_so(commands: Commands) -> None:
    nobody = offer(commands, "nobody")
    assert nobody.access.standing.shut_out
    with pytest.raises(RefusedError, match="its accounting has no account for you"):
        nobody.check({})


def test_an_unprivileged_hub_asks_as_the_user_what_it_may_not_see(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PrivateData=accounts,users: sacctmgr shows a user's own associations to that user."""
    monkeypatch.setattr("os.geteuid", lambda: 4001)
    hidden = r'case "$*" in *qos\ format*) cat {0}/qos.txt; exit;; esac; [ -n "$AS_USER" ] || exit 0; cat {0}/$3.txt'
    commands.say("sacctmgr", first=hidden.format(RECORDED))
    found = asyncio.run(standing(commands, "alice"))
    assert accounts_of(found.associations) == {"chem", "physics"}
    assert (found.default, found.lineage("chem")[1]) == ("chem", "research")
    commands.say("sacctmgr", first='[ -z "$AS_USER" ] || { echo "sudo: a password is required" >&2; exit 1; }')
    assert not asyncio.run(standing(commands, "alice")).known


def test_caps_are_read_in_the_units_of_the_form() -> None:
    assert read_caps("1-00:00:00", "cpu=8,mem=16G,gres/gpu=1,node=2") == {
        "hours": 24,
        "cores": 8,
        "memory": 16,
        "gpus": 1,
    }
    assert read_caps("", "mem=512M") == {"memory": 0.5}
    assert read_caps("UNLIMITED", "") == {}


def test_an_account_counts_as_those_that_it_is_part_of(commands: Commands) -> None:
    found = asyncio.run(standing(commands, "alice"))
    assert found.lineage("chem") == ["chem", "research", "root"]
    assert list(found.choices("x", Limit(accounts=Rule(frozenset({"research"}))))) == ["chem", "physics"]
    assert list(found.choices("x", Limit(accounts=Rule(denied=frozenset({"research"}))))) == []


def test_reservations_let_in_users_or_accounts_and_keep_out() -> None:
    def made(**who: set[str]) -> Reservation:
        sets = [frozenset(who.get(name, ())) for name in ("users", "groups", "accounts")]
        return Reservation("r", "", *sets, "")

    assert made(users={"alice"}, accounts={"chem"}).admits(["bob"], [], ["chem"])
    assert made(groups={"staff"}).admits(["bob"], ["staff"], [])
    assert not made(users={"alice"}).admits(["bob"], [], ["chem"])
    assert made(users={"-alice"}).admits(["bob"], [], [])
    assert not made(users={"-alice"}).admits(["alice"], [], ["chem"])
    assert [one.label[:14] for one in read_reservations((RECORDED / "reservation.txt").read_text())] == [
        "course", "chemres (from ", "maint (from 20",
    ]  # fmt: skip
