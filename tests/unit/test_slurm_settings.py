"""The overlay `slurm`: settings that have no effect are refused by name."""

import ast
from pathlib import Path
from typing import Any

import pytest
from barehub_slurm.settings import LEAST, SECTIONS, SettingError, refuse_settings
from traitlets.config import Config

OVERLAY = Path(__file__).parents[2] / "construct/overlays/slurm/jupyterhub_config.d/40-slurm.py"


def set_it(config: Config, section: str, name: str, value: Any) -> None:
    setattr(config[section], name, value)


@pytest.mark.parametrize(
    "name", ["req_partition", "req_runtime", "req_memory", "req_nprocs", "req_gres", "batch_script", "req_srun"]
)
@pytest.mark.parametrize("section", SECTIONS)
def test_what_has_no_effect_is_refused_before_and_after(section: str, name: str) -> None:
    config = Config()
    refuse_settings(config)
    with pytest.raises(SettingError, match=rf"c\.{section}\.{name} has no effect: "):
        set_it(config, section, name, "x")
    before = Config()
    set_it(before, section, name, "x")
    with pytest.raises(SettingError, match=name):
        refuse_settings(before)


def test_what_has_an_effect_stays() -> None:
    config = Config()
    config.SlurmSpawner.req_account = "before"
    refuse_settings(config)
    config.SlurmSpawner.req_qos = "after"
    config.SlurmJobSpawner.limits = {"cores": 8}
    config.SlurmJobSpawner.defaults.update({"hours": 2})
    config.SlurmSpawner.exec_prefix = "sudo"
    config.Spawner.default_url = "/lab"
    other = Config()
    other.merge(config)
    assert (other.SlurmSpawner.req_account, other.SlurmSpawner.req_qos) == ("before", "after")
    assert other.SlurmJobSpawner.limits == {"cores": 8}


def test_who_waits_in_the_queue_keeps_nobody_from_starting() -> None:
    """JupyterHub counts a queued job as a spawn (handlers/base.py, spawn_single_user), and 0 is no limit."""
    lines = [node for node in ast.parse(OVERLAY.read_text()).body if isinstance(node, ast.Assign)]
    set_there = {ast.unparse(node.targets[0]): node.value for node in lines}
    assert ast.literal_eval(set_there["c.JupyterHub.concurrent_spawn_limit"]) == 0


@pytest.mark.parametrize("name", ["limits", "defaults"])
@pytest.mark.parametrize("value", [{"core": 8}, {"mem": 1}, {"cores": 0}, {"hours": -1}, {"memory": 0}])
def test_limits_that_make_no_sense_are_refused(name: str, value: dict[str, float]) -> None:
    config = Config()
    refuse_settings(config)
    with pytest.raises(SettingError, match=name):
        set_it(config, "SlurmJobSpawner", name, value)


@pytest.mark.parametrize("name", LEAST)
def test_times_that_would_ask_slurm_without_end_are_refused(name: str) -> None:
    config = Config()
    refuse_settings(config)
    for value in (0, -1):
        with pytest.raises(SettingError, match=f"{name} cannot be {value}: the least is"):
            set_it(config, "SlurmJobSpawner", name, value)
    set_it(config, "SlurmJobSpawner", name, 1)


@pytest.mark.parametrize("value", ["50000", "50000-", "50999-50000", "80-90", "60000-70000", "50000:50999", "a-b", " "])
def test_what_is_no_range_of_ports_is_refused(value: str) -> None:
    config = Config()
    refuse_settings(config)
    with pytest.raises(SettingError, match=r"port_range cannot be .*: write the first and the last port"):
        set_it(config, "SlurmJobSpawner", "port_range", value)
    for fine in ("", "1024-65535", "50000-50000"):
        set_it(config, "SlurmJobSpawner", "port_range", fine)


@pytest.mark.parametrize("section", ["Spawner", "SlurmJobSpawner"])
@pytest.mark.parametrize("name", ["mem_limit", "cpu_limit", "mem_guarantee", "cpu_guarantee"])
def test_what_slurm_does_not_hear_of_is_refused_with_what_to_write(section: str, name: str) -> None:
    config = Config()
    refuse_settings(config)
    with pytest.raises(SettingError, match=rf"c\.{section}\.{name} has no effect: .*c\.SlurmJobSpawner\.limits"):
        set_it(config, section, name, 1)
    with pytest.raises(SettingError, match=rf"c\.Spawner\.group_overrides: c\.SlurmJobSpawner\.{name} has no effect"):
        config.Spawner.group_overrides = {"gpu": {"groups": ["gpu"], "spawner_override": {name: 1}}}


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("fields", {"queue": "Queue"}, r"fields: there is no 'queue', only environment, partition, account"),
        ("fields", {"account": " "}, r"fields: the label of 'account' is empty; write None to hide the field"),
        ("presets", {"Small": {"core": 1}}, r"presets\['Small'\]: there is no 'core'"),
        ("group_overrides", {"a": {"spawner_override": {"limits": {"core": 1}}}}, "limits: there is no 'core'"),
    ],
)
def test_fields_that_the_form_does_not_have_are_refused(name: str, value: dict[str, object], why: str) -> None:
    config = Config()
    refuse_settings(config)
    with pytest.raises(SettingError, match=why):
        set_it(config, "SlurmJobSpawner", name, value)
    config.SlurmJobSpawner.fields = {"gpus": None, "account": "Project"}
    config.SlurmJobSpawner.presets = {"Small": {"cores": 1, "environment": "Lab"}}
