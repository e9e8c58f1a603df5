"""JupyterHub's servers as Slurm jobs: the code of barehub's overlay `slurm`.

spawner.py   the spawner: submits the job, shows its progress, cancels it
following.py follows the job until its server answers, and finds out why it has ended
options.py   the form, and the check of what was asked for
slurm.py     runs Slurm's commands and reads what they print: partitions, jobs, reasons
port.py      the one thing that a job reports to the hub: the port of its server
internals.py what is used of JupyterHub and batchspawner beyond their public interfaces
job.sh.jinja the job's script; launch.py: what it runs on the compute node, with the users' own Python
"""
