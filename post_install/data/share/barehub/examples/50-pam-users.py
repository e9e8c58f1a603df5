# People with an account on this machine log in with its password (PAM).
# Copy to BASE/jupyterhub_config.d, choose one, then: systemctl restart barehub-hub

# Everybody with an account, except root:
c.Authenticator.allow_all = True
c.Authenticator.blocked_users = {"root"}

# Or members of a group, or named people:
# c.PAMAuthenticator.allowed_groups = {"hpc-users"}
# c.Authenticator.allowed_users = {"ada", "grace"}

# A login becomes the account's own name: accounts have capitals, or several names (SSSD, winbind).
c.JupyterHub.authenticator_class = "barehub.logins.AccountPAM"

# Who may see and stop other people's servers:
# c.Authenticator.admin_users = {"ada"}

# The users' own environment, with jupyterhub and jupyterlab in it, such as `lab`: the hub's has neither.
c.Spawner.cmd = ["/opt/lab/current/bin/jupyterhub-singleuser"]
