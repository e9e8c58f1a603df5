"""What sites set under the names that batchspawner gave it: `c.SlurmSpawner.req_account`, `exec_prefix`, and others.

The classes are called as batchspawner's are, because a section of the configuration is named after a class.
settings.py refuses the rest of batchspawner's settings by name.
"""

import os
from typing import Any

from traitlets import Unicode, default
from traitlets.config import Configurable

REQUESTS = ("account", "qos", "reservation", "options", "prologue")


class BatchSpawnerBase(Configurable):
    """What does not depend on the kind of queue."""

    ip = Unicode("0.0.0.0", help="The address at which the server listens on its node.").tag(config=True)  # noqa: S104
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
