# What the overlay `slurm` must know about this cluster. Copy it to BASE/jupyterhub_config.d, adapt it, then run:
#   systemctl restart barehub-hub

# The head node's address on the cluster's network: compute nodes report to the hub there, at port 334.
c.JupyterHub.hub_ip = "10.0.0.1"

# The users' environment as the compute nodes see it: jupyterhub and jupyterlab, on a shared file system.
c.SlurmJobSpawner.users_environment = "/shared/jupyter/current"
# Or several of them, or modules, with labels of your choice: users choose one in the form.
# c.SlurmJobSpawner.environments = {
#     "Lab": "/shared/jupyter/current",
#     "Lab, December 2026": "/shared/jupyter/releases/2026.12.01",
#     "Anaconda": "/opt/anaconda",
#     "Jupyter 4.2": "module load GCC/13.2 jupyter/4.2",
# }

# Who may log in: every account except root, or a group, or named users.
c.Authenticator.allow_all = True
c.Authenticator.blocked_users = {"root"}
# c.PAMAuthenticator.allowed_groups = {"hpc-users"}
# c.Authenticator.allowed_users = {"ada", "grace"}
# For accounts with capitals in their names, or with several names (winbind, sssd): a login becomes the account's own
# name.
# c.JupyterHub.authenticator_class = "barehub.logins.AccountPAM"

# What users may choose, within what `sinfo` offers. Memory is in GB, for each server.
# c.SlurmJobSpawner.partitions = ["interactive", "gpu"]
# c.SlurmJobSpawner.limits = {"cores": 8, "memory": 32, "gpus": 1, "hours": 12}
# What the form suggests; a name that is left out keeps the value here.
# c.SlurmJobSpawner.defaults = {"cores": 1, "memory": 2, "gpus": 0, "hours": 4}

# The form: labels of fields, in the order in which they are to come; None hides one. And links that fill it in.
# c.SlurmJobSpawner.fields = {"partition": "Queue", "account": "Project", "gpus": None, "directory": "Start in"}
# c.SlurmJobSpawner.presets = {
#     "Small, 4 h": {"cores": 1, "memory": 4, "hours": 4},
#     "GPU for teaching": {"partition": "gpu", "gpus": 1, "kind": "a100", "hours": 2},
# }

# What every job is submitted with. What is set here, the form does not ask for.
# c.SlurmSpawner.req_account = "jupyter"
# c.SlurmSpawner.req_qos = "interactive"
# c.SlurmSpawner.req_options = "--constraint=avx2"
# c.SlurmSpawner.req_prologue = "module load cuda"

# The ports of compute nodes that a firewall lets the head node connect to; each server uses one.
# c.SlurmJobSpawner.port_range = "50000-50999"

# The directory of sbatch and Slurm's other commands, if the hub does not find them.
# c.SlurmJobSpawner.commands = "/opt/slurm/bin"
# Variables that they need. They get SLURM_CONF from the hub's unit, too; with sudo, see slurm-sudoers.
# c.SlurmJobSpawner.environment_of_commands = {"SLURM_CONF": "/cm/slurm/slurm.conf"}
