"""The overlay `slurm`: the spawner has batchspawner's settings without batchspawner, and goes on with older states."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from barehub.lifecycle.servers import SURVIVES_RESTART
from barehub_slurm.jobs import Queue
from barehub_slurm.settings import BATCHSPAWNER, FOREIGN, SECTIONS, SettingError, refuse_settings, require_setting
from barehub_slurm.spawner import SlurmJobSpawner
from traitlets.config import Config

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
