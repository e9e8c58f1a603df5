# What the overlay `single-node` has to know of this machine. Copy to BASE/jupyterhub_config.d, adapt, then:
#   systemctl restart barehub-hub

# The users' own environment, with jupyterhub and jupyterlab in it.
environment = "/opt/jupyter"
c.Spawner.cmd = [f"{environment}/bin/jupyterhub-singleuser"]
c.SystemdSpawner.extra_paths = [f"{environment}/bin", "/usr/local/bin", "/usr/bin", "/bin"]

# Who may log in: everybody with an account, or members of a group, or named people.
c.Authenticator.allow_all = True
c.Authenticator.blocked_users = {"root"}
# c.PAMAuthenticator.allowed_groups = {"researchers"}
# c.Authenticator.allowed_users = {"ada", "grace"}

# What one server can have; the overlay's own choice is 4 GB and two CPUs.
# c.Spawner.mem_limit = "8G"
# c.Spawner.cpu_limit = 4.0
