"""A site with HTTPS: its certificate files, its configurations, and what its proxy and its status say."""

import json

import pytest

from tests.machines import pebble
from tests.machines.authority import Pair
from tests.machines.https_client import NAME, served
from tests.machines.hub_client import BAREHUB, HUB, PROXY, let_users_in
from tests.machines.machine import Machine

ALIAS = "alias.example.org"
CONFIG = "/opt/barehub/jupyterhub_config.d/60-https.py"
INSTALLED = "/opt/barehub/jupyterhub_config.d/10-install.py"
LIVE, ARCHIVE = "/etc/letsencrypt/live/hub", "/etc/letsencrypt/archive/hub"
CERTIFICATES = "barehub-certificates.service"

FILES = f"""
c.JupyterHub.bind_url = "https://{NAME}"
c.JupyterHub.ssl_cert, c.JupyterHub.ssl_key = "{LIVE}/fullchain.pem", "{LIVE}/privkey.pem"
c.BarehubProxy.acme_email = ""
"""
ACME = f"""
c.JupyterHub.ssl_cert = c.JupyterHub.ssl_key = ""
c.JupyterHub.bind_url = "https://{NAME}"
c.BarehubProxy.acme_email = "admin@example.org"
c.BarehubProxy.acme_ca_server = "{pebble.DIRECTORY}"
c.BarehubProxy.acme_ca_bundle = "{pebble.BUNDLE}"
"""


def install(machine: Machine, cert: str, key: str) -> str:
    """Install /mnt/barehub.sh with these certificate files; what the installer printed."""
    machine.succeed("mkdir", "-p", LIVE, ARCHIVE)
    machine.succeed("chmod", "700", "/etc/letsencrypt/live", "/etc/letsencrypt/archive")
    give(machine, cert, key, 1)
    files = ("--tls-cert", f"{LIVE}/fullchain.pem", "--tls-key", f"{LIVE}/privkey.pem")
    output = machine.succeed("sh", "/mnt/barehub.sh", "-b", "--bind-url", f"https://{NAME}", *files)
    let_users_in(machine)
    return output


def give(machine: Machine, cert: str, key: str, number: int) -> None:
    """Make these the certificate files, as certbot does: new files, then links to them are renamed."""
    machine.write(f"{ARCHIVE}/fullchain{number}.pem", cert)
    machine.write(f"{ARCHIVE}/privkey{number}.pem", key, 0o600)
    for name in ("privkey", "fullchain"):
        machine.succeed("ln", "-sfn", f"../../archive/hub/{name}{number}.pem", f"{LIVE}/{name}.new")
        machine.succeed("mv", "-T", f"{LIVE}/{name}.new", f"{LIVE}/{name}.pem")


def restart(machine: Machine, config: str | None = None) -> None:
    if config is not None:
        machine.write(CONFIG, config)
    machine.succeed("systemctl", "restart", PROXY, HUB)


def status(machine: Machine) -> dict:
    return json.loads(machine.run(BAREHUB, "status", "--json").stdout)


def journal(machine: Machine, unit: str = PROXY) -> str:
    """What a unit has logged in its latest run."""
    run = f"_SYSTEMD_INVOCATION_ID={machine.unit(unit, 'InvocationID')}"
    machine.succeed("journalctl", "--sync")  # a unit can be active before what it has printed is there
    return machine.succeed("journalctl", "--no-pager", "--output=cat", run)


def wait_until_served(machine: Machine, pair: Pair) -> None:
    for _ in range(400):
        if served(machine).serial_number == pair.serial:
            return
    pytest.fail(f"another certificate is served: {machine.run(BAREHUB, 'status').stdout}")


def options_of(installed: str) -> list[str]:
    """The lines of 10-install.py that come from options: neither its first one nor the ports that it chose."""
    return [line for line in installed.splitlines()[1:] if "hub_port" not in line and "traefik_api_url" not in line]
