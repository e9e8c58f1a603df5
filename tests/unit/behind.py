"""What a client's bytes become behind the proxy: traefik as barehub configures it, and servers that note what arrives.

The servers are tornado's, as the hub and users' servers are.
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.unit import proxies

if os.environ.get("CI") != "true":
    pytest.importorskip("jupyterhub_traefik_proxy")

from barehub.proxy import BarehubProxy
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.web import Application, RequestHandler

OWN = {"X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "X-Forwarded-Proto": "http"}


class Note(RequestHandler):
    """Writes down what has arrived."""

    def initialize(self, name: str, seen: list[tuple[str, HTTPServerRequest]]) -> None:
        seen.append((name, self.request))

    def prepare(self) -> None:
        self.finish()


def serve(name: str, seen: list[tuple[str, HTTPServerRequest]], ports: list[int]) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            HTTPServer(Application([(".*", Note, {"name": name, "seen": seen})]), xheaders=True).add_socket(listener)
            ports.append(listener.getsockname()[1])
            await asyncio.Event().wait()

    asyncio.run(main())


@dataclass(frozen=True)
class Proxied:
    """The proxy's port, and what has arrived behind it."""

    port: int
    seen: list[tuple[str, HTTPServerRequest]]

    def arrived(self) -> list[tuple[str, str]]:
        """The requests that have arrived since the last question, none of them with an address that is not ours."""
        found = list(self.seen)
        self.seen.clear()
        for _, request in found:
            assert request.remote_ip == "127.0.0.1"
            assert request.host == "hub" or request.uri == "/user/bob/x"
            assert {name: ",".join(request.headers.get_list(name)) for name in OWN} == OWN | upgraded(request)
            assert not {"X-Evil", "Http2-Settings"} & set(request.headers)
        return [(name, str(request.uri)) for name, request in found]


def upgraded(request: HTTPServerRequest) -> dict[str, str]:
    return {"X-Forwarded-Proto": "ws"} if "Upgrade" in request.headers else {}


@contextlib.contextmanager
def proxied_servers(base: Path) -> Iterator[Proxied]:
    """A hub, and the servers of alice, bob, and al, behind traefik."""
    web, api = proxies.free_port(), proxies.free_port()
    found = Proxied(web, [])
    config = proxies.barehub_config(base, f"127.0.0.1:{web}", f"127.0.0.1:{api}")
    with pytest.MonkeyPatch.context() as patch, proxies.running(proxies.traefik(), f"--configfile={config}"):
        patch.setenv("BAREHUB_BASE", str(base))
        asyncio.run(add_routes(found, api))
        yield found


async def add_routes(found: Proxied, api: int) -> None:
    proxy = BarehubProxy(public_url=f"http://127.0.0.1:{found.port}", traefik_api_url=f"http://127.0.0.1:{api}")
    for name, spec in {"hub": "/", "alice": "/user/alice/", "bob": "/user/bob/"}.items():
        ports: list[int] = []
        threading.Thread(target=serve, args=(name, found.seen, ports), daemon=True).start()
        await asyncio.to_thread(proxies.wait_until, lambda ports=ports: ports)
        await proxy.add_route(spec, f"http://127.0.0.1:{ports[0]}", {})


def say(port: int, sent: bytes) -> None:
    """Send bytes, and wait until the proxy ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as client, contextlib.suppress(ConnectionError):
        client.sendall(sent)
        while client.recv(65536):
            pass


# HTTP/2 (RFC 9113), without TLS and by prior knowledge, as traefik takes it. Fields are literals of HPACK (RFC 7541,
# 6.2.2), so that they may hold anything.


def h2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def h2_fields(*fields: tuple[bytes, bytes]) -> bytes:
    return b"".join(b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields)


def h2(
    *more: tuple[bytes, bytes], body: bytes = b"", trailers: Sequence[tuple[bytes, bytes]] = (), **own: bytes
) -> bytes:
    """A request, on stream 1; `own` are its pseudo-fields."""
    pseudo = {
        "method": b"POST" if body else b"GET",
        "path": b"/user/alice/x",
        "scheme": b"http",
        "authority": b"hub",
    } | own
    fields = [*((f":{name}".encode(), value) for name, value in pseudo.items()), *more]
    sent = h2_frame(1, 4 if body else 5, 1, h2_fields(*fields))
    sent += h2_frame(0, 0 if trailers else 1, 1, body) if body else b""
    return sent + (h2_frame(1, 5, 1, h2_fields(*trailers)) if trailers else b"")


def say_h2(port: int, sent: bytes) -> None:
    """Send frames and a further request; wait until both are answered or refused, or the connection ends."""
    fields = (b":method", b"GET"), (b":path", b"/hub/last"), (b":scheme", b"http"), (b":authority", b"hub")
    settings, last = h2_frame(4, 0, 0, b""), h2_frame(1, 5, 3, h2_fields(*fields))
    with socket.create_connection(("127.0.0.1", port), timeout=120) as client, client.makefile("rb") as answers:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + sent)
        await_streams(answers, {1})
        client.sendall(last)
        await_streams(answers, {3})


def await_streams(answers: BinaryIO, open_streams: set[int]) -> None:
    while open_streams and (head := answers.read(9)):
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
        answers.read(int.from_bytes(head[:3]))
        if kind == 3 or (kind in (0, 1) and flags & 1):  # reset, or the end of an answer
            open_streams.discard(stream)
