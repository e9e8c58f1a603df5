"""What the proxy needs of root before it starts, `python -m barehub.traefik`: static configuration and sockets.

The static configuration is derived from JupyterHub's traits.

Runs as root, as the hub does, and executes the same configuration files. If they are broken it says so and keeps the
last good static configuration, so that a restart of the proxy does not take the service down with it.
"""

import contextlib
import copy
import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit

from barehub.config import ConfigError, load_hub
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.process import write_atomically
from barehub.sockets import Addresses, read_addresses, store_doors

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
    before: Addresses = {}
    with contextlib.suppress(UserError):
        before = read_addresses(layout.static_config)
    try:
        write(layout, static_config(layout, load_hub(layout)))
    except UserError as error:
        complain(error)
        if not before:
            return 1
        print(f"the proxy goes on with its last configuration, {layout.static_config}", file=sys.stderr)
    try:
        # Now, since it takes root: for ports below 1024, and so that no other account can share them.
        if "NOTIFY_SOCKET" in os.environ:
            store_doors(read_addresses(layout.static_config), before)
    except UserError as error:
        complain(error)
        return 1
    return 0


def complain(error: UserError) -> None:
    print(f"error: {error}" + (f"\n  fix: {error.fix}" if error.fix else ""), file=sys.stderr)


def static_config(layout: Layout, hub: Any) -> Config:
    """traefik's static configuration for a JupyterHub application object (`config.load_hub`), not started.

    https://doc.traefik.io/traefik/reference/install-configuration/configuration-options/
    Raises ConfigError where the traits ask for what traefik cannot do.
    """
    from jupyterhub_traefik_proxy.proxy import TraefikProxy
    from jupyterhub_traefik_proxy.traefik_utils import deep_merge
    from traitlets import TraitError

    if not issubclass(hub.proxy_class, TraefikProxy):
        raise ConfigError(
            f"c.JupyterHub.proxy_class is {hub.proxy_class.__name__}, which the proxy's unit does not run",
            "use barehub.proxy.BarehubProxy or a class derived from it, or disable the unit",
        )
    # Without a certificate JupyterHub takes an https bind_url for http, and says nothing.
    asked = str(hub.config.JupyterHub.get("bind_url", hub.bind_url))
    if asked.startswith("https:") and not (hub.ssl_cert and hub.ssl_key):
        raise ConfigError(f"{asked} needs a certificate", "set c.JupyterHub.ssl_cert and c.JupyterHub.ssl_key")
    try:
        proxy = hub.proxy_class(
            parent=hub,
            public_url=hub.bind_url,
            ssl_cert=hub.ssl_cert,
            ssl_key=hub.ssl_key,
            should_start=True,  # else the object begins to talk to traefik
        )
    except (TraitError, ValueError) as error:
        raise ConfigError(f"the proxy cannot be configured: {error}", f"look in {layout.config}") from error

    public, api = (
        {"address": address(url), "transport": copy.deepcopy(TRANSPORT), "http": copy.deepcopy(HTTP)}
        for url in (proxy.public_url, proxy.traefik_api_url)
    )
    if proxy.is_https:
        # On the entrypoint: the hub's routers carry no TLS. The certificate is in the rules, which the hub writes.
        public["http"]["tls"] = {"options": "default"}
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
    return deep_merge(config, proxy.extra_static_config)


def address(url: str) -> str:
    """An entrypoint's address, `host:port`, for a URL with a port; without a host, all addresses."""
    parts = urlsplit(url)
    host = "" if parts.hostname in (None, "*") else parts.hostname
    return f"[{host}]:{parts.port}" if ":" in host else f"{host}:{parts.port}"


def write(layout: Layout, config: Config) -> None:
    """Put the static configuration in place, for root and the proxy's group. JSON is valid YAML."""
    write_atomically(layout.static_config, json.dumps(config, indent=2) + "\n", 0o640)
    os.chown(layout.static_config, -1, layout.proxy_state.stat().st_gid)


if __name__ == "__main__":
    sys.exit(main())
