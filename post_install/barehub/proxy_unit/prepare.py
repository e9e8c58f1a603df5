"""What the proxy needs of root before it starts: its static configuration and its sockets.

The static configuration is derived from JupyterHub's traits.

Runs as root, as the hub does, and executes the same configuration files. If they are broken, or ask for addresses or
certificates that cannot be had, it says so and keeps the last good static configuration, so that a restart of the proxy
does not take the service down with it.
"""

import copy
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from barehub.config import ConfigError, load_hub
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.process import write_atomically
from barehub.proxy_unit import acme, certificates
from barehub.proxy_unit.certificates import Source
from barehub.proxy_unit.sockets import Addresses, addresses_of, read_addresses, store_doors
from barehub.urls import WILDCARDS, address, bind_url, bracketed, listening

Config = dict[str, Any]

# Not all of a request's life is bounded: uploads and downloads may take hours, and so may a websocket.
TRANSPORT: Config = {
    "respondingTimeouts": {"readTimeout": "0s", "writeTimeout": "0s", "idleTimeout": "10m"},
    # On a stop new connections wait in the kernel, so it is short: traefik goes on for a moment, so that what it has
    # just accepted is answered, then gives requests a little to end. Where there are websockets that is always used up.
    "lifeCycle": {"requestAcceptGraceTimeout": "200ms", "graceTimeOut": "2s"},
}
HTTP: Config = {
    # X_Forwarded_For is X-Forwarded-For to a WSGI application behind jupyter-server-proxy.
    "aliasHeadersStrategy": "delete",
    # What file names may hold reaches the servers as it was sent; their paths are theirs to check. Spelled out, since
    # traefik's defaults changed twice within 3.6.
    "encodedCharacters": {
        "allowEncodedSlash": True,
        "allowEncodedBackSlash": True,
        "allowEncodedNullCharacter": False,
        "allowEncodedSemicolon": True,
        "allowEncodedPercent": True,
        "allowEncodedQuestionMark": True,
        "allowEncodedHash": True,
    },
}


def main() -> int:
    # JupyterHub imports jsonschema, which builds the grammars of rfc3987_syntax if it is there: more than half of the
    # import's time, while clients wait for the proxy to restart. No validation of theirs happens here.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    layout = Layout.from_environment()
    before = last(layout)
    wanted: Addresses = {}
    try:
        hub = load_hub(layout)
        config = static_config(layout, hub)
        source = prepare(layout, hub, say=lambda warning: print(f"warning: {warning}", file=sys.stderr))
        wanted = addresses_of(config)
        open_doors(wanted, before)
        write(layout, config, source)
    except UserError as error:
        complain(error)
        if not before:
            return 1
        print(f"the proxy goes on with its last configuration, {layout.static_config}", file=sys.stderr)
        try:
            open_doors(before, wanted or before)
        except UserError as error:
            complain(error)
            return 1
    return 0


def complain(error: UserError) -> None:
    print(f"error: {error}" + (f"\n  fix: {error.fix}" if error.fix else ""), file=sys.stderr)


def last(layout: Layout) -> Addresses:
    """Where the last good static configuration listens; nowhere if there is none."""
    try:
        return read_addresses(layout.static_config)
    except UserError:
        return {}


def open_doors(wanted: Addresses, before: Addresses) -> None:
    """Have systemd keep a listening socket for each address. Raises UserError if one cannot be had.

    Here, since it takes root: for ports below 1024, and so that no other account can share them.
    """
    if "NOTIFY_SOCKET" in os.environ:
        store_doors(wanted, before)


def prepare(layout: Layout, hub: Any, *, say: Callable[[str], None]) -> Source | None:
    """Have what traefik needs for HTTPS where it can read it; return where the certificate comes from.

    `say` gets what is wrong but can be lived with. Raises UserError if there is no certificate that could be served.
    """
    proxy = make_proxy(layout, hub)
    if not proxy.is_https:
        return None
    source = source_of(hub, proxy)
    if not source.cert:
        for warning in (*acme.keep_store(layout, running=False), *acme.look_at_environment(layout)):
            say(warning)
        if proxy.acme_ca_bundle:
            acme.take_bundle(layout, proxy.acme_ca_bundle)
        return source
    try:
        for warning in certificates.take(layout, source):
            say(warning)
    except UserError as error:
        if certificates.expiry(layout) is None:
            raise
        complain(error)
        print("the proxy goes on with the certificate it has", file=sys.stderr)
    return source


