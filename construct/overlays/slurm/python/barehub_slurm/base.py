"""Settings of the spawner: those that have batchspawner's names, `c.SlurmSpawner.req_account` for instance, and those
that say how a job is submitted, launched, and followed, `c.SlurmJobSpawner.launch_timeout` for instance.

A section of the configuration is named after a class, so two of the classes are called as batchspawner's are.
settings.py refuses the rest of batchspawner's settings by name.
"""

import os
from typing import Any

import jupyterhub
from traitlets import Float, Integer, Unicode, default
from traitlets.config import Configurable

REQUESTS = ("account", "qos", "reservation", "options", "prologue")


class BatchSpawnerBase(Configurable):
    """What does not depend on the kind of queue."""

    exec_prefix = Unicode(help="Runs Slurm's commands as the user {username}: runuser for root, else sudo.").tag(
        config=True
    )
    req_account = Unicode(help="The account of every job.").tag(config=True)
    req_options = Unicode(help="More options for the #SBATCH lines of every job.").tag(config=True)
    req_prologue = Unicode(help="Shell commands that every job runs before its server.").tag(config=True)

    @default("exec_prefix")
    def _default_exec_prefix(self) -> str:
        return "runuser -u {username} --" if os.geteuid() == 0 else "sudo -n -u {username} --"

    def get_req_subvars(self) -> dict[str, Any]:
        """Return what the job's script gets of these settings; a site's hook may have set them for this server."""
        return {name: getattr(self, f"req_{name}") for name in REQUESTS}


class SlurmSpawner(BatchSpawnerBase):
    """What only Slurm has."""

    req_qos = Unicode(help="The QoS of every job.").tag(config=True)
    req_reservation = Unicode(help="The reservation of every job.").tag(config=True)


class JobSettings(Configurable):
    """How a job is submitted, launched, and followed."""

    queue_interval = Float(5, help="Seconds for which one squeue, or sinfo, serves all users.").tag(config=True)
    submit_timeout = Float(60, help="Seconds that sbatch may take; then its job is looked for by name.").tag(
        config=True
    )
    concurrent_submissions = Integer(
        4, help="For how many users jobs are submitted at once; the others wait their turn."
    ).tag(config=True)
    unseen_timeout = Float(60, help="Seconds after which a job that squeue does not show has ended.").tag(config=True)
    launch_timeout = Integer(180, help="Seconds that a server may take to appear once its job runs.").tag(config=True)
    login_timeout = Integer(60, help="Seconds that a user's login files may take in the job.").tag(config=True)
    report_timeout = Integer(60, help="Seconds for which a job tries to reach the hub.").tag(config=True)
    port_range = Unicode(help="The ports that servers may use on their nodes, as 50000-50999; if empty, any.").tag(
        config=True
    )
    oldest_jupyterhub = Unicode(help="The oldest jupyterhub in the users' environment that is accepted.").tag(
        config=True
    )

    @default("oldest_jupyterhub")
    def _default_oldest_jupyterhub(self) -> str:
        return f"{jupyterhub.version_info[0] - 1}.0"
