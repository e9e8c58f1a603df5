"""Every port of an installation: those that it chooses itself, and whether all of them go together."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from barehub.errors import UserError
from barehub.layout import Layout
from barehub.proxy_unit.sockets import read_addresses
from barehub.systemd import MARK
from barehub.urls import WILDCARDS

# JupyterHub's and jupyterhub-traefik-proxy's defaults, on 127.0.0.1, by the setting that replaces them.
HUB, API = "c.JupyterHub.hub_port", "c.TraefikProxy.traefik_api_url"
INTERNAL_PORTS = {HUB: 8081, API: 8099}


def internal_lines(layout: Layout, bind_url: str | None, say: Callable[[str], None]) -> dict[str, object]:
    """Return the settings that replace internal ports in use by the next free ones.

    In use is what listens, what people are to reach at `bind_url`, what another installation on this machine has, and
    what this one has chosen.
    """
    reserved = reserved_ports(layout, bind_url)
    lines: dict[str, object] = {}
    for setting, usual in INTERNAL_PORTS.items():
        port = next(one for one in range(usual, usual + 1000) if one not in reserved and port_is_free(one))
        reserved.add(port)
        if port != usual:
            say(f"port {usual} is taken on 127.0.0.1; using {port} instead")
            lines[setting] = port if setting == HUB else f"http://127.0.0.1:{port}"
    return lines


def reserved_ports(layout: Layout, bind_url: str | None) -> set[int]:
    """Return the ports that are others': those that people reach, and those of other installations."""
    return public_ports(bind_url) | {port for other in other_installations(layout) for port in ports_of(other)}


def public_ports(bind_url: str | None) -> set[int]:
    """Return the ports that people reach: bind_url's, and with HTTPS at 443 that of the redirect to it."""
    parts = urlsplit(bind_url or "")
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    port = parts.port or usual
    return {port, 80} if port == 443 else {port} if port else set()


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return True if a server could listen on this port of a host; for an empty one, of all addresses."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def other_installations(layout: Layout) -> list[Layout]:
    """Return the other installations on this machine, running or not, by their units."""
    found = []
    for place in sorted(layout.system_units.glob("*-proxy.service")):
        text = place.read_text(errors="replace") if place.is_file() else ""
        base = re.search(r"^RequiresMountsFor=(.+)$", text, re.MULTILINE)
        if MARK in text and base and Path(base[1]) != layout.base:
            found.append(Layout(Path(base[1]), root=layout.root))
    return found


def ports_of(other: Layout) -> Iterator[int]:
    """Yield the ports of an installation, as far as its files tell."""
    options = other.installer_config.read_text(errors="replace") if other.installer_config.is_file() else ""
    chosen = re.search(rf"^{re.escape(HUB)} *= *(\d+)", options, re.MULTILINE)
    yield int(chosen[1]) if chosen else INTERNAL_PORTS[HUB]
    try:
        addresses = read_addresses(other.static_config).values()
    except UserError:
        return
    yield from (int(address.rpartition(":")[2]) for address in addresses)


def require_apart(addresses: dict[str, str]) -> None:
    """Check that no two of these, what listens -> `host:port`, are the same address. Raises UserError if they are."""
    seen: list[tuple[str, str, str]] = []
    for what, address in addresses.items():
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        for other, there, taken in seen:
            if port == taken and (host == there or host in WILDCARDS or there in WILDCARDS):
                raise UserError(
                    f"{other} and {what} are both to listen on port {port}", "give one of them another port"
                )
        seen.append((what, host, port))
