"""What an open door promises, checked with requests that reach traefik while its doors are still shut.

- traefik has loaded the routes in the rules file, at this door too: its entrypoints get them one after the other.
- HTTPS shows the intended certificate. traefik loads those from an ACME server after the routes, and until then shows
  one that it has made itself.
- HTTP redirects where it should.

Without a certificate there is nothing to wait for: the ACME server's challenge comes through the same doors.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from barehub import untrusted
from barehub.layout import Layout
from barehub.proxy_unit.acme import stored_names
from barehub.proxy_unit.certificates import TRAEFIKS_OWN, Served, leaf_of, matches
from barehub.proxy_unit.sockets import Door
from barehub.rules import READY
from barehub.untrusted import UntrustedError
from barehub.urls import is_address

API = "api"  # the entrypoint of traefik's API; BarehubProxy calls it so
ANSWER = 5.0  # seconds until a request has failed

Config = dict[str, Any]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Entrypoint:
    """What traefik's static configuration says about the traffic of a door."""

    name: str
    tls: bool
    names: tuple[str, ...]  # the certificate's host names, as far as they are known
    resolver: str  # the ACME server that issues the certificate; empty for certificate files
    redirects: bool

    @classmethod
    def of(cls, name: str, config: Config) -> "Entrypoint":
        http = config.get("http") or {}
        tls = http.get("tls")
        said = tls if isinstance(tls, dict) else {}  # traefik accepts `true`, too
        domains = [[one.get("main"), *(one.get("sans") or [])] for one in said.get("domains") or []]
        return cls(
            name=name,
            tls=bool(tls) or tls == {},
            names=tuple(host for hosts in domains for host in hosts if host and not is_address(host)),
            resolver=said.get("certResolver") or "",
            redirects="redirections" in http,
        )


