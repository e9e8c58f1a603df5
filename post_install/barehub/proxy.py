"""The hub's side of the proxy: routes go into one rules file, which traefik watches. systemd runs traefik itself.

What differs from jupyterhub-traefik-proxy's own file provider, and why:

- Changes of a burst are gathered, written once and waited for once: 1000 routes take half a second, not minutes.
- The file is written durably, readable by the proxy's group alone, and kept: routes outlive a restart of either side.
- It is JSON, which is valid YAML, and the names that users choose, as for their servers, cannot become part of rules.
"""

import asyncio
import ipaddress
import json
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bcrypt
from jupyterhub.utils import exponential_backoff
from jupyterhub_traefik_proxy.traefik_utils import deep_merge, generate_alias
from tornado.httpclient import HTTPClientError
from traitlets import Bool, Enum, Integer, List, TraitError, Unicode, default, observe, validate

from barehub import untrusted
from barehub.layout import Layout
from barehub.process import write_atomically
from barehub.rules import Config, RulesFile, fixed_rules, home_of, keep_logo, middlewares, rule
from barehub.traefik_metrics import WithMetrics
from barehub.untrusted import UntrustedError
from barehub.urls import bind_url, is_address

BURST = 0.01  # seconds in which changes are gathered
PACE = 1.0  # seconds at most that a write waits until traefik has read the one before
MARK = "barehub-written"  # a middleware that no router uses; its header tells which write traefik has loaded


@dataclass
class Batch:
    """The changes of one write: alias of a router -> its route, or None where it is to be deleted."""

    changes: dict[str, Config | None] = field(default_factory=dict)
    written: asyncio.Future[None] = field(default_factory=asyncio.Future)  # fails with the OSError of the write
    live: asyncio.Future[bool] = field(default_factory=asyncio.Future)  # True once traefik has loaded it, False if not


