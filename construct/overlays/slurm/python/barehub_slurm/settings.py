"""Settings of batchspawner and JupyterHub that have no effect here. The hub does not start with one, and says which.

    refuse_settings(c)

in the overlay's configuration: a file that sets one of them later fails at that line.
"""

import math
import re
from typing import Any

from barehub.environments import offered_by
from traitlets.config import Config

from barehub_slurm.options import FIELDS, LABELS
from barehub_slurm.port import PORTS

CHOICES = "c.SlurmJobSpawner.partitions, limits and defaults say what users may choose"
OWN = "this spawner runs Slurm's commands itself; c.SlurmJobSpawner.commands is their directory"
SCRIPT = "this spawner writes the script itself; c.SlurmSpawner.req_options adds #SBATCH options, req_prologue commands"
ENVIRONMENT = "c.Spawner.environment sets variables of the job"

BATCHSPAWNER = {
    "req_partition": CHOICES,
    "req_queue": CHOICES,
    "req_runtime": CHOICES,
    "req_memory": CHOICES,
    "req_nprocs": CHOICES,
    "req_ngpus": CHOICES,
    "req_gres": CHOICES,
    "req_host": "a server runs where Slurm places it; c.SlurmSpawner.req_options can have --nodelist",
    "req_cluster": "jobs go to slurm.conf's cluster; c.SlurmJobSpawner.environment_of_commands can have SLURM_CONF",
    "req_username": "jobs are their users' own",
    "req_homedir": "servers start in their users' homes, as the nodes have them",
    "req_keepvars": ENVIRONMENT,
    "req_keepvars_extra": ENVIRONMENT,
    "req_epilogue": SCRIPT,
    "req_srun": SCRIPT,
    "batch_script": SCRIPT,
    "batch_submit_cmd": OWN,
    "batch_query_cmd": OWN,
    "batch_cancel_cmd": OWN,
    "batchspawner_singleuser_cmd": "batchspawner is not used on the nodes; c.Spawner.cmd is the server's command",
    "startup_poll_interval": "c.SlurmJobSpawner.queue_interval is how often Slurm is asked",
    "state_pending_re": OWN,
    "state_running_re": OWN,
    "state_exechost_re": OWN,
    "state_exechost_exp": OWN,
    "state_unknown_re": OWN,
}
LIMITS = (
    "Slurm limits a job to what the user asks for; c.SlurmJobSpawner.limits has the most, defaults what is suggested"
)
JUPYTERHUB = dict.fromkeys(("mem_limit", "mem_guarantee", "cpu_limit", "cpu_guarantee"), LIMITS)
# The least that makes sense: a pause of 0 would ask Slurm without end.
LEAST = {"queue_interval": 0.1, "submit_timeout": 1, "unseen_timeout": 1, "concurrent_submissions": 1}
LEAST |= {"launch_timeout": 1, "login_timeout": 1, "report_timeout": 1}
LOOPBACK = ("", "127.0.0.1", "localhost", "::1", "0.0.0.0", "::")  # noqa: S104 - compared with
FOREIGN = ("UserEnvMixin", "BatchSpawnerRegexStates")  # sections of batchspawner's that are no class here
SECTIONS = ("Spawner", *FOREIGN, "BatchSpawnerBase", "SlurmSpawner", "SlurmJobSpawner")


class SettingError(ValueError):
    """A setting that would have no effect, or a wrong one."""


def require_setting(section: str, name: str, value: Any) -> None:
    """Raise SettingError if this setting has no effect, or a value that makes no sense."""
    if why := (BATCHSPAWNER | JUPYTERHUB).get(name):
        raise SettingError(f"c.{section}.{name} has no effect: {why}")
    if section in FOREIGN:
        raise SettingError(f"c.{section}.{name} has no effect: write c.SlurmSpawner.{name}")
    if name == "group_overrides" and isinstance(value, dict):
        for group in value.values():
            for one, own in (group.get("spawner_override") or {}).items():
                require_of_group(section, one, own)
    if section == "SlurmJobSpawner" and name in ("fields", "presets") and isinstance(value, dict):
        require_fields(name, value)
    if section == "SlurmJobSpawner" and isinstance(value, int | float) and value < LEAST.get(name, -math.inf):
        raise SettingError(f"c.{section}.{name} cannot be {value}: the least is {LEAST[name]}")
    if section == "SlurmJobSpawner" and name == "port_range" and isinstance(value, str):
        require_ports(value)
    if section == "SlurmJobSpawner" and name in ("limits", "defaults") and isinstance(value, dict):
        for field, amount in value.items():
            if field not in FIELDS:
                raise SettingError(f"c.{section}.{name}: there is no {field!r}, only {', '.join(FIELDS)}")
            if isinstance(amount, int | float) and not FIELDS[field].least <= amount < math.inf:
                raise SettingError(f"c.{section}.{name}: {field} cannot be {amount}")


def require_ports(value: str) -> None:
    """Raise SettingError if this is no range of ports."""
    found = re.fullmatch(r"(\d{4,5})-(\d{4,5})", value)
    if value and not (found and PORTS[0] <= int(found[1]) <= int(found[2]) <= PORTS[-1]):
        why = f"write the first and the last port, from {PORTS[0]} to {PORTS[-1]}, such as '50000-50999'"
        raise SettingError(f"c.SlurmJobSpawner.port_range cannot be {value!r}: {why}")


def require_of_group(section: str, name: str, value: Any) -> None:
    """Raise SettingError if `group_overrides` has such a setting."""
    try:
        require_setting("SlurmJobSpawner", name, value)
    except SettingError as error:
        raise SettingError(f"c.{section}.group_overrides: {error}") from None


def require_fields(name: str, value: dict[str, Any]) -> None:
    """Raise SettingError if `fields`, or one of `presets`, names a field that the form does not have."""
    for label, one in {"": value}.items() if name == "fields" else value.items():
        for field, text in one.items():
            where = f"c.SlurmJobSpawner.{name}" + (f"[{label!r}]" if label else "")
            if name == "fields" and isinstance(text, str) and not text.strip():
                raise SettingError(f"{where}: the label of {field!r} is empty; write None to hide the field")
            if field not in LABELS:
                raise SettingError(f"{where}: there is no {field!r}, only {', '.join(LABELS)}")


def require_site(spawner: Any) -> None:
    """Raise SettingError if a setting of the site is missing or has no effect."""
    where = "Administrators: see 50-site.py among the examples"
    if spawner.hub.ip in LOOPBACK and spawner.hub.connect_ip in LOOPBACK and not spawner.hub_connect_url:
        listens = spawner.hub.ip or "every address"
        raise SettingError(f"the hub listens at {listens}, which nodes cannot reach. {where}")
    if not offered_by(spawner):
        raise SettingError(f"the users' environment is not set. {where}")
    for section in SECTIONS:  # from the command line, which is read after all files
        for name, value in spawner.config.get(section, {}).items():
            require_setting(section, name, value)


class Checked(Config):
    """A section of the configuration that refuses such settings when they are made."""

    section = ""

    def __setitem__(self, key: str, value: Any) -> None:
        require_setting(self.section, key, value)
        super().__setitem__(key, value)


def refuse_settings(config: Config) -> None:
    """Refuse what is set already, and from now on. Raises SettingError."""
    for section in SECTIONS:
        checked = type(f"Checked{section}", (Checked,), {"section": section})()
        for name, value in config[section].items():
            checked[name] = value
        config[section] = checked
