"""JupyterHub's servers as Slurm jobs: the code of barehub's overlay `slurm`.

spawner.py    the spawner: submits the job, shows its progress, cancels it
base.py       settings of the spawner, some of them with batchspawner's names
following.py  follows the job until its server answers, finds out why it has ended, cancels it
choosing.py   what the spawner offers its user: the traits for that, the form, and the link that fills it in
options.py    what a user may ask for, and the check of it; form.py, form.html.jinja, form.js: the form
access.py     whose jobs a partition takes: accounts.py (sacctmgr), reservations.py, limits.py (of partitions)
estimate.py   when a server would start, for a button of the form
gpus.py       kinds of GPUs; nodes.py: what the system keeps of nodes, and what is free; directory.py: where to start
answer.py     the answer to a question that all forms have, kept for a while
settings.py   settings of batchspawner and JupyterHub that have no effect here, and are refused
slurm.py      runs Slurm's commands, as the hub or as a user
partitions.py what sinfo prints: partitions and nodes; jobs.py: what squeue prints; words.py: both in plain words
joblog.py     the end of a job's log, for the page of a start that has failed
summary.py    what the hub's home page says about a job
script.py     fills in job.sh.jinja, the job's script
launch.py     what that runs with the users' own Python; node_ports.py, a part of it: ports of a compute node
port.py       what a job reports to the hub, once: the port of its server, and what that runs from
internals.py  what is used of JupyterHub beyond its public interface
"""