class BarehubProxy(WithMetrics):
    """JupyterHub's proxy, for `c.JupyterHub.proxy_class`. An installation needs no other than its defaults."""

    should_start = Bool(False, help="systemd runs traefik, under barehub.proxy_unit.supervisor")
    # The supervisor asks it whether the routes are loaded, so its name is fixed.
    traefik_api_entrypoint = Unicode("api", help="name of the entrypoint of traefik's API")

    http_redirect_port = Integer(
        help="With HTTPS, the port at which HTTP is redirected to it; 0 for none. The default is 80 for HTTPS at 443.",
    ).tag(config=True)
    hsts_seconds = Integer(
        0,
        min=0,
        help="""With HTTPS, how many seconds browsers must insist on it (RFC 6797). It cannot be revoked before that
        time is over. 0 does not ask for it.""",
    ).tag(config=True)
    trusted_networks = List(
        Unicode(),
        help="""The networks of proxies and load balancers in front of this one, such as 192.0.2.0/24, whose
        X-Forwarded-* headers are trusted. The default is none.""",
    ).tag(config=True)

    acme_email = Unicode(
        help="""Get the certificate from an ACME server, by default Let's Encrypt, with this email address for the
        account. This needs an https bind_url with a host name, or acme_domains, and neither ssl_cert nor ssl_key.""",
    ).tag(config=True)
    acme_domains = List(
        Unicode(),
        help="""The host names of the certificate, the main one first. The default is the one in bind_url.
        `*.example.org` needs the challenge dns-01.""",
    ).tag(config=True)
    acme_ca_server = Unicode(
        "https://acme-v02.api.letsencrypt.org/directory",
        help="""The directory URL of the ACME server, such as a site's own step-ca. Let's Encrypt issues test
        certificates at https://acme-staging-v02.api.letsencrypt.org/directory""",
    ).tag(config=True)
    acme_ca_bundle = Unicode(
        help="""A PEM file with the certificate authorities that the ACME server's own certificate is checked with. The
        default is those that the system trusts.""",
    ).tag(config=True)
    acme_challenge = Enum(
        ["tls-alpn-01", "http-01", "dns-01"],
        help="""How the ACME server verifies that the names are ours: at port 443 (the default), at port 80, or in the
        DNS (the default if acme_dns_provider is set).""",
    ).tag(config=True)
    acme_key_type = Enum(
        ["EC256", "EC384", "RSA2048", "RSA4096", "RSA8192"], "EC256", help="the type of the certificate's key"
    ).tag(config=True)
    acme_certificate_hours = Integer(
        2160,
        min=1,
        help="""How many hours the ACME server's certificates are valid, which determines when they are renewed. For up
        to a day, as with step-ca, set 24 or less.""",
    ).tag(config=True)
    acme_dns_provider = Unicode(
        help="""For dns-01, the name of traefik's DNS provider, such as rfc2136. Its environment variables go into
        jupyterhub_config.d/acme.env, as lines of NAME=value; only root may read that file.""",
    ).tag(config=True)
    acme_dns_resolvers = List(
        Unicode(), help="For dns-01, `host:port` of the DNS servers to ask. The default is the system's."
    ).tag(config=True)

    dynamic_config: Config  # traits of the base class

    def __init__(self, **traits: Any) -> None:
        if parent := traits.get("parent"):
            traits["public_url"] = bind_url(parent)
        if traits.get("ssl_cert"):  # root's copy, which is a pair and which traefik can read
            traits["ssl_cert"] = traits["ssl_key"] = str(Layout.from_environment().certificate)
        self._writing = asyncio.Lock()
        self._gathering: Batch | None = None
        self._latest: Batch | None = None
        self._generation = 0
        super().__init__(**traits)

    @default("dynamic_config_file")
    def _default_rules(self) -> str:
        return str(Layout.from_environment().rules_file)

    @default("traefik_api_url")
    def _default_api_url(self) -> str:
        return "http://127.0.0.1:8099"

    @default("traefik_entrypoint")
    def _default_traefik_entrypoint(self) -> str:
        return "web"  # with TLS or without: a hub that has not been restarted yet uses it too

    @default("http_redirect_port")
    def _default_http_redirect_port(self) -> int:
        return 80 if self.is_https and urlsplit(self.public_url).port == 443 else 0

    @default("acme_challenge")
    def _default_acme_challenge(self) -> str:
        return "dns-01" if self.acme_dns_provider else "tls-alpn-01"

    @default("acme_domains")
    def _default_acme_domains(self) -> list[str]:
        host = urlsplit(self.public_url).hostname or ""
        return [host] if "." in host and not is_address(host) else []

    @validate("trusted_networks")
    def _check_networks(self, proposal: Config) -> list[str]:
        for network in proposal["value"]:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise TraitError(f"trusted_networks: {error}") from error
        return list(proposal["value"])

    @default("traefik_api_username")
    def _warn_empty_username(self) -> str:
        return "barehub"

    @default("traefik_api_password")
    def _warn_empty_password(self) -> str:
        return api_credentials(Layout.from_environment().api_credentials)["password"]

    @default("traefik_api_hashed_password")
    def _generate_htpassword(self) -> str:
        ours = api_credentials(Layout.from_environment().api_credentials)
        if self.traefik_api_password == ours["password"]:
            return ours["hash"]
        return bcrypt.hashpw(self.traefik_api_password.encode(), bcrypt.gensalt()).decode()

    @default("dynamic_config_handler")
    def _default_handler(self) -> RulesFile:
        return RulesFile(Path(self.dynamic_config_file), self.log)

    @observe("dynamic_config_file")
    def _set_dynamic_config_file(self, change: Config) -> None:
        self.dynamic_config_handler = RulesFile(Path(change["new"]), self.log)

    @default("dynamic_config")
    def _load_dynamic_config(self) -> Config:
        """Keep only the routes: all else in the file follows from traits, which may have changed since."""
        nothing: Config = {"http": {"routers": {}, "services": {}}, "jupyterhub": {"routes": {}}}
        return self._with_changes(nothing, self.dynamic_config_handler.load())

    async def _setup_traefik_dynamic_config(self) -> None:
        keep_logo(self.parent, Layout.from_environment().logo)
        ours = fixed_rules(self.traefik_entrypoint, self.hsts_seconds if self.is_https else None, home_of(self.parent))
        self.extra_dynamic_config = deep_merge(ours, self.extra_dynamic_config)
        await super()._setup_traefik_dynamic_config()

    # Changes

    async def add_route(self, routespec: str, target: str, data: Config) -> None:
        """Add or replace a route; return when traefik serves it. Raises OSError, or TimeoutError if it does not."""
        routespec = self.validate_routespec(routespec)
        batch = await self._change(routespec, {"routespec": routespec, "target": target, "data": data})
        if not await asyncio.shield(batch.live):
            self.log.error("Traefik route for %s never appeared.", routespec)
            raise TimeoutError(f"traefik did not load the route {routespec} in {self.check_route_timeout} s")

    async def delete_route(self, routespec: str) -> None:
        """Delete a route; return when that is written. Raises OSError if it could not be."""
        await self._change(self.validate_routespec(routespec), None)

    async def settle(self) -> None:
        if self._latest:
            await asyncio.shield(self._latest.live)

    async def _change(self, routespec: str, route: Config | None) -> Batch:
        """Write a change, together with all others of the moment. Of two for one route the later counts."""
        if self._start_future and not self._start_future.done():
            await self._start_future
        batch = self._gathering
        if batch is None:
            batch = self._gathering = Batch()
            batch.written = asyncio.ensure_future(self._write(batch))
        alias = generate_alias(routespec, "router")
        batch.changes.pop(alias, None)  # the order of changes is that of the last of each
        batch.changes[alias] = route
        await asyncio.shield(batch.written)  # shared: one caller's cancellation is not the others'
        return batch

    async def _write(self, batch: Batch) -> None:
        async with self._writing:
            await asyncio.sleep(BURST)
            if self._latest:  # traefik reads the whole file for each write: do not write faster than it reads
                await asyncio.wait([self._latest.live], timeout=PACE)
            self._gathering = None
            for alias, route in batch.changes.items():
                if route is None and alias not in self.dynamic_config["jupyterhub"]["routes"]:
                    self.log.warning("No route %s in the proxy, nothing to delete", alias)
            config = self._with_changes(self.dynamic_config, batch.changes)
            self._generation = max(self._generation + 1, time.time_ns())  # also above that of earlier processes
            mark = {"headers": {"customRequestHeaders": {MARK: str(self._generation)}}}
            config["http"]["middlewares"] = config["http"].get("middlewares", {}) | {MARK: mark}
            await asyncio.to_thread(self.dynamic_config_handler.atomic_dump, config)
            self.dynamic_config = config  # only now: what was not written has not happened
            batch.live = asyncio.ensure_future(self._is_live(self._generation))
            self._latest = batch

    def _with_changes(self, config: Config, changes: dict[str, Config | None]) -> Config:
        """Return a copy of the configuration with these changes."""
        http = {**config["http"]}
        routers, services = http["routers"], http["services"] = {**http["routers"]}, {**http["services"]}
        routes = {**config["jupyterhub"]["routes"]}
        for alias, route in changes.items():
            if old := routes.pop(alias, None):
                del routers[alias], services[old["service"]]
            if route:
                new, hub = self._dynamic_config_for_route(route["routespec"], route["target"], route["data"])
                routers |= new["http"]["routers"]
                services |= new["http"]["services"]
                routes |= hub["routes"]
        return {**config, "http": http, "jupyterhub": {"routes": routes}}

    def _dynamic_config_for_route(self, routespec: str, target: str, data: Config) -> tuple[Config, Config]:
        traefik, hub = super()._dynamic_config_for_route(routespec, target, data)
        for router in traefik["http"]["routers"].values():
            router["rule"] = rule(routespec)
            router["middlewares"] = middlewares(data, hsts=self.is_https and self.hsts_seconds > 0)
        return traefik, hub

    async def _is_live(self, generation: int) -> bool:
        """Return True once traefik serves this write or a later one, False after check_route_timeout."""

        async def loaded() -> bool:
            try:
                answer = await self._traefik_api_request(f"/api/http/middlewares/{MARK}@{self.provider_name}")
            except (OSError, HTTPClientError) as error:
                self.log.debug("traefik's API does not answer yet: %s", error)
                return False
            (header,) = json.loads(answer.body)["headers"]["customRequestHeaders"].values()
            return int(header) >= generation

        try:
            await exponential_backoff(
                loaded, "not loaded", start_wait=0.01, scale_factor=1.1, max_wait=0.5, timeout=self.check_route_timeout
            )
        except TimeoutError:
            return False
        return True


def api_credentials(path: Path) -> dict[str, str]:
    """Return the password of traefik's API and its hash, made on first use: the same for every start of the hub.

    The password is random and long, so that the cheapest bcrypt is safe; traefik computes it for every call.
    """
    try:
        stored = untrusted.read_json(path, (path.parent.stat().st_uid,))
        return {"password": str(stored["password"]), "hash": str(stored["hash"])}
    except (FileNotFoundError, UntrustedError, KeyError, TypeError):
        password = secrets.token_urlsafe(32)
        made = {"password": password, "hash": bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}
        write_atomically(path, json.dumps(made), 0o600)
        return made
