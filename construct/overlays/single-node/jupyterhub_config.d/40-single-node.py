"""Each server runs on this machine in its own systemd unit, within its limits."""

c.JupyterHub.spawner_class = "barehub_single_node.spawner.UnitSpawner"

# What one server and all that it starts can have. The Linux kernel enforces it: a user who exceeds the memory limit
# loses the process that hit it, usually a notebook's kernel, not the server; CPU time is throttled.
c.Spawner.mem_limit = "4G"
c.Spawner.cpu_limit = 2.0
# Swap space does not extend the memory limit.
c.SystemdSpawner.unit_extra_properties = {"MemorySwapMax": "0"}

# Each server has its own /tmp, and no notebook can become root, whatever sudo allows.
c.SystemdSpawner.isolate_tmp = True
c.SystemdSpawner.disable_user_sudo = True
c.SystemdSpawner.default_shell = "/bin/bash"
# After the programs of the users' environment. The hub's own PATH points to the hub's environment.
c.SystemdSpawner.extra_paths = ["/usr/local/bin", "/usr/bin", "/bin"]
c.Spawner.env_keep = ["LANG", "LC_ALL"]
