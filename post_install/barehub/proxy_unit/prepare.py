"""What the proxy needs from root before it starts: its static configuration, its sockets, its certificate.

The static configuration is derived from JupyterHub's traits.

Runs as root, as the hub does, and executes the same configuration files. If they are broken, or ask for addresses or
certificates that are not to be had, it reports that and keeps the last valid static configuration, so that a restart of
the proxy does not take the service down with it.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from barehub.config import ConfigError, load_hub
from barehub.errors import UserError, render
from barehub.layout import Layout
from barehub.process import write_atomically
from barehub.proxy_unit import acme
from barehub.proxy_unit.certificates import expiry_of
from barehub.proxy_unit.renewal import Source, copy_files
from barehub.proxy_unit.sockets import Addresses, addresses_of, read_addresses, store_doors
from barehub.proxy_unit.static import Config, as_text, static_config
from barehub.urls import WILDCARDS, bind_url


def main() -> int:
    # JupyterHub imports jsonschema, which builds the grammars of rfc3987_syntax if it is there: more than half of the
    # import's time, while clients wait for the proxy to restart. It validates nothing here.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # the import system's way to say "not found"
    layout = Layout.from_environment()
    before = last_addresses(layout)
    wanted: Addresses = {}
    try:
        hub = load_hub(layout)
        proxy = make_proxy(layout, hub)
        config = static_config(layout, proxy)
        source = prepare(layout, hub, proxy, say=lambda warning: print(f"warning: {warning}", file=sys.stderr))
        wanted = addresses_of(config)
        ensure_doors(wanted, before)
        write(layout, config, source)
    except UserError as error:
        print(render(error), file=sys.stderr)
        if not before:
            return 1
        print(f"the proxy goes on with its last configuration, {layout.static_config}", file=sys.stderr)
        try:
            ensure_doors(before, wanted or before)
        except UserError as error:
            print(render(error), file=sys.stderr)
            return 1
    return 0


def last_addresses(layout: Layout) -> Addresses:
    """Return where the last valid static configuration listens; nowhere if there is none."""
    try:
        return read_addresses(layout.static_config)
    except UserError:
        return {}


def ensure_doors(wanted: Addresses, before: Addresses) -> None:
    """Let systemd keep listening sockets for each address. Raises UserError if one cannot be had.

    Here, since it takes root: for ports below 1024, and so that no other account can share them.
    """
    if "NOTIFY_SOCKET" in os.environ:
        store_doors(wanted, before)


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
    if proxy.is_https and not proxy.acme_email and len(files) != 2:
        raise ConfigError(
            f"{bind_url(hub)} needs a certificate",
            "set c.JupyterHub.ssl_cert and c.JupyterHub.ssl_key, or c.BarehubProxy.acme_email",
        )


def prepare(layout: Layout, hub: Any, proxy: Any, *, say: Callable[[str], None]) -> Source | None:
    """Put what traefik needs for HTTPS where it can read it; return where the certificate comes from.

    `say` gets what is wrong but stops nothing. Raises UserError if there is no certificate that could be served.
    """
    if not proxy.is_https:
        return None
    source = source_of(hub, proxy)
    if not source.cert:
        for warning in (*acme.keep_store(layout, running=False), *acme.check_environment(layout)):
            say(warning)
        if proxy.acme_ca_bundle:
            acme.copy_bundle(layout, proxy.acme_ca_bundle)
        return source
    try:
        for warning in copy_files(layout, source):
            say(warning)
    except UserError as error:
        if expiry_of(layout.certificate) is None:
            raise
        print(f"{render(error)}\nthe proxy goes on with the certificate it has", file=sys.stderr)
    return source


def source_of(hub: Any, proxy: Any) -> Source:
    """Return where the certificate comes from, by the traits of a hub and its proxy."""
    if proxy.acme_email:
        return Source(names=tuple(proxy.acme_domains))
    host = urlsplit(proxy.public_url).hostname or ""
    source = Source(hub.ssl_cert, hub.ssl_key, () if host in WILDCARDS else (host,))
    return replace(source, seen=source.digest)


def write(layout: Layout, config: Config, source: Source | None = None) -> None:
    """Write the static configuration, for root and the proxy's group; and where the certificate comes from."""
    group = layout.proxy_state.stat().st_gid
    write_atomically(layout.static_config, as_text(config), 0o640, (-1, group))
    if source:
        source.save(layout)
    else:
        layout.certificate_source.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
