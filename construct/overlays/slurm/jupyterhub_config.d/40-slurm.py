"""Servers are Slurm jobs. What differs from site to site is in a file of yours: examples/50-site.py."""

from barehub_slurm.port import replace_handler
from barehub_slurm.spawner import SlurmJobSpawner

c.JupyterHub.spawner_class = SlurmJobSpawner
replace_handler()

# How long a job may wait in the queue before it is given up.
c.Spawner.start_timeout = 3600
# Every so many seconds JupyterHub asks for each server whether it is still there; one squeue answers for all.
c.Spawner.poll_interval = 30
# A job may be queued while the hub restarts, which need not wait for it.
c.JupyterHub.init_spawners_timeout = 1
# A session on the head node is of no use to a server elsewhere.
c.PAMAuthenticator.open_sessions = False
