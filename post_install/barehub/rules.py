"""The rules file: traefik's dynamic configuration, with the hub's routes, and the language of traefik's rules.

Readers need neither JupyterHub nor traefik for it.
"""

import base64
import copy
import json
import logging
import mimetypes
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from barehub import untrusted
from barehub.process import sync_directory, write_atomically
from barehub.untrusted import UntrustedError

# Percent-encoded :/?#[]@!$&'()*+,;=% (RFC 3986, sections 2.1 and 2.2)
RESERVED = re.compile(r"%(3A|2F|3F|23|5B|5D|40|21|24|26|27|28|29|2A|2B|2C|3B|3D|25)", re.IGNORECASE)

READY = "barehub-ready"  # a router, and below / the path that it answers: the proxy's supervisor asks for it
HSTS = "barehub-hsts"  # a middleware
HUB_AWAY, SERVER_AWAY = "barehub-hub-away", "barehub-server-away"  # middlewares

# The service of the pages for these. Only the proxy's supervisor knows its port, which is another one at each start: it
# tells traefik by its environment, and traefik runs the rules through Go's text/template. Without one, nobody is there.
PAGES = "barehub-pages"
PAGES_ENVIRONMENT = "BAREHUB_PAGES"
PAGES_URL = f"{{{{ env `{PAGES_ENVIRONMENT}` | default `http://127.0.0.1:9` }}}}"

OWN_LOGO = "static/images/jupyterhub-80.png"  # JupyterHub's, which the pages have anyway
LOGO_SIZE = 2**18  # bytes; it is in each page

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


def fixed_rules(entrypoint: str, hsts_seconds: int | None, home: str = "/hub/home") -> Config:
    """Return what the rules hold beside the hub's routes.

    `hsts_seconds` is None without HTTPS; `home` is the URL of the hub's home page.
    """
    # traefik itself answers it, with 418.
    ready = {"rule": f"Path(`/{READY}`)", "entryPoints": [entrypoint], "service": "noop@internal"}
    http: Config = {
        "routers": {READY: ready},
        "services": {PAGES: {"loadBalancer": {"servers": [{"url": PAGES_URL}]}}},
        "middlewares": {
            # JupyterHub itself answers neither.
            HUB_AWAY: {"errors": page("/hub?status={status}") | {"statusRewrites": {"502": 503, "504": 503}}},
            SERVER_AWAY: {"errors": page(f"/server?status={{status}}&home={quote(home, safe='')}")},
        },
    }
    if hsts_seconds is None:
        return {"http": http}
    http["middlewares"][HSTS] = {"headers": {"stsSeconds": hsts_seconds}}
    return {"http": http, "tls": copy.deepcopy(TLS)}


def page(query: str) -> Config:
    """Return the options of a middleware that shows a page where a route leads to nobody who answers.

    https://doc.traefik.io/traefik/reference/routing-configuration/http/middlewares/errorpages/
    traefik answers 502 where a connection is refused or breaks, 504 where it is not accepted in time. It cannot tell
    these from a server's own (traefik/traefik#2936): such an answer keeps its status and gets our text.
    """
    # Of the request's headers only this one: no cookie or token goes there.
    return {"status": ["502", "504"], "service": PAGES, "query": query, "errorRequestHeaders": ["Accept"]}


def middlewares(data: Config, *, hsts: bool) -> list[str]:
    """Return the middlewares of a route with this data, which the hub has given it."""
    return [*([HSTS] if hsts else []), HUB_AWAY if data.get("hub") else SERVER_AWAY]


def home_of(hub: Any) -> str:
    """Return the URL of a hub's home page, for a JupyterHub application object: a path if it has no host of its own."""
    return f"{getattr(hub, 'public_url', '') or getattr(hub, 'base_url', '/')}hub/home"


def keep_logo(hub: Any, path: Path) -> None:
    """Put the logo of a JupyterHub application object, if it is not JupyterHub's, where the proxy's pages find it."""
    logo = Path(getattr(hub, "logo_file", ""))
    kind = mimetypes.guess_type(logo)[0] or ""
    try:
        if logo.match(OWN_LOGO) or not kind.startswith("image/") or logo.stat().st_size > LOGO_SIZE:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(mode=0o750, exist_ok=True)
        write_atomically(path, f"data:{kind};base64,{base64.b64encode(logo.read_bytes()).decode()}", 0o640)
    except OSError as error:  # the hub itself shows none, and goes on
        logging.getLogger(__name__).warning("The logo cannot be shown while the hub is away: %s", error)


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
        # Only our own template stays one.
        braces = r"\u007b\u007b"
        text = text.replace("{{", braces).replace(PAGES_URL.replace("{{", braces), PAGES_URL)
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
