"""What follows from bind_url: where people reach the hub, and where the proxy listens."""

import ipaddress
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from barehub.errors import UserError

WILDCARDS = ("", "0.0.0.0", "::", "*")  # noqa: S104 - compared with, not bound to
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def bind_url(hub: Any) -> str:
    """Return bind_url as written: without ssl_cert, as with ACME, JupyterHub turns https into http."""
    written = str(hub.config.JupyterHub.get("bind_url", ""))
    url = str(hub.bind_url)
    return url.replace("http:", "https:", 1) if written.startswith("https:") else url


def parsed(trait: str, url: str) -> SplitResult:
    """Return the parts of a URL that a trait holds. Raises UserError if nothing can be reached there over TCP."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        usable = False
    if not usable:
        verb = "is" if trait.endswith("_url") else "makes the URL"
        what = f"c.JupyterHub.{trait} {verb} {url!r}, which is no address that the proxy can use"
        raise UserError(what, f"set c.JupyterHub.{trait} for a URL like http://127.0.0.1:8000")
    return parts


def listening(url: str) -> str:
    """Return the URL with the address to listen on: for https with a host name, all addresses.

    Such a name is what people and the certificate call this machine. It may resolve to a load balancer or, by
    /etc/hosts, to 127.0.1.1.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" or host in WILDCARDS or host == "localhost" or is_address(host):
        return url
    return f"https://:{parts.port or 443}{parts.path}"


def address(url: str) -> str:
    """Return an entrypoint's address, `host:port`, for a URL with a port; without a host, all addresses."""
    parts = urlsplit(url)
    host = "" if parts.hostname in (None, "*") else str(parts.hostname)
    return f"{bracketed(host)}:{parts.port}"


def bracketed(host: str) -> str:
    """Return an IPv6 address in brackets, anything else unchanged (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def at_port(url: str, port: int) -> str:
    """Return a URL with another port, and without a user."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{bracketed(parts.hostname or '')}:{port}"))


def is_address(host: str) -> bool:
    """Return True for an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
