"""What bind_url says: where people reach the hub, and where the proxy listens."""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

WILDCARDS = ("", "0.0.0.0", "::", "*")  # noqa: S104 - compared with, not bound to


def bind_url(hub: Any) -> str:
    """bind_url as it was written: JupyterHub takes https for http where there is no ssl_cert, as with ACME."""
    written = str(hub.config.JupyterHub.get("bind_url", ""))
    return hub.bind_url.replace("http:", "https:", 1) if written.startswith("https:") else hub.bind_url


def listening(url: str) -> str:
    """The URL with the address to listen on, which an https one's host name is not: all addresses then.

    Such a name is what people and the certificate call this machine. It may lead to a load balancer, or, by
    /etc/hosts, to 127.0.1.1.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" or host in WILDCARDS or host == "localhost" or is_address(host):
        return url
    return f"https://:{parts.port or 443}{parts.path}"


def address(url: str) -> str:
    """An entrypoint's address, `host:port`, for a URL with a port; without a host, all addresses."""
    parts = urlsplit(url)
    host = "" if parts.hostname in (None, "*") else parts.hostname
    return f"{bracketed(host)}:{parts.port}"


def bracketed(host: str) -> str:
    """An IPv6 address in brackets, anything else as it is (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def is_address(host: str) -> bool:
    """True for an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
