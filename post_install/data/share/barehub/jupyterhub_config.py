"""The base configuration of every barehub, part of the release: an upgrade replaces it.

Your own settings belong in BASE/jupyterhub_config.d/*.py, which is loaded at the end and has the last word.
"""

import sys
from pathlib import Path

from barehub.config import CONFIG_EXIT, ConfigError, load_files
from barehub.layout import Layout
from barehub.lifecycle.database import own_database
from barehub.lifecycle.servers import register_service
from barehub.proxy_unit.certificates import find_authorities

layout = Layout.from_environment()

# What must outlive a release is in BASE/state; what must be private, in a directory that only the hub's account enters.
c.JupyterHub.db_url = f"sqlite:///{own_database(layout)}"
c.JupyterHub.cookie_secret_file = str(layout.cookie_secret)

# systemd runs the proxy; it keeps serving while the hub restarts.
c.JupyterHub.proxy_class = "barehub.proxy.BarehubProxy"
# A restart of the hub ends no user's server.
c.JupyterHub.cleanup_servers = False

find_authorities()

try:
    load_files(layout, c, load_subconfig)
except ConfigError as error:
    if Path(sys.argv[0]).name != "jupyterhub":  # barehub's own commands say it themselves
        raise
    print(f"error: {error}\n  fix: {error.fix}", file=sys.stderr)
    sys.exit(CONFIG_EXIT)
register_service(layout, c)
