"""Each user's server runs on this machine in a systemd unit of its own, which keeps to its limits."""

c.JupyterHub.spawner_class = "systemdspawner.SystemdSpawner"

# What one server and all that it starts can have. The kernel sees to it: who needs more memory loses the process that
# asked for it, a notebook's kernel usually, not the server; nobody gets more CPU time.
c.Spawner.mem_limit = "4G"
c.Spawner.cpu_limit = 2.0
# Not more by way of the swap space, either.
c.SystemdSpawner.unit_extra_properties = {"MemorySwapMax": "0"}

# A /tmp for each; and nobody becomes root from a notebook, whatever sudo would say.
c.SystemdSpawner.isolate_tmp = True
c.SystemdSpawner.disable_user_sudo = True
c.SystemdSpawner.default_shell = "/bin/bash"
# The hub's own PATH leads to the hub's environment.
c.Spawner.env_keep = ["LANG", "LC_ALL"]
