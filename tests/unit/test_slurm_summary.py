"""The overlay `slurm`: what the hub's pages say about the jobs of a user's servers."""

import time
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from barehub_slurm.jobs import Job
from barehub_slurm.left import LeftHandler
from barehub_slurm.options import Request
from barehub_slurm.summary import asked_for, minutes_left, summary
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader
from jupyterhub._data import DATA_FILES_PATH
from tornado.web import HTTPError

from tests.unit.slurm_commands import JOB, RUNS

TEMPLATES = Path(__file__).parents[2] / "construct/overlays/slurm/share/barehub/templates"


def running(since: float, limit: str = "4:00:00") -> Job:
    """A job that runs for so many minutes."""
    starts = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - since * 60))
    return Job(*RUNS.replace("2026-11-24T09:32:00", starts).replace("4:00:00", limit).split("|"))


def page(name: str, **names: Any) -> str:
    theirs = FileSystemLoader(f"{DATA_FILES_PATH}/templates")
    loader = ChoiceLoader([FileSystemLoader(TEMPLATES), PrefixLoader({"templates": theirs}), theirs])
    around = {"static_url": lambda path, **_: path, "base_url": "/hub/", "prefix": "/", "no_spawner_check": True}
    around |= {"logout_url": "", "login_url": "", "parsed_scopes": (), "expanded_scopes": ()}
    # As in JupyterHub.init_tornado_settings: some of Jinja's filters fail in asynchronous templates.
    environment = Environment(loader=loader, autoescape=True, enable_async=True)
    return environment.get_template(name).render(**around, **names)


def home(*spawners: Any) -> str:
    user = SimpleNamespace(name="ada", all_spawners=lambda include_default=True: iter(spawners), active=True)
    return page("home.html", user=user, url="/hub/spawn", default_server=SimpleNamespace(active=True))


def test_the_end_follows_from_start_and_limit() -> None:
    assert 119 < minutes_left(running(120)) < 121
    assert minutes_left(running(120, "1-00:00:00")) > 1300
    assert minutes_left(running(120, "UNLIMITED")) == inf
    told = summary(running(230), "2 cores, 4 GB")
    assert (told.asked, told.doing, told.ends_soon, told.warn_in) == (
        "main, 2 cores, 4 GB",
        "runs on localhost",
        True,
        0,
    )
    assert told.ends
    assert told.time_left in ("9 min", "10 min")
    assert 6200 < summary(running(120), "").warn_in < 6400
    late = summary(running(245), "")  # Slurm lets jobs overrun (OverTimeLimit=), and ends them within a minute or so
    assert (late.ends_soon, late.time_left) == (True, "0 min")


def test_a_job_that_waits_has_no_end_but_a_reason() -> None:
    told = summary(Job(*JOB.split("|")), "")
    assert (told.doing, told.ends, told.time_left, told.ends_soon, told.warn_in) == (
        "waits: all nodes that suit it are busy (Resources)", "", "", False, 0
    )  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request("main", 1, 2048, 0, 60), "1 core, 2 GB"),
        (Request("main", 8, 1536, 2, 60), "8 cores, 1.5 GB, GPUs: 2"),
        (Request("main", 2, 0, 0, 60), "2 cores"),
    ],
)
def test_what_it_asks_for_is_said_in_words(request_: Request, said: str) -> None:
    assert asked_for(request_) == said


@pytest.mark.parametrize(("limit", "seconds"), [("4:00:00", 7200), ("1:00:00", 0), ("UNLIMITED", None)])
def test_jupyterlab_is_told_how_much_is_left(limit: str, seconds: int | None) -> None:
    told: list[dict[str, Any]] = []
    spawner = SimpleNamespace(summary=summary(running(120, limit), ""))
    users = {"ada": SimpleNamespace(spawners={"gpu": spawner, "old": SimpleNamespace(summary=None)})}
    handler = SimpleNamespace(find_user=users.get, finish=told.append)
    LeftHandler.get.__wrapped__(handler, "ada", "gpu")
    assert told[0]["seconds"] == (pytest.approx(seconds, abs=60) if seconds else seconds)
    for name, server in (("ada", "old"), ("ada", "none"), ("eve", "gpu")):
        with pytest.raises(HTTPError, match="404"):
            LeftHandler.get.__wrapped__(handler, name, server)


def test_the_home_page_tells_servers_apart_and_warns() -> None:
    text = home(
        SimpleNamespace(name="", summary=summary(running(10), "1 core, 2 GB")),
        SimpleNamespace(name="longer", summary=summary(running(0, "8:00:00"), "1 core, 2 GB")),
        SimpleNamespace(name="gpu<1>", summary=summary(running(230), "4 cores, 8 GB, GPUs: 1")),
        SimpleNamespace(name="old"),  # not active: a row of the database
    )
    assert text.count("<tr>") == 4
    assert "<td>default</td>" in text
    assert "<td>gpu&lt;1&gt;</td>" in text
    assert "main, 4 cores, 8 GB, GPUs: 1" in text
    assert text.count('role="alert"') == 1
    assert "The time of your server <b>gpu&lt;1&gt;</b> ends at" in text
    due = int(text.partition("window.location.reload(); }, ")[2].partition(" ")[0]) / 60_000
    assert 213 < due < 216  # minutes until the warning of the first


def test_without_jobs_the_home_page_is_jupyterhubs() -> None:
    text = home(SimpleNamespace(name="", summary=None))
    assert 'id="slurm-jobs"' not in text
    assert 'role="alert"' not in text
    assert "setTimeout" not in text


def test_the_page_of_a_start_names_the_server_and_stops_that_one() -> None:
    user = SimpleNamespace(name="ada", active=True)
    named = page("spawn_pending.html", user=user, spawner=SimpleNamespace(name="gpu"), progress_url="/p")
    assert "Your server <b>gpu</b>" in named
    assert '.stop_named_server("ada", "gpu", {' in named
    default = page("spawn_pending.html", user=user, spawner=SimpleNamespace(name=""), progress_url="/p")
    assert "stop_named_server" not in default
