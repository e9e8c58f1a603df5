"""The ports at which hub and traefik's API listen: such that no other account can take them while these restart.

From 1024 on any account may listen at a port that is free, and who has the hub's gets its users' passwords and their
servers' tokens. Below, that takes root, or the one capability that the hub's unit has.

An installation from before keeps its port while users' servers run: each knows the hub's address by its environment,
and goes on sending its token there. The port moves in a run of the installer that finds none. The route to the hub
moves first, so that the proxy sends nobody to the old port after the hub has left it. A hub that other machines reach
keeps its port as well, since there may be firewalls; `barehub status` says so.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from barehub import systemd
from barehub.config import code_of, config_files
from barehub.errors import Exit, UserError
from barehub.health import Endpoints
from barehub.layout import Layout
from barehub.lifecycle.ports import API, HUB, port_is_free, reserved_ports
from barehub.listeners import anyone_may_listen
from barehub.process import attempt_as
from barehub.settings import Installation, Settings

# IANA has assigned none of these. From 512 on, NFS and rresvport(3) take ports for connections of their own.
SAFE = range(334, 344)
CAPABILITY = "CAP_NET_BIND_SERVICE"
ADDRESSES = ("hub_ip", "hub_port", "hub_bind_url", "hub_connect_url")  # traits that say where


def choose(layout: Layout, bind_url: str | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the traits for ports that are safe, free, and nobody else's. Raises UserError if there are none."""
    reserved = reserved_ports(layout, bind_url)
    free = [port for port in SAFE if port not in reserved and port_is_free(port, "")][:2]
    if len(free) < 2:
        what = f"fewer than two of the ports {SAFE[0]} to {SAFE[-1]} are free"
        raise UserError(what, f"see who has them: ss -ltn 'sport >= :{SAFE[0]} and sport <= :{SAFE[-1]}'", Exit.PORTS)
    say(f"hub and traefik's API listen at ports {free[0]} and {free[1]}, which no other account can take")
    return {HUB: free[0], API: f"http://127.0.0.1:{free[1]}"}


def chosen_elsewhere(layout: Layout) -> list[str]:
    """Return the configuration files, other than the installer's, that seem to say where the hub listens."""
    files = [path for path in config_files(layout) if path != layout.installer_config]
    return [str(path) for path in files if any(name in line for line in code_of(path) for name in ADDRESSES)]


def may_move(layout: Layout, endpoints: Endpoints) -> bool:
    """Return True if any account can take the port of the hub, and the installer may change it: as root, it may.

    A hub that other machines reach, or are told to reach, stays where it is.
    """
    if os.geteuid() != 0 or not endpoints.only_here:
        return False
    return anyone_may_listen(urlsplit(endpoints.hub).port or 80) and not chosen_elsewhere(layout)


def can_listen(settings: Settings) -> bool:
    """Return False if somebody has taken from the hub's unit the capability that a safe port needs."""
    kept = systemd.property_of(settings.hub_unit, "CapabilityBoundingSet").upper()
    return "CAP_" not in kept or CAPABILITY in kept


def warning(installation: Installation, endpoints: Endpoints) -> str:
    """Return what is wrong with the hub's port, and what to do; nothing if all is well."""
    layout, settings = installation.layout, installation.settings
    port = urlsplit(endpoints.hub).port or 80
    if os.geteuid() != 0 or not (layout.system_units / settings.hub_unit).exists() or not anyone_may_listen(port):
        return ""  # all ports of an ordinary user's hub are of that kind
    what = f"any account can take the hub's port {port} while the hub restarts, and then gets passwords"
    if not anyone_may_listen(SAFE[-1]) and may_move(layout, endpoints):
        return f"{what}: run the installer again when no user's server runs, and it moves the hub to a safe port"
    if anyone_may_listen(SAFE[-1]):
        return f"{what}: see sysctl net.ipv4.ip_unprivileged_port_start"
    files = ", ".join(chosen_elsewhere(layout)) or str(layout.installer_config)
    return (
        f"{what}: set {HUB} = {SAFE[0]} in {files} when no user's server runs, with firewalls open for it; "
        f"then systemctl restart {settings.hub_unit}"
    )


def move_route(installation: Installation, old: str, new: str) -> bool:
    """Let the proxy expect the hub at another URL. Returns False if the rules could not be changed.

    As the hub's account, whose directory that is.
    """
    order = json.dumps({"path": str(installation.layout.rules_file), "old": old, "new": new})
    worker = (sys.executable, "-I", "-m", "barehub.rules")
    return attempt_as(installation.settings.hub_user, *worker, text=order).returncode == 0


def must_go_back(installation: Installation, release: str, endpoints: Endpoints) -> bool:
    """Return True if the hub of a release could not listen at the port that is configured."""
    if installation.settings.hub_user == "root" or anyone_may_listen(urlsplit(endpoints.hub).port or 80):
        return False
    units = installation.layout.release(release).glob("lib/python3*/site-packages/barehub/units/hub.service")
    return not any(CAPABILITY in unit.read_text() for unit in units)
