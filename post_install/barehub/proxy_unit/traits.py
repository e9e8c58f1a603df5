"""The proxy as a hub's traits describe it: the object, whether they fit together, and where its certificate comes from.

For a process that runs the configuration (barehub.evaluation).
"""

from typing import Any
from urllib.parse import urlsplit

from barehub.config import ConfigError
from barehub.layout import Layout
from barehub.proxy_unit.renewal import Source
from barehub.urls import WILDCARDS, bind_url


def make_proxy(layout: Layout, hub: Any) -> Any:
    """Return the BarehubProxy that a hub (`config.load_hub`) would have, not started.

    Raises ConfigError if it has another proxy, or if what its traits say about HTTPS does not fit together.
    """
    from traitlets import TraitError

    from barehub.proxy import BarehubProxy

    if not issubclass(hub.proxy_class, BarehubProxy):
        raise ConfigError(
            f"c.JupyterHub.proxy_class is {hub.proxy_class.__name__}, which the proxy's unit does not run",
            "use barehub.proxy.BarehubProxy or a class derived from it, or disable the unit",
        )
    try:
        proxy = hub.proxy_class(
            parent=hub,
            app=hub,  # extra_routes depend on its subdomain_host
            public_url=bind_url(hub),
            ssl_cert=hub.ssl_cert,
            ssl_key=hub.ssl_key,
            should_start=True,  # else the object begins to talk to traefik
        )
    except (TraitError, ValueError) as error:
        raise ConfigError(f"the proxy cannot be configured: {error}", f"look in {layout.config}") from error
    check_https(hub, proxy)
    return proxy


def check_https(hub: Any, proxy: Any) -> None:
    """Raises ConfigError if what the traits say about HTTPS does not fit together."""
    files = [name for name in ("ssl_cert", "ssl_key") if getattr(hub, name)]
    if proxy.acme_email and files:
        raise ConfigError(f"acme_email and {files[0]} are both set", "keep the one that is meant")
    if proxy.acme_email and not proxy.is_https:
        raise ConfigError(f"acme_email is set, but bind_url is {proxy.public_url}", "give bind_url an https URL")
    for name in files:
        if not getattr(hub, name).startswith("/"):
            raise ConfigError(f"{name} is {getattr(hub, name)}, which depends on who reads it", "give the whole path")
    if files == ["ssl_key"] and not proxy.is_https:
        raise ConfigError("ssl_key is set without ssl_cert", "set c.JupyterHub.ssl_cert too, or neither")
    if proxy.is_https and not proxy.acme_email and len(files) != 2:
        raise ConfigError(
            f"{bind_url(hub)} needs a certificate",
            "set c.JupyterHub.ssl_cert and c.JupyterHub.ssl_key, or c.BarehubProxy.acme_email",
        )


def source_of(hub: Any, proxy: Any) -> Source:
    """Return where the certificate comes from, by the traits of a hub and its proxy."""
    if proxy.acme_email:
        return Source(names=tuple(proxy.acme_domains))
    host = urlsplit(proxy.public_url).hostname or ""
    return Source(hub.ssl_cert, hub.ssl_key, () if host in WILDCARDS else (host,))