class Readiness:
    """The checks of one start of traefik. `problem` is why the current one has not succeeded yet."""

    def __init__(self, layout: Layout, static_config: Config, api: Door, doors: dict[str, Door]) -> None:
        entrypoints = static_config["entryPoints"]
        self.layout = layout
        self.api = api
        self.host = entrypoints[API]["address"].rpartition(":")[0]
        self.configs = [(door, name, entrypoints[name]) for name, door in doors.items()]
        self.problem: Callable[[], str] = str

    async def wait_for_routes(self) -> bool:
        """Return True once traefik has read the rules, False if there are none because the hub has never run.

        traefik's API then asks for a password, by a router that is in the rules.
        """
        self.problem = lambda: f"error: traefik has not loaded {self.layout.rules_file}"
        status: int | None = None

        async def loaded() -> bool:
            nonlocal status
            status = await self.ask()
            return status is not None and (status != 404 or not self.layout.rules_file.exists())

        await poll(loaded)
        return status != 404

    async def ask(self) -> int | None:
        """Return the status of traefik's API for a request without a password; None if it does not answer."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            async with asyncio.timeout(ANSWER):
                stream = await asyncio.open_connection(*self.api.address)
                with contextlib.closing(stream[1]):
                    return await get(stream, "/api/version", self.host)
        return None

    @cached_property
    def doors(self) -> list[tuple[Door, Entrypoint]]:
        return [(door, Entrypoint.of(name, config)) for door, name, config in self.configs]

    @property
    def needs_hub(self) -> bool:
        """True if traefik cannot serve the certificate before the hub has named it in the rules."""
        files = any(entrypoint.tls and not entrypoint.resolver for _, entrypoint in self.doors)
        return files and self.layout.certificate.exists() and "stores" not in self._rules("tls")

    async def wait_for_doors(self) -> None:
        """Return when each door leads to what it promises."""
        for door, entrypoint in self.doors:
            for name in self._names_with_certificate(entrypoint) if entrypoint.tls else ():
                await self._wait_for_certificate(door, entrypoint, name)
            if entrypoint.name in self._rules("http", "routers", READY).get("entryPoints", ()):
                await self._wait_for_router(door, entrypoint, f"/{READY}")
            elif entrypoint.redirects:
                await self._wait_for_router(door, entrypoint, "/")

    def _rules(self, *keys: str) -> Config:
        """Return a part of the rules; nothing if they are damaged, since traefik does not load such rules either."""
        try:
            found = json.loads(read(self.layout.rules_file))
            for key in keys:
                found = found[key]
            return dict(found)
        except (ValueError, KeyError, TypeError):
            return {}

    def _names_with_certificate(self, entrypoint: Entrypoint) -> list[str]:
        """Return the host names that there is a certificate for; an empty name stands for any."""
        if not entrypoint.resolver:
            return [*entrypoint.names] or [""] if self.layout.certificate.exists() else []
        stored = stored_names(read(self.layout.acme_store), entrypoint.resolver)
        return [name for name in entrypoint.names if matches(name, stored)]

    async def _wait_for_certificate(self, door: Door, entrypoint: Entrypoint, name: str) -> None:
        served: bytes | None = None

        async def is_served() -> bool:
            nonlocal served
            served = await certificate_at(door, name)
            return served is not None and self._is_intended(served, entrypoint)

        def problem() -> str:
            path = self.layout.acme_store if entrypoint.resolver else self.layout.certificate
            asked = name or "any name"
            if served is None:
                return f"warning: traefik does not serve the certificate for {asked} in {path}"
            return (
                f"warning: traefik serves the certificate {Served.of(served)} for {asked} instead of the one in {path}"
            )

        self.problem = problem
        await poll(is_served)

    def _is_intended(self, served: bytes, entrypoint: Entrypoint) -> bool:
        if TRAEFIKS_OWN.encode() in served:
            return False
        # Others are the administrator's, by extra_dynamic_config; or, with ACME, have been renewed in the meantime.
        is_file = served == leaf_of(read(self.layout.certificate))
        return is_file or bool(entrypoint.resolver or self._rules("tls").get("certificates"))

    async def _wait_for_router(self, door: Door, entrypoint: Entrypoint, path: str) -> None:
        """Return when traefik has a router for a path, whatever it answers: that is 404 without one."""
        name = entrypoint.names[0] if entrypoint.names else ""

        async def has_router() -> bool:
            return await status_at(door, path, name, tls=entrypoint.tls) not in (None, 404)

        self.problem = lambda: f"error: traefik does not answer {path} at the entrypoint {entrypoint.name}"
        await poll(has_router)


async def poll(check: Callable[[], Awaitable[bool]]) -> None:
    """Return when the check succeeds."""
    pause = 0.005
    while not await check():
        await asyncio.sleep(pause)
        pause = min(pause * 1.1, 0.2)


async def certificate_at(door: Door, name: str) -> bytes | None:
    """Return the certificate, as DER, that clients would get at a door if they asked for a name; None for none."""
    with contextlib.suppress(OSError, ValueError):
        async with asyncio.timeout(ANSWER), through(door, name, tls=True) as (_, writer):
            der: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return der
    return None


async def status_at(door: Door, path: str, name: str, *, tls: bool) -> int | None:
    """Return the status that clients would get at a door for a path; None for no answer."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        async with asyncio.timeout(ANSWER), through(door, name, tls=tls) as stream:
            return await get(stream, path, name or door.address[0])
    return None


@contextlib.asynccontextmanager
async def through(door: Door, name: str, *, tls: bool) -> AsyncIterator[Stream]:
    """Connect to traefik although the door is shut, with any certificate if by TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name = name.replace("*", READY)  # a name that a wildcard is for
    with door.probe() as client:
        await asyncio.get_running_loop().sock_connect(client, door.address)
        # Without a host to connect to, asyncio wants a name for TLS, be it an empty one, and none without.
        secure: dict[str, Any] = {"ssl": context, "server_hostname": name} if tls else {}
        stream = await asyncio.open_connection(sock=client, **secure)
        try:
            yield stream
        finally:
            stream[1].transport.abort()


async def get(stream: Stream, path: str, host: str) -> int:
    """Return the status of the answer to a GET. Raises OSError, IndexError or ValueError if there is no answer."""
    reader, writer = stream
    writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
    return int((await reader.readline()).split()[1])


def read(path: Path) -> str:
    """Return a file's text; nothing if it cannot be read."""
    with contextlib.suppress(OSError, UntrustedError):
        return untrusted.read_text(path)
    return ""