def source_of(hub: Any, proxy: Any) -> Source:
    """Where the certificate comes from, by the hub's traits and those of its proxy."""
    if proxy.acme_email:
        return Source(names=tuple(proxy.acme_domains))
    host = urlsplit(proxy.public_url).hostname or ""
    source = Source(hub.ssl_cert, hub.ssl_key, () if host in WILDCARDS else (host,))
    return replace(source, seen=source.digest)


def static_config(layout: Layout, hub: Any) -> Config:
    """traefik's static configuration for a JupyterHub application object (`config.load_hub`), not started.

    https://doc.traefik.io/traefik/reference/install-configuration/configuration-options/
    Raises ConfigError where the traits ask for what traefik cannot do.
    """
    from jupyterhub_traefik_proxy.traefik_utils import deep_merge

    proxy = make_proxy(layout, hub)
    check_https(hub, proxy)
    public, api = (
        {"address": address(url), "transport": copy.deepcopy(TRANSPORT), "http": copy.deepcopy(HTTP)}
        for url in (listening(proxy.public_url), proxy.traefik_api_url)
    )
    if proxy.trusted_networks:
        public["forwardedHeaders"] = {"trustedIPs": list(proxy.trusted_networks)}
    config: Config = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        # No access log: there are tokens in URLs.
        "log": {"level": proxy.traefik_log_level or "WARN", "noColor": True},
        "api": {"dashboard": False},
        "entryPoints": {proxy.traefik_entrypoint: public, proxy.traefik_api_entrypoint: api},
        "providers": {
            # The hub gathers changes itself; a throttle here would only delay the next one, and the stop.
            "providersThrottleDuration": proxy.traefik_providers_throttle_duration,
            # A directory: a file that is not there when traefik starts would be an error.
            "file": {"directory": str(layout.rules), "watch": True},
        },
    }
    if proxy.is_https:
        # On the entrypoint: the hub's routers carry no TLS. A certificate from files is in the rules, by its path.
        public["http"]["tls"] = {"options": "default"}
        if proxy.http_redirect_port:
            config["entryPoints"][acme.REDIRECT] = redirect = copy.deepcopy(public)
            host = urlsplit(listening(proxy.public_url)).hostname or ""
            redirect["address"] = address(f"http://{bracketed(host)}:{proxy.http_redirect_port}")
            del redirect["http"]["tls"]
            target = {"to": proxy.traefik_entrypoint, "scheme": "https", "permanent": True}
            redirect["http"]["redirections"] = {"entryPoint": target}
        if proxy.acme_email:
            name, resolver = acme.resolver(layout, proxy)
            config["certificatesResolvers"] = {name: resolver}
            main, *others = proxy.acme_domains
            public["http"]["tls"] |= {"certResolver": name, "domains": [{"main": main, "sans": others}]}
    return deep_merge(config, proxy.extra_static_config)


def make_proxy(layout: Layout, hub: Any) -> Any:
    """The BarehubProxy that a hub would have, not started. Raises ConfigError if it has another one."""
    from traitlets import TraitError

    from barehub.proxy import BarehubProxy

    if not issubclass(hub.proxy_class, BarehubProxy):
        raise ConfigError(
            f"c.JupyterHub.proxy_class is {hub.proxy_class.__name__}, which the proxy's unit does not run",
            "use barehub.proxy.BarehubProxy or a class derived from it, or disable the unit",
        )
    try:
        return hub.proxy_class(
            parent=hub,
            public_url=bind_url(hub),
            ssl_cert=hub.ssl_cert,
            ssl_key=hub.ssl_key,
            should_start=True,  # else the object begins to talk to traefik
        )
    except (TraitError, ValueError) as error:
        raise ConfigError(f"the proxy cannot be configured: {error}", f"look in {layout.config}") from error


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


def as_text(config: Config) -> str:
    """A static configuration as a file. JSON is valid YAML."""
    return json.dumps(config, indent=2) + "\n"


def write(layout: Layout, config: Config, source: Source | None = None) -> None:
    """Put the static configuration in place, for root and the proxy's group; and where the certificate comes from."""
    group = layout.proxy_state.stat().st_gid
    write_atomically(layout.static_config, as_text(config), 0o640, (-1, group))
    if source:
        source.save(layout)
    else:
        layout.certificate_source.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
