"""traefik's static configuration, which follows from JupyterHub's traits. Nothing here reads or writes a file."""

import copy
import ipaddress
import json
import socket
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from barehub.layout import Layout
from barehub.proxy_unit import acme
from barehub.proxy_unit.sockets import RELAYED
from barehub.urls import WILDCARDS, address, bracketed, is_address, listening

Config = dict[str, Any]

# Uploads and downloads may take hours. A client that sends nothing, or never all of a request, must not stay for ever:
# each costs memory. Websockets have no limit.
TRANSPORT: Config = {
    "respondingTimeouts": {"readTimeout": "6h", "writeTimeout": "0s", "idleTimeout": "10m"},
    # On a stop new connections wait in the kernel, so it is short: traefik goes on for a moment, so that what it has
    # just accepted is answered, then gives requests a little to end. Where there are websockets that is always used up.
    "lifeCycle": {"requestAcceptGraceTimeout": "200ms", "graceTimeOut": "2s"},
}
HTTP: Config = {
    # X_Forwarded_For is X-Forwarded-For to a WSGI application behind jupyter-server-proxy.
    "aliasHeadersStrategy": "delete",
    # The characters that file names may contain reach the servers as they were sent; their paths are theirs to check.
    # Spelled out, since traefik's defaults changed twice within 3.6.
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


def static_config(layout: Layout, proxy: Any) -> Config:
    """Return traefik's static configuration for a BarehubProxy (`prepare.make_proxy`).

    https://doc.traefik.io/traefik/reference/install-configuration/configuration-options/
    Raises ConfigError where the traits ask for what traefik cannot do.
    """
    from jupyterhub_traefik_proxy.traefik_utils import deep_merge

    public = entrypoint(listening(proxy.public_url))
    # From there nobody but the supervisor reaches it, which tells whom it relays.
    public["proxyProtocol"] = {"trustedIPs": [f"{RELAYED[socket.AF_INET]}/32"]}
    if proxy.trusted_networks:
        public["forwardedHeaders"] = {"trustedIPs": list(trusted(proxy.trusted_networks))}
    api = entrypoint(proxy.traefik_api_url)
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
        if proxy.http_redirect_port:
            config["entryPoints"][acme.REDIRECT] = redirect(proxy, public)
        # On the entrypoint: the hub's routers carry no TLS. A certificate from files is in the rules, by its path.
        public["http"]["tls"] = tls(proxy)
        if proxy.acme_email:
            name, resolver = acme.resolver(layout, proxy)
            config["certificatesResolvers"] = {name: resolver}
            public["http"]["tls"]["certResolver"] = name
    if proxy.metrics_password:  # the rules say where they are; users' names do not belong there
        config["metrics"] = {"prometheus": {"manualRouting": True, "addServicesLabels": False}}
    merged: Config = deep_merge(config, proxy.extra_static_config)
    return merged


def trusted(networks: Iterable[str]) -> Iterator[str]:
    """Yield the networks whose X-Forwarded-* headers are believed, without the addresses of relayed clients.

    Anybody may have waited at a door, and where it takes IPv6 alone, traefik is not told who.
    """
    relayed = [ipaddress.ip_network(address) for address in RELAYED.values()]
    for text in networks:
        parts = [ipaddress.ip_network(text)]
        for one in relayed:
            if parts[0].version == one.version and one.subnet_of(parts[0]):  # type: ignore[arg-type]
                parts = list(parts[0].address_exclude(one))  # type: ignore[arg-type]
        yield from map(str, parts)


def entrypoint(url: str) -> Config:
    """Return an entrypoint that listens where a URL says."""
    return {"address": address(url), "transport": copy.deepcopy(TRANSPORT), "http": copy.deepcopy(HTTP)}


def redirect(proxy: Any, public: Config) -> Config:
    """Return the entrypoint of HTTP beside that of HTTPS."""
    host = urlsplit(listening(proxy.public_url)).hostname or ""
    found = copy.deepcopy(public) | {"address": address(f"http://{bracketed(host)}:{proxy.http_redirect_port}")}
    target = {"to": proxy.traefik_entrypoint, "scheme": "https", "permanent": True}
    found["http"]["redirections"] = {"entryPoint": target}
    return found


def tls(proxy: Any) -> Config:
    """Return what an entrypoint says about TLS.

    Only a resolver makes traefik itself use the domains. For certificate files they are there for `readiness`.
    """
    domains = [*proxy.acme_domains] if proxy.acme_email else host_names(proxy.public_url)
    if not domains:
        return {"options": "default"}
    return {"options": "default", "domains": [{"main": domains[0], "sans": domains[1:]}]}


def host_names(url: str) -> list[str]:
    """Return the host name in a URL, if it is one that a client asks for by TLS (RFC 6066, section 3)."""
    host = urlsplit(url).hostname or ""
    return [] if host in WILDCARDS or is_address(host) else [host]


def as_text(config: Config) -> str:
    """Return a static configuration as a file's text. JSON is valid YAML."""
    return json.dumps(config, indent=2) + "\n"
