# What the overlay `slurm` must know about this cluster. Copy it to BASE/jupyterhub_config.d, adapt it, then run:
#   systemctl restart barehub-hub

# The head node's address on the cluster's network: compute nodes report to the hub there, at port 8081.
c.JupyterHub.hub_ip = "10.0.0.1"

# The users' environment as the compute nodes see it: jupyterhub and jupyterlab, on a shared file system.
c.SlurmJobSpawner.users_environment = "/shared/jupyter"

# Who may log in: every account, or a group, or named users.
c.Authenticator.allow_all = True
# c.PAMAuthenticator.allowed_groups = {"hpc-users"}
# c.Authenticator.allowed_users = {"ada", "grace"}

# What users may choose, within what `sinfo` offers. Memory is in GB, for each server.
# c.SlurmJobSpawner.partitions = ["interactive", "gpu"]
# c.SlurmJobSpawner.limits = {"cores": 8, "memory": 32, "gpus": 1, "hours": 12}
# c.SlurmJobSpawner.defaults = {"cores": 1, "memory": 2, "gpus": 0, "hours": 4}

# What every job is submitted with.
# c.SlurmSpawner.req_account = "jupyter"
# c.SlurmSpawner.req_qos = "interactive"
# c.SlurmSpawner.req_options = "--constraint=avx2"
# c.SlurmSpawner.req_prologue = "module load cuda"

# The directory of sbatch and Slurm's other commands, if the hub does not find them.
# c.SlurmJobSpawner.commands = "/opt/slurm/bin"
