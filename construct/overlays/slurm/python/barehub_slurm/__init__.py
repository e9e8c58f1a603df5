"""JupyterHub's servers as Slurm jobs: the code of barehub's overlay `slurm`.

spawner.py    the spawner: submits the job, shows its progress, cancels it
base.py       settings of the spawner, some of them with batchspawner's names
following.py  follows the job until its server answers, finds out why it has ended, cancels it
options.py    what a user may ask for, and the check of it; form.py: the form
settings.py   settings of batchspawner that have no effect here, and are refused
slurm.py      runs Slurm's commands, as the hub or as a user
partitions.py what sinfo prints: partitions and nodes; jobs.py: what squeue prints; words.py: both in plain words
joblog.py     the end of a job's log, for the page of a start that has failed
summary.py    what the hub's home page says about a job
script.py     fills in job.sh.jinja, the job's script; launch.py: what that runs with the users' own Python
port.py       what a job reports to the hub, once: the port of its server, and what that runs from
internals.py  what is used of JupyterHub beyond its public interface
"""
