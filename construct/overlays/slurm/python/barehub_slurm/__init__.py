"""JupyterHub's servers as Slurm jobs: the part of barehub's overlay `slurm` that is code.

spawner.py   submits the job, follows it, tells its user the truth about it, cancels it
slurm.py     what Slurm says: which partitions and jobs there are, why a job waits or has ended
port.py      the one thing a job tells the hub: the port of its server
job.sh.jinja the job; launch.py: what it runs on the compute node, with the users' own Python
"""
