"""The rules file: traefik's dynamic configuration, with the hub's routes, and the language of traefik's rules.

Readers need neither JupyterHub nor traefik for it.
"""

import copy
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from barehub import untrusted
from barehub.process import sync_directory, write_atomically
from barehub.untrusted import UntrustedError

# Percent-encoded :/?#[]@!$&'()*+,;=% (RFC 3986, sections 2.1 and 2.2)
RESERVED = re.compile(r"%(3A|2F|3F|23|5B|5D|40|21|24|26|27|28|29|2A|2B|2C|3B|3D|25)", re.IGNORECASE)

READY = "barehub-ready"  # a router, and below / the path that it answers: the proxy's supervisor asks for it
HSTS = "barehub-hsts"  # a middleware

Config = dict[str, Any]

# https://doc.traefik.io/traefik/reference/routing-configuration/http/tls/tls-options/
# The intermediate profile of https://ssl-config.mozilla.org, without DHE, which Go does not have. TLS 1.3 has its own.
TLS: Config = {
    "options": {
        "default": {
            "minVersion": "VersionTLS12",
            "cipherSuites": [
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            ],
        }
    }
}


def fixed_rules(entrypoint: str, hsts_seconds: int | None) -> Config:
    """Return what the rules hold beside the hub's routes; `hsts_seconds` is None without HTTPS."""
    # traefik itself answers it, with 418.
    ready = {"rule": f"Path(`/{READY}`)", "entryPoints": [entrypoint], "service": "noop@internal"}
    if hsts_seconds is None:
        return {"http": {"routers": {READY: ready}}}
    hsts = {"headers": {"stsSeconds": hsts_seconds}}
    return {"http": {"routers": {READY: ready}, "middlewares": {HSTS: hsts}}, "tls": copy.deepcopy(TLS)}


class RulesFile:
    """traefik's dynamic configuration on disk, with the hub's routes in it as one string that traefik ignores."""

    def __init__(self, path: Path, log: logging.Logger) -> None:
        self.path = path
        self.log = log

    def load(self) -> Config:
        """Return the hub's routes as last written; none if there is no file. A damaged file is set aside."""
        try:
            return read_routes(self.path)
        except UntrustedError as error:
            aside = self.path.rename(f"{self.path}.damaged")  # a suffix that traefik does not read
            self.log.warning("The proxy's rules were damaged (%s); kept as %s. Routes are added again.", error, aside)
            return {}

    def atomic_dump(self, config: Config) -> None:
        """Replace the file, durably. Raises OSError and leaves the old one if that is not possible."""
        http = {kind: items for kind, items in config["http"].items() if items}  # traefik refuses empty ones
        text = json.dumps({**config, "http": http, "jupyterhub": json.dumps(config["jupyterhub"])})
        # traefik runs the file through Go's text/template first. `{{` can only be in a string: JSON itself has none.
        text = text.replace("{{", r"\u007b\u007b")
        # Staged in a directory below, not beside: traefik reads everything again on each event in this one, and
        # creating, writing and renaming a file here would be five of them. The directory is setgid, so is this one:
        # the file has the proxy's group from its first byte.
        # The installer has made it with the right group; chmod(2) by a hub that is not in that group would undo that.
        staging = self.path.parent / ".new"
        staging.mkdir(mode=0o750, exist_ok=True)
        staged = staging / "rules"
        write_atomically(staged, text, 0o640)
        staged.replace(self.path)
        sync_directory(self.path.parent)


def read_routes(path: Path) -> Config:
    """Return the routes in a rules file, by alias: routespec, target, data; none if there is no file.

    Raises UntrustedError if it is damaged, or is no file that the hub has written.
    """
    try:
        found = untrusted.read_json(path, (path.parent.stat().st_uid,))
        routes: Config = untrusted.parse_json(found["jupyterhub"], path)["routes"]
        if not all(isinstance(route[key], str) for route in routes.values() for key in ("routespec", "target")):
            raise TypeError("a route without an address")
    except FileNotFoundError:
        return {}
    except (KeyError, TypeError, AttributeError) as error:
        raise UntrustedError(path, f"is damaged: {error!r}") from None
    return routes


def rule(routespec: str) -> str:
    """Return traefik's rule for a routespec, `[host]/path/`, URL-encoded.

    As generate_rule of jupyterhub-traefik-proxy, but for two things. Strings are quoted: in its `...` a backtick in a
    server's name would end the path and begin a rule. And reserved characters stay encoded, since traefik compares
    with a path in which they are (withRoutingPath in its muxer): else nobody reaches the server of a `me+you`.
    """
    host, slash, path = routespec.partition("/")
    path = unquote(re.sub(RESERVED, lambda match: f"%25{match[1].upper()}", slash + path))
    match = f"PathPrefix({quoted(path)})"
    if path != "/":  # /prefix is served as /prefix/ is
        match = f"( {match} || Path({quoted(path.rstrip('/'))}) )"
    return f"Host({quoted(unquote(host))}) && {match}" if host else match


def quoted(text: str) -> str:
    """Return a string literal of Go, in which traefik's rules are written, in ASCII."""
    plain = (c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return f'"{"".join(plain)}"'


def move_target(path: Path, old: str, new: str) -> None:
    """Replace a target, such as the hub's URL, in all rules and routes. Raises ValueError, KeyError if damaged."""
    rules = json.loads(path.read_text())
    rules["jupyterhub"] = json.loads(rules["jupyterhub"])
    for service in rules["http"].get("services", {}).values():
        for server in service["loadBalancer"]["servers"]:
            server["url"] = new if server["url"].rstrip("/") == old else server["url"]
    for route in rules["jupyterhub"]["routes"].values():
        route["target"] = new if route["target"].rstrip("/") == old else route["target"]
    RulesFile(path, logging.getLogger(__name__)).atomic_dump(rules)


if __name__ == "__main__":  # for root, as the hub's account
    order = json.load(sys.stdin)
    move_target(Path(order["path"]), order["old"], order["new"])
