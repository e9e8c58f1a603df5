"""The base configuration of every barehub, part of the release: an upgrade replaces it.

Your own settings belong in BASE/jupyterhub_config.d/*.py. They are loaded last and override these.
"""

import logging
import sys
from pathlib import Path

from barehub.config import CONFIG_EXIT, PROXY_CLASS, ConfigError, NoNoise, OneLine, load_files
from barehub.errors import PrintableRecord, render
from barehub.layout import Layout
from barehub.lifecycle.database import own_database
from barehub.lifecycle.servers import register_service
from barehub.logins import keep_sssd_loaded, require_local_account
from barehub.maintenance import close_during_maintenance
from barehub.notices import register_announcement
from barehub.proxy_unit.certificates import find_authorities

layout = Layout.from_environment()
logging.setLogRecordFactory(PrintableRecord)

# What must outlive a release is in BASE/state; what must be private, in a directory only the hub's account can enter.
c.JupyterHub.db_url = f"sqlite:///{own_database(layout)}"
c.JupyterHub.cookie_secret_file = str(layout.cookie_secret)

# systemd runs the proxy, which keeps serving while the hub restarts.
c.JupyterHub.proxy_class = PROXY_CLASS
# A restart of the hub stops no user's server, and the default spawner finds each of them again, and nothing else.
c.JupyterHub.cleanup_servers = False
c.JupyterHub.spawner_class = "barehub.local_spawner.KnownProcessSpawner"
# A user without an account on this machine is told so.
c.Spawner.pre_spawn_hook = require_local_account
keep_sssd_loaded()

# Pages of ours; a site's own come before them: c.JupyterHub.template_paths.insert(0, DIRECTORY)
c.JupyterHub.template_paths = [str(layout.share / "templates")]

find_authorities()

try:
    load_files(layout, c, load_subconfig)
except ConfigError as error:
    if Path(sys.argv[0]).name != "jupyterhub":  # barehub's own commands print it themselves
        raise
    print(render(error), file=sys.stderr)
    sys.exit(CONFIG_EXIT)
register_service(layout, c)
register_announcement(layout, c)
close_during_maintenance(layout)
# With DEBUG, what keeps the hub from starting has its traceback, and each scrape a line. The second and the third log
# are JupyterHub's of requests, and of what it says besides.
if c.JupyterHub.get("log_level", c.Application.get("log_level")) not in ("DEBUG", logging.DEBUG):
    logging.getLogger("JupyterHub").addFilter(OneLine())
    logging.getLogger("tornado.access").addFilter(NoNoise())
    logging.getLogger("tornado.application").addFilter(NoNoise())
