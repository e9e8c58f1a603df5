# What the overlay `single-node` must know about this machine. Copy it to BASE/jupyterhub_config.d, adapt it, then run:
#   systemctl restart barehub-hub

# The users' environment, which has jupyterhub and jupyterlab. With several, users choose one by its label in a form.
c.UnitSpawner.environments = {
    "Lab": "/opt/lab/current",
    # "Lab, December 2026": "/opt/lab/releases/2026.12.01",
    # "Anaconda": "/opt/anaconda",
}

# Who may log in: every account except root, or a group, or named users.
c.Authenticator.allow_all = True
c.Authenticator.blocked_users = {"root"}
# c.PAMAuthenticator.allowed_groups = {"researchers"}
# c.Authenticator.allowed_users = {"ada", "grace"}
# For accounts with capitals in their names, or with several names (winbind, sssd): a login becomes the account's own
# name.
# c.JupyterHub.authenticator_class = "barehub.logins.AccountPAM"

# What one server can have; the overlay's defaults are 4 GB and two CPUs.
# c.Spawner.mem_limit = "8G"
# c.Spawner.cpu_limit = 4.0
