"""The overlay `slurm`: what can be asked for, and the form."""

import html
import json
import math
import re

import pytest
from barehub_slurm.form import form, from_form
from barehub_slurm.options import FIELDS, Offer, RefusedError, Request, shown
from barehub_slurm.partitions import partitions

SINFO = """\
main*|up|1-00:00:00|128|512000|gpu:a100:4|idle|3|all
long|inact|infinite|64|256000|(null)|idle|3|all
old|up|30:00|8|16000|gpu:2|down*|2|all
"""


def offer(
    text: str = SINFO,
    defaults: dict[str, float] | None = None,
    fields: dict[str, str | None] | None = None,
    **limits: float,
) -> Offer:
    return Offer(partitions(text), limits, defaults or {}, labels=shown(fields or {}))


def untouched(text: str) -> dict[str, list[str]]:
    """What a browser sends of a form that nobody has changed."""
    sent = {name: [value] for name, value in re.findall(r'<input[^>]* name="([^"]+)"[^>]* value="([^"]*)"', text)}
    sent["partition"] = re.findall(r'<option value="([^"]+)" selected', text)
    return sent


def test_a_request_is_what_was_asked_within_what_there_is() -> None:
    asked = offer(cores=8).check({"partition": "main", "cores": "8", "memory": "1.5", "gpus": "1", "hours": "0.5"})
    assert asked == Request("main", 8, 1536, 1, 30)
    assert offer(hours=2).check({}).minutes == 120  # the default, but never beyond a limit


