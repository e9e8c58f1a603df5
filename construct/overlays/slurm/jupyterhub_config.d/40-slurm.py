"""Servers are Slurm jobs. What differs from site to site goes in a file of your own: see examples/50-site.py."""

from barehub_slurm import estimate, left
from barehub_slurm.internals import let_links_fill_in
from barehub_slurm.port import replace_handler
from barehub_slurm.settings import refuse_settings
from barehub_slurm.spawner import SlurmJobSpawner

c.JupyterHub.spawner_class = SlurmJobSpawner
replace_handler()
let_links_fill_in()
estimate.add_handler()
left.add_handler()
# What batchspawner has a setting for and this spawner does otherwise is refused, with the line that sets it.
refuse_settings(c)

# How many seconds a job may wait in the queue before it is given up.
c.Spawner.start_timeout = 3600
# How often, in seconds, JupyterHub checks each server; one squeue answers for all.
c.Spawner.poll_interval = 30
# Users who wait in Slurm's queue keep nobody else from starting a server. What protects slurmctld is a limit on
# submissions, c.SlurmJobSpawner.concurrent_submissions.
c.JupyterHub.concurrent_spawn_limit = 0
# A restarting hub need not wait for jobs that are queued.
c.JupyterHub.init_spawners_timeout = 1
# A PAM session on the head node does nothing for a server on a compute node.
c.PAMAuthenticator.open_sessions = False
