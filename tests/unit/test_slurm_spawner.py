"""The overlay `slurm`: the spawner itself: its settings, its state, and how starts take turns."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from barehub.lifecycle.servers import SURVIVES_RESTART
from barehub.logins import NoAccountError
from barehub_slurm.accounts import Accounts
from barehub_slurm.estimate import Estimates, answer
from barehub_slurm.following import JobError
from barehub_slurm.jobs import Queue
from barehub_slurm.partitions import Catalogue
from barehub_slurm.reservations import Reservations
from barehub_slurm.settings import BATCHSPAWNER, FOREIGN, SECTIONS, SettingError, refuse_settings, require_setting
from barehub_slurm.slurm import Turns
from barehub_slurm.spawner import SlurmJobSpawner
from traitlets.config import Config

from tests.unit.slurm_commands import RUNS, UID, USER, Commands

# Of a server that runs, from a release whose spawner was a subclass of batchspawner's.
OLDER_STATE = """{
    "job_name": "jupyterhub-0a1b2c3d", "job_id": "4711", "uid": 1001, "token_id": 12, "reported": 40123,
    "environment": {"prefix": "/shared/jupyter/releases/2026.11.01", "jupyterhub": "6.1.1"}, "up": true,
    "submitted": 1795000000.5, "survives_restart": true, "last_end": "Your last server has ended."
}"""


def spawner(config: Config | None = None) -> Any:
    orm = SimpleNamespace(name="", state=None, user_options={}, server=None)
    user = SimpleNamespace(name="alice", url="/user/alice")
    return SlurmJobSpawner(config=config or Config(), user=user, orm_spawner=orm)


def test_settings_have_the_names_that_sites_know() -> None:
    config = Config()
    refuse_settings(config)
    config.BatchSpawnerBase.req_account = "physics"
    config.SlurmSpawner.req_qos = "interactive"
    config.SlurmSpawner.req_options = "--constraint=avx2"
    config.SlurmJobSpawner.req_reservation = "course"
    config.BatchSpawnerBase.req_prologue = "module load cuda"
    config.SlurmSpawner.exec_prefix = "doas -u {username}"
    made = spawner(config)
    assert made.get_req_subvars() == {
        "account": "physics", "qos": "interactive", "options": "--constraint=avx2", "reservation": "course",
        "prologue": "module load cuda",
    }  # fmt: skip
    assert made.slurm.prefix == "doas -u {username}"


def test_a_user_without_an_account_on_the_head_node_is_told_so() -> None:
    made = spawner(Config(SlurmJobSpawner={"users_environment": "/opt/jupyter"}))
    made.hub, made.user.name = SimpleNamespace(ip="192.0.2.1", connect_ip=""), "nobody-here"
    with pytest.raises(NoAccountError) as refused:
        asyncio.run(made.start())
    assert "There is no account nobody-here on this machine" in refused.value.jupyterhub_message


@pytest.mark.parametrize("section", FOREIGN)
def test_a_section_that_is_no_class_here_names_the_one_to_write(section: str) -> None:
    with pytest.raises(SettingError, match=r"has no effect: write c\.SlurmSpawner\.req_account"):
        require_setting(section, "req_account", "physics")


def test_every_setting_of_a_section_is_the_spawners_or_is_refused() -> None:
    """None is without an effect and without a word: batchspawner 1.3 has these."""
    known = {"req_account", "req_options", "req_prologue", "req_qos", "req_reservation", "exec_prefix", "ip"}
    assert known <= set(SlurmJobSpawner.class_trait_names(config=True))
    assert not set(BATCHSPAWNER) & set(SlurmJobSpawner.class_trait_names())
    classes = {one.__name__ for one in SlurmJobSpawner.mro()}
    assert {*SECTIONS} - classes == {*FOREIGN}


def test_a_state_of_an_older_release_is_gone_on_with_and_kept_for_a_rollback() -> None:
    made, older = spawner(), json.loads(OLDER_STATE)
    made.queue = made.job.queue = Queue()
    made.load_state(older)
    assert (made.job.up, made.job.reported, made.token_id, made.job_id) == (True, 40123, 12, "4711")
    assert "jupyterhub-0a1b2c3d" in made.queue.names
    assert {name: value for name, value in made.get_state().items() if name in older} == older
    assert made.get_state()[SURVIVES_RESTART]
    made.clear_state()
    assert (made.job_id, made.job.job_name) == ("", "")


def test_a_server_that_has_ended_has_no_route_for_the_next_hub_either(commands: Commands) -> None:
    """The hub was stopped while the job waited for its answer, and Slurm still shows the job."""
    commands.say("squeue", RUNS)
    made = ready_to_start(commands, Turns())
    made.load_state(json.loads(OLDER_STATE) | {"job_name": "jupyterhub-1", "job_id": "17", "uid": UID, "left": 1.0})
    assert made.get_state()["left"] == 1.0
    assert (made.pending, made.ready) == ("stop", False)  # JupyterHub adds no route
    made._check_pending = True
    assert asyncio.run(made.poll()) == 0
    made._check_pending, made._stop_pending = False, True
    assert asyncio.run(made.poll()) is None  # so it is cancelled
    made.clear_state()
    assert made.get_state().get("left") is None


# Starting and stopping, with Slurm's commands as scripts


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    new = Commands(tmp_path)
    new.say("sinfo", "main*|up|1-00:00:00|8|16000|(null)|idle|2|all", as_user="main")
    new.say("sbatch", "17")
    new.say("scontrol", "PartitionName=main MaxTime=1-0")
    return new


def ready_to_start(commands: Commands, turns: Turns) -> Any:
    """A spawner that JupyterHub has prepared, with a queue and answers of its own."""
    made = spawner(Config({"SlurmJobSpawner": {"users_environment": "/shared/jupyter", "queue_interval": 0.1}}))
    made.commands, made.exec_prefix = str(commands.directory), f"{commands.directory}/as-user {{username}}"
    db = SimpleNamespace(commit=lambda: None)
    made.user = SimpleNamespace(name=USER, url=f"/user/{USER}", db=db, settings={}, groups=[])
    made.hub = SimpleNamespace(ip="10.0.0.1", connect_ip="", api_url="http://10.0.0.1:334/hub/api", base_url="/hub/")
    made.user_options, made.api_token, made.turns = {}, "t0ken", turns
    made.queue = made.job.queue = Queue()
    made.catalogue, made.accounts, made.reservations = Catalogue(), Accounts(), Reservations()
    made.get_env = lambda: {"JUPYTERHUB_API_TOKEN": "t0ken"}
    made.get_args = list
    return made


@pytest.fixture(autouse=True)
def known_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyterhub.orm.APIToken.find", lambda db, token: SimpleNamespace(id=12))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


def test_starts_take_turns_with_all_that_asks_slurm_as_the_user(commands: Commands) -> None:
    """The second asks nothing before the first is submitted, and is told how many are before it."""

    async def story() -> None:
        turns, go = Turns(), commands.directory / "go"
        commands.say("sbatch", "17", first=f"while [ ! -e {go} ]; do sleep 0.05; done")
        first, second, third = (ready_to_start(commands, turns) for _ in range(3))
        for one in (first, second, third):
            one.concurrent_submissions = 1
        starts = [asyncio.ensure_future(one.start()) for one in (first, second, third)]
        try:
            await until(lambda: commands.called("sbatch"))
            assert commands.called("sinfo") == 2  # the hub's, and the first user's
            assert first.job.said == "Submitting the job to Slurm"
            assert second.job.said == "The job waits to be submitted to Slurm"
            assert third.job.said == "The job waits to be submitted to Slurm; 1 other is before it"
            await third.stop()  # while it waits for its turn
            assert third.job.job_name == ""
        finally:
            go.touch()
        await until(lambda: first.job.job_id and second.job.job_id)
        assert commands.called("sbatch") == 2
        assert second.job.state["asked"] == "1 core, 2 GB"
        for start in starts:
            start.cancel()
        # Before asyncio.run cancels what is left, of which a program that just starts would hang (cpython#125502).
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(asyncio.wait_for(story(), 240))


def test_a_refused_request_is_told_and_leaves_nothing_to_cancel(commands: Commands) -> None:
    async def story() -> None:
        made = ready_to_start(commands, Turns())
        made.user_options = {"cores": 99}
        with pytest.raises(JobError, match="Cores: a server in the partition main can have 8, not 99"):
            await made.start()
        assert await made.poll() == 0
        await made.stop()
        assert commands.called("sbatch") + commands.called("scancel") == 0
        assert made.turns.waiting == 0

    asyncio.run(asyncio.wait_for(story(), 60))


def test_the_form_names_the_server_that_it_is_for(commands: Commands) -> None:
    named, default = ready_to_start(commands, Turns()), ready_to_start(commands, Turns())
    named.orm_spawner.name = "gpu<1>"
    form = asyncio.run(default.get_options_form())
    assert 'name="partition"' in form
    assert asyncio.run(named.get_options_form()).startswith(
        '<p class="text-center">For your server <b>gpu&lt;1&gt;</b>'
    )
    assert "For your server" not in form


def test_the_form_says_what_could_not_be_looked_at(commands: Commands) -> None:
    notices = ("accounting does not answer at present: your server", "does not say at present which reservations")

    async def told() -> list[bool]:
        form = await ready_to_start(commands, Turns()).get_options_form()
        assert 'name="partition"' in form
        return [notice in form for notice in notices]

    assert asyncio.run(told()) == [False, False]
    commands.say("scontrol", error="scontrol: error: not now")
    assert asyncio.run(told()) == [True, True]


def test_when_it_would_start_is_asked_within_what_a_group_may_have(commands: Commands) -> None:
    """No form of this server need have been shown before: the button may be in that of a named server."""
    made = ready_to_start(commands, Turns())
    made.user.groups = [SimpleNamespace(name="course")]
    made.group_overrides = {"course": {"groups": ["course"], "spawner_override": {"limits": {"cores": 4}}}}
    told = asyncio.run(answer(Estimates(), made, {"cores": "5"}))
    assert told == {"text": "Cores: a server in the partition main can have 4, not 5."}
