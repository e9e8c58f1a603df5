"""The pages that stand in for what does not answer: for the hub while it is away, for a user's server that has ended.

traefik asks for them by a middleware of the rules (`barehub.rules.page`), after it has got no answer, and sends them
with a status of its own. So a request that is answered costs nothing here, nothing has to notice that the hub is away
or back, and the door to the hub stays what it is: whoever asks for its health sees that it does not answer.

The supervisor serves them, on a port of loopback that the kernel chooses: it is held for as long as this traefik lives,
so no other account can have it, and no installation has to be given one. What comes here is a stranger's request
without its cookies and tokens; any account on the machine can ask, too.
"""

import asyncio
import base64
import contextlib
import json
import re
import socket
import time
from functools import cached_property
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import parse_qs, urlsplit

from barehub import notices, untrusted
from barehub.layout import Layout
from barehub.rules import OWN_LOGO
from barehub.untrusted import UntrustedError

ANSWER = 5.0  # seconds for a request to arrive and its answer to leave
HEAD = 2**14  # bytes of a request at most
AT_ONCE = 256  # connections; it shares the supervisor's descriptors with the clients that are relayed
RETRY = 5  # seconds
IMAGE = re.compile(r"data:image/[a-z0-9.+-]+;base64,[A-Za-z0-9+/]+=*")  # as the hub writes it (`rules.keep_logo`)

HUB = (
    "The hub is not available",
    "<p>This page reloads every few seconds until the hub is back.</p>"
    "<p>Servers that are running continue, with their notebooks and kernels.</p>",
    "the hub is not available: try again later",
)
SERVER = (
    "Nothing answers here",
    "<p>The server at this address has ended, or has not started yet.</p>"
    "<p>The hub shows its state, and can start it again.</p>"
    '<p><a class="button first" href="$HOME">Go to the hub</a> <a class="button" href="">Try again</a></p>',
    "the server at this address does not answer: see the hub",
)


def listen() -> socket.socket:
    """Return a listening socket that only this machine reaches."""
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"


class Pages:
    """The pages of an installation: /hub and /server, each for one who reads HTML or for a program."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.template = Template(Path(__file__).with_name("page.html").read_text())
        self.connections = 0

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled."""
        async with await asyncio.start_server(self.answer, sock=listener, limit=HEAD) as server:
            await server.serve_forever()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, if it is one, and close the connection."""
        self.connections += 1
        try:
            if self.connections <= AT_ONCE:
                async with asyncio.timeout(ANSWER):
                    writer.write(self.response(await reader.readuntil(b"\r\n\r\n")))
                    writer.close()
                    await writer.wait_closed()  # all of it has left
        except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError):
            pass  # whoever asked has gone, or speaks no HTTP
        finally:
            self.connections -= 1
            writer.transport.abort()  # close() would wait for one who reads nothing, and keep its descriptor

    def response(self, head: bytes) -> bytes:
        """Return the answer to a request, by its head. Raises ValueError or IndexError if that is none."""
        request, *lines = head.decode("latin-1").split("\r\n")
        target = urlsplit(request.split(" ")[1])
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        code = int(query.get("status", "503"))
        is_hub = target.path == "/hub"
        # Not by the path: a browser follows links below /hub/api, too, when it logs in to a server (OAuth). Nor by the
        # method, which traefik does not tell: who sent a form reads HTML.
        accept = ",".join(line.partition(":")[2] for line in lines if line.lower().startswith("accept:"))
        own = ""
        if "text/html" in accept:
            own = notices.page(self.layout) if is_hub else ""
            kind, content = "text/html; charset=utf-8", own or self.html(is_hub, query.get("home", "/hub/home"))
        else:
            said = {"status": code, "message": (HUB if is_hub else SERVER)[2]}
            kind, content = "application/json", json.dumps(said)
        body = content.encode()
        headers = [
            f"HTTP/1.1 {code} ",  # replaced by traefik
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            *([f"Retry-After: {RETRY}"] if is_hub else []),
            *([f"Refresh: {RETRY}"] if own else []),
            "Cache-Control: no-store",
            f"Content-Security-Policy: {notices.POLICY}",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
        ]
        return "\r\n".join([*headers, "", ""]).encode() + body

    def html(self, is_hub: bool, home: str) -> str:
        """Return a page for people. That of the hub reloads itself; a server that has ended does not come back."""
        title, body, _ = HUB if is_hub else SERVER
        # Not all who wait at the same moment.
        seconds = RETRY - 2 + time.monotonic_ns() % 4
        return self.template.substitute(
            REFRESH=f'<meta http-equiv="refresh" content="{seconds}">' if is_hub else "",
            TITLE=title,
            LOGO=self.logo,
            BODY=(self.note if is_hub else "") + Template(body).substitute(HOME=escape(home)),
        )

    @property
    def note(self) -> str:
        """What BASE/maintenance.md says."""
        text = notices.shown(self.layout.maintenance)
        return f'<div class="note">{text}</div>\n' if text else ""

    @property
    def logo(self) -> str:
        """The hub's logo as an element of the page: its own, else JupyterHub's, else that name."""
        with contextlib.suppress(OSError, UntrustedError):
            own = untrusted.read_text(self.layout.logo, (self.layout.rules.stat().st_uid,))
            if IMAGE.fullmatch(own):
                return f'<img alt="JupyterHub" src="{own}">'
        return self.jupyterhubs_logo

    @cached_property
    def jupyterhubs_logo(self) -> str:
        with contextlib.suppress(OSError):
            image = (self.layout.hub / f"share/jupyterhub/{OWN_LOGO}").read_bytes()
            data = base64.b64encode(image).decode()
            return f'<img class="jupyterhub" alt="JupyterHub" src="data:image/png;base64,{data}">'
        return "JupyterHub"
