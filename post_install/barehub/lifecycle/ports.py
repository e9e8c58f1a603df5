"""The ports at which hub and traefik's API listen: such that no other account can take them while these restart.

From 1024 on any account may listen at a port that is free, and who has the hub's gets its users' passwords and their
servers' tokens. Below, that takes root, or the one capability that the hub's unit has.

An installation from before keeps its port while users' servers run: each knows the hub's address by its environment,
and goes on sending its token there. The port moves in a run of the installer that finds none. The route to the hub
moves first, so that the proxy sends nobody to the old port after the hub has left it. A hub that other machines reach
keeps its port as well, since there may be firewalls; `barehub status` says so.
"""

import json
import socket
import sys
from typing import Any

from barehub import accounts
from barehub.config import config_files
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.listeners import anyone_may_listen
from barehub.process import attempt_as
from barehub.settings import Installation

# IANA has assigned none of these. From 512 on, NFS and rresvport(3) take ports for connections of their own.
SAFE = range(334, 344)
HUB_PORT, API_URL = "c.JupyterHub.hub_port", "c.TraefikProxy.traefik_api_url"
CAPABILITY = "CAP_NET_BIND_SERVICE"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
ADDRESSES = ("hub_port", "hub_bind_url", "hub_connect_url")  # traits that hold the port


def is_free(port: int) -> bool:
    """Return True if a server could listen at this port of any address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def choose() -> dict[str, Any]:
    """Return the traits for ports that are safe and free. Raises UserError if there are none."""
    free = [port for port in SAFE if is_free(port)][:2]
    if len(free) < 2:
        what = f"fewer than two of the ports {SAFE[0]} to {SAFE[-1]} are free"
        raise UserError(what, f"see who has them: ss -ltn 'sport >= :{SAFE[0]} and sport <= :{SAFE[-1]}'", Exit.PORTS)
    return {HUB_PORT: free[0], API_URL: f"http://127.0.0.1:{free[1]}"}


def chosen_elsewhere(layout: Layout) -> list[str]:
    """Return the configuration files, other than the installer's, that say where the hub listens."""
    files = [path for path in config_files(layout) if path != layout.installer_config]
    return [str(path) for path in files if any(name in path.read_text(errors="replace") for name in ADDRESSES)]


def may_move(layout: Layout, hub: Any) -> bool:
    """Return True if any account can take the port of a hub (`config.load_hub`), and the installer may change it."""
    free_to = hub.hub_ip in LOOPBACK and not hub.hub_bind_url and not chosen_elsewhere(layout)
    return anyone_may_listen(hub.hub_port) and free_to


def warning(installation: Installation, hub: Any) -> str:
    """Return what is wrong with the hub's port, and what to do; nothing if all is well."""
    layout, settings = installation.layout, installation.settings
    if not (layout.system_units / settings.hub_unit).exists() or not anyone_may_listen(hub.hub_port):
        return ""
    what = f"any account can take the hub's port {hub.hub_port} while the hub restarts, and then gets passwords"
    if not anyone_may_listen(SAFE[-1]) and may_move(layout, hub):
        return f"{what}: run the installer again when no user's server runs, and it moves the hub to a safe port"
    if anyone_may_listen(SAFE[-1]):
        return f"{what}: see sysctl net.ipv4.ip_unprivileged_port_start"
    files = ", ".join(chosen_elsewhere(layout)) or str(layout.installer_config)
    return (
        f"{what}: set {HUB_PORT} = {SAFE[0]} in {files} when no user's server runs, with firewalls open for it; "
        f"then systemctl restart {settings.hub_unit}"
    )


def move_route(installation: Installation, old: str, new: str) -> bool:
    """Let the proxy expect the hub at another URL. Returns False if the rules could not be changed.

    As the hub's account, whose directory that is.
    """
    uid, gid = accounts.ids(installation.settings.hub_user)
    order = json.dumps({"path": str(installation.layout.rules_file), "old": old, "new": new})
    return attempt_as(uid, gid, sys.executable, "-I", "-m", "barehub.rules", text=order).returncode == 0


def must_go_back(installation: Installation, release: str, hub: Any) -> bool:
    """Return True if the hub of a release could not listen at the port that is configured."""
    if installation.settings.hub_user == "root" or anyone_may_listen(hub.hub_port):
        return False
    units = installation.layout.release(release).glob("lib/python3*/site-packages/barehub/units/hub.service")
    return not any(CAPABILITY in unit.read_text() for unit in units)
