# People with an account on this machine log in with its password (PAM, JupyterHub's default authenticator).
# Copy to BASE/jupyterhub_config.d, choose one, then: systemctl restart barehub-hub

# Everybody with an account, except root:
c.Authenticator.allow_all = True
c.Authenticator.blocked_users = {"root"}

# Or members of a group, or named people:
# c.PAMAuthenticator.allowed_groups = {"hpc-users"}
# c.Authenticator.allowed_users = {"ada", "grace"}

# For accounts with capitals in their names, or with several names (winbind, sssd): a login becomes the account's own
# name.
# c.JupyterHub.authenticator_class = "barehub.logins.AccountPAM"

# Who may see and stop other people's servers:
# c.Authenticator.admin_users = {"ada"}

# The users' own environment, with jupyterhub and jupyterlab in it, such as `lab`: the hub's has neither.
c.Spawner.cmd = ["/opt/lab/current/bin/jupyterhub-singleuser"]
