# Numbers for Prometheus: the hub's at /hub/metrics, the proxy's at traefik's API, which only this machine reaches.
# Copy to BASE/jupyterhub_config.d and make the token, which is in a file of its own beside this one:
#   (umask 077; openssl rand -hex 32 >BASE/jupyterhub_config.d/metrics-token)
#   systemctl restart barehub-proxy barehub-hub
# If the hub does not run as root, its group has to read it: chown root:HUB_GROUP metrics-token; chmod 640 metrics-token
from barehub.secret import read_secret

token = read_secret("metrics-token")

# It may read numbers and nothing else: no users' names, no servers.
# append, in every file: an assignment would drop what other files have added.
c.JupyterHub.services.append({"name": "metrics", "api_token": token})
c.JupyterHub.load_roles.append({"name": "metrics", "scopes": ["read:metrics"], "services": ["metrics"]})

# Any account of this machine can connect to traefik's API, so they have a password: the same. The user is `metrics`.
c.BarehubProxy.metrics_password = token
