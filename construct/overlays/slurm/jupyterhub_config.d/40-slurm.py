"""Servers are Slurm jobs. What differs from site to site goes in a file of your own: see examples/50-site.py."""

from barehub_slurm.port import replace_handler
from barehub_slurm.spawner import SlurmJobSpawner

c.JupyterHub.spawner_class = SlurmJobSpawner
replace_handler()

# How many seconds a job may wait in the queue before it is given up.
c.Spawner.start_timeout = 3600
# How often, in seconds, JupyterHub checks each server; one squeue answers for all.
c.Spawner.poll_interval = 30
# A restarting hub need not wait for jobs that are queued.
c.JupyterHub.init_spawners_timeout = 1
# A PAM session on the head node does nothing for a server on a compute node.
c.PAMAuthenticator.open_sessions = False