@pytest.mark.parametrize(
    "options",
    [
        {"cores": 9},
        {"cores": "1.5"},
        {"cores": 0},
        {"cores": "nan"},
        {"memory": -1},
        {"memory": 0},
        {"hours": 0},
        {"hours": "inf"},
        {"hours": [1]},
        {"hours": True},
        {"hours": " "},
        {"hours": "0x10"},
        {"hours": "1_0"},
        {"hours": "١"},  # noqa: RUF001 - a digit of Arabic, which float() takes
        {"hours": "1e309"},
        {"hours": 10**400},
        {"hours": "1\n#SBATCH --time=0"},
        {"memory": {"GB": 1}},
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
    text = form(offer(hours=12), ["<b>gone</b>"])
    assert "&lt;b&gt;gone&lt;/b&gt;" in text
    assert ">main: up to 128 cores, 500 GB, GPUs: 4, 12 h</option>" in text
    assert re.search(r'<option value="long" disabled ', text)
    assert "old: down at present, none of its nodes is in service" in text
    assert 'name="gpus" id="slurm-gpus" value="0" min="0" step="1" max="4"' in text
    assert from_form({"partition": ["main"], "cores": [" 2 "], "hours": [""], "evil": ["x"]}) == {
        "partition": "main",
        "cores": "2",
    }


# Partitions differ

DEBUG = "debug*|up|30:00|4|1500|(null)|idle|1|all\nmain|up|1-0|64|256000|gpu:2|idle|9|all\n"


def test_a_form_that_nobody_has_changed_is_accepted_for_each_partition() -> None:
    for defaults in ({}, {"cores": 16, "memory": 32, "gpus": 1, "hours": 8}, {"hours": 0.25}):
        one = offer(DEBUG, defaults)
        sent = untouched(form(one, []))
        assert sent["partition"] == ["debug"]
        assert one.check(from_form(sent)).partition == "debug"
        for name in ("debug", "main"):
            granted = one.check(from_form(sent | {"partition": [name]}))
            assert granted == one.check({"partition": name})
            most = one.most(one.partitions[name])
            assert granted.cores <= most["cores"]
            assert granted.memory <= most["memory"] * 1024
            assert granted.minutes <= one.partitions[name].minutes


@pytest.mark.parametrize("limit", ["1:00", "10:00", "30:00", "1:40:00", "7:77:00", "1-0", "infinite"])
def test_the_most_that_a_form_shows_can_be_sent(limit: str) -> None:
    one = offer(f"main*|up|{limit}|3|1500|gpu:1|idle|1|all\n")
    text = form(one, [])
    most = json.loads(html.unescape(re.search(r'data-most="([^"]+)"', text)[1]))
    for field, value in most.items():
        if value is None:
            assert (field, limit) == ("hours", "infinite")
            continue
        asked = one.check({field: f"{value:g}"})
        assert 1 <= asked.minutes <= one.partitions["main"].minutes
        shown = re.search(rf'id="slurm-{field}" value="([^"]+)" min="([^"]+)" step="[^"]+" max="([^"]+)"', text)
        assert float(shown[2]) <= float(shown[1]) <= float(shown[3]) <= value


def test_a_time_beyond_the_limit_is_told_in_hours_and_minutes() -> None:
    with pytest.raises(RefusedError, match="can have 1 h 40 min, not 2"):
        offer("main*|up|1:40:00|3|1500|(null)|idle|1|all\n").check({"hours": 2})


@pytest.mark.parametrize("memory", ["1", "0", "1+"])
def test_memory_that_slurm_does_not_manage_is_not_asked_for(memory: str) -> None:
    """Without RealMemory= in slurm.conf sinfo says 1."""
    one = offer(f"main*|up|1-0|8|{memory}|(null)|idle|1|all\n", {"memory": 4}, memory=8)
    text = form(one, [])
    assert "slurm-memory" not in text
    assert "up to 8 cores, 24 h" in text
    for options in ({}, {"memory": "2"}, from_form(untouched(text))):
        assert one.check(options).memory == 0


def test_memory_may_be_managed_in_one_partition_only() -> None:
    one = offer("main*|up|1-0|8|1|(null)|idle|1|all\nbig|up|1-0|8|64000|(null)|idle|1|all\n")
    assert "slurm-memory" in form(one, [])
    assert one.check({"memory": "2"}).memory == 0
    assert one.check({"memory": "2", "partition": "big"}).memory == 2048
    assert one.check({"partition": "big"}).memory == 2048


MIXED = "main*|up|1-0|64|64000|(null)|idle|4|all\nmain*|up|1-0|8|1024000|gpu:1|idle|1|all\n"


def test_what_is_asked_for_together_exists_on_one_node() -> None:
    one = offer(MIXED)
    assert one.check({"cores": 64, "memory": 60}).cores == 64
    assert one.check({"cores": 8, "memory": 1000, "gpus": 1}).memory == 1000 * 1024
    for options in ({"cores": 64, "memory": 1000}, {"cores": 9, "gpus": 1}, {"memory": 100, "cores": 32}):
        with pytest.raises(
            RefusedError, match=r"No node has all that at once: main: up to 64 cores, 62\.5 GB or up to 8"
        ):
            one.check(options)


def test_defaults_give_way_to_what_was_asked_for() -> None:
    one = offer(MIXED, {"cores": 32, "memory": 200})
    assert (one.check({"gpus": 1}).cores, one.check({"gpus": 1}).memory) == (8, 200 * 1024)
    assert one.check({"cores": 64}).memory == 62.5 * 1024


# Nothing is ever 0: to Slurm that is all of the memory, and no limit of the time


@pytest.mark.parametrize(
    ("limits", "defaults"),
    [
        ({"cores": 4, "memory": 8, "hours": 2}, {"cores": 2}),
        ({}, {"cores": 0, "memory": 0, "hours": 0}),
        ({}, {"cores": -1, "memory": math.nan, "hours": math.inf}),
        ({"cores": 0, "memory": 0, "hours": 0, "gpus": 0}, {}),
        ({"cores": 0.5, "hours": 0.001}, {"hours": 0.001}),
        ({"gpus": 0}, {"gpus": 1}),
        ({"gpus": -1, "cores": -1, "memory": -1, "hours": -1}, {}),
        (dict.fromkeys(FIELDS, math.nan), {"gpus": 1}),
    ],
)
def test_a_request_always_has_a_core_memory_and_time(limits: dict[str, float], defaults: dict[str, float]) -> None:
    one = offer(SINFO, defaults, **limits)
    for options in ({}, from_form(untouched(form(one, []))), dict.fromkeys(FIELDS, ""), dict.fromkeys(FIELDS)):
        asked = one.check(options)
        assert asked.cores >= 1
        assert asked.memory >= 1
        assert asked.minutes >= 1
        assert asked.gpus == 0


def test_a_limit_that_is_no_number_is_no_licence() -> None:
    """Whoever compares with nan finds that nothing is larger."""
    one = offer(SINFO, **dict.fromkeys(FIELDS, math.nan))
    for options in ({"cores": 128}, {"memory": 500}, {"gpus": 4}, {"hours": 24}):
        with pytest.raises(RefusedError):
            one.check(options)


@pytest.mark.parametrize("hours", ["1e6", "71582789", "1e300", "1.7e308"])
def test_no_time_is_so_long_that_it_is_none(hours: str) -> None:
    """Slurm counts seconds in 32 bits, and takes 0 for unlimited. A year is what it makes of unlimited."""
    assert offer("main*|up|infinite|3|1500|(null)|idle|1|all\n").check({"hours": hours}).minutes == 365 * 24 * 60


def test_a_default_that_is_set_keeps_the_others() -> None:
    assert offer(SINFO, {"cores": 2}).check({}) == Request("main", 2, 2048, 0, 240)


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("", ""),
        ("~", ""),
        ("~/", ""),
        ("work/../a b", "./a b"),
        ("~/it's", "./it's"),
        ("/scratch//x/", "/scratch/x"),
        ("-P", "./-P"),
        ("$HOME;`id`", "./$HOME;`id`"),
    ],
)
def test_a_working_directory_is_below_the_home_or_from_the_root(asked: str, path: str) -> None:
    assert offer(fields={"directory": "Where"}).check({"directory": asked}).directory == path
    assert offer().check({"directory": asked}).directory == ""  # the site does not show it


@pytest.mark.parametrize("asked", ["~root/x", "a\nb", "x" * 4096, ["a"], 7, "\x1b[0m"])
def test_what_is_no_path_is_refused(asked: object) -> None:
    with pytest.raises(RefusedError, match="Working directory"):
        offer(fields={"directory": "Where"}).check({"directory": asked})


def test_the_sites_own_labels_are_in_the_form_and_in_refusals() -> None:
    one = offer(fields={"gpus": None, "cores": "CPUs", "partition": None})
    text = form(one, [])
    assert "slurm-gpus" not in text
    assert '<label class="form-label" for="slurm-cores">CPUs</label>' in text
    assert 'id="slurm-partition-row" hidden>' in text
    with pytest.raises(RefusedError, match="CPUs: a server in the partition main can have 128, not 129"):
        one.check({"cores": 129})
    assert one.check({"partition": "none", "gpus": 99}) == Request("main", 1, 2048, 0, 240)


def test_the_form_is_filled_in_and_says_what_it_suggests_beside_it() -> None:
    text = form(offer(), [], values={"cores": 7, "hours": "1.5", "evil": '"><b>', "memory": '"><b>'})
    assert 'id="slurm-cores" value="7"' in text
    assert '<input type="hidden" name="suggested-cores" value="1">' in text
    assert "<b>" not in text
