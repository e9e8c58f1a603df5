# Stop servers that nobody has used for an hour. Copy to BASE/jupyterhub_config.d, then: systemctl restart barehub-hub

# append, in every file: an assignment would drop what other files have added.
c.JupyterHub.services.append(
    {
        "name": "idle-culler",
        "command": ["jupyterhub-idle-culler", "--timeout=3600", "--cull-every=300"],
        "environment": {"PYTHONNOUSERSITE": "1"},  # the hub's environment alone, whatever is in its account's ~/.local
    }
)
c.JupyterHub.load_roles.append(
    {
        "name": "idle-culler",
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        "services": ["idle-culler"],
    }
)
