# Stop servers that nobody has used for an hour. Copy to BASE/jupyterhub_config.d, then: systemctl restart barehub-hub

c.JupyterHub.services = [
    *(c.JupyterHub.get("services") or []),
    {
        "name": "idle-culler",
        "command": ["jupyterhub-idle-culler", "--timeout=3600", "--cull-every=300"],
    },
]
c.JupyterHub.load_roles = [
    *(c.JupyterHub.get("load_roles") or []),
    {
        "name": "idle-culler",
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        "services": ["idle-culler"],
    },
]
