"""What a user does, at the hub of a rehearsal: log in, start a server, let a kernel compute, stop the server.

Nobody's password is needed: the service `barehub` of that hub makes a token (`isolation.ROLE`).
"""

import asyncio
import contextlib
import http.client
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from barehub.errors import UserError, printable
from barehub.health import Connection
from barehub.listeners import Owner

NOBODY = "barehub-canary"  # who logs in where no user is named
ANSWER = 60.0  # seconds for an answer, in which the hub may wait for a server, or a server for its kernel
START = 300.0  # seconds for a server to start, as in a batch system's queue
STOP = 60.0
KERNEL = 60.0


@dataclass(frozen=True)
class Canary:
    """A user, who is logged in by a token at the hub behind the proxy at `url`, which is `owner`'s.

    Every method raises UserError with what has gone wrong.
    """

    url: str
    owner: Owner
    name: str
    token: str

    @classmethod
    def log_in(cls, url: str, owner: Owner, service_token: str, name: str) -> "Canary":
        """Make the user, unless the hub knows the name, and a token that the hub takes; look at the login page."""
        service = cls(url, owner, name, service_token)
        service.api("POST", accept=(HTTPStatus.CREATED, HTTPStatus.CONFLICT))
        made = service.api("POST", "/tokens", {"note": "rehearsal", "expires_in": 3600}, (HTTPStatus.CREATED,))
        user = replace(service, token=made["token"])
        service.ask("GET", "hub/login", accept=(HTTPStatus.OK, HTTPStatus.FOUND))  # the site's own pages
        return replace(user, name=str(user.api("GET")["name"]))  # as the hub writes it

    def ask(self, method: str, path: str, body: object = None, accept: tuple[int, ...] = ()) -> bytes:
        """Return the answer to a request below the hub's base URL. Raises UserError if it has another status."""
        status, text = self.answer(method, path, body)
        if accept and status not in accept:
            raise UserError(f"{method} {urlsplit(self.url).path}{path} has got {status}: {reason(text)}")
        return text

    def answer(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Return status and body of an answer, as far as it comes within ANSWER."""
        connection = Connection(urlsplit(self.url), self.owner)
        connection.timeout = ANSWER
        headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        text = json.dumps(body) if body is not None else None
        try:
            connection.request(method, f"{urlsplit(self.url).path}{path}", text, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UserError(f"{method} {path} has got no answer: {error}") from None
        finally:
            connection.close()

    def api(
        self, method: str, path: str = "", body: object = None, accept: tuple[int, ...] = (HTTPStatus.OK,)
    ) -> dict[str, Any]:
        """Return what the hub's API says of this user; nothing if it says nothing."""
        text = self.ask(method, f"hub/api/users/{quote(self.name, safe='')}{path}", body, accept)
        try:
            found = json.loads(text or b"{}")
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}

    def start_server(self, seconds: float = START) -> str:
        """Start the default server, as the site's spawner does it; return its path when it is ready."""
        status, _ = self.answer("POST", f"hub/api/users/{quote(self.name, safe='')}/server", {})
        deadline = time.monotonic() + seconds
        while status in (HTTPStatus.CREATED, HTTPStatus.ACCEPTED):
            server = self.api("GET")["servers"].get("")
            if server is None:
                break
            if server["ready"]:
                return str(urlsplit(server["url"]).path)
            if time.monotonic() > deadline:
                raise UserError(f"not within {seconds:.0f} s; last: {self.progress() or server['pending']}")
            time.sleep(0.5)
        raise UserError(self.progress() or f"the hub has answered {status}")

    def progress(self) -> str:
        """Return what the spawner last said of the server's start; empty if it says nothing."""
        last = ""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            connection = Connection(urlsplit(self.url), self.owner)
            with contextlib.closing(connection):
                path = f"{urlsplit(self.url).path}hub/api/users/{quote(self.name, safe='')}/server/progress"
                connection.request("GET", path, headers={"Authorization": f"token {self.token}"})
                for line in connection.getresponse():  # until it ends, or says nothing for `health.TIMEOUT`
                    if line.startswith(b"data:"):
                        last = str(json.loads(line[5:]).get("message", ""))
        return printable(last)

    def stop_server(self, seconds: float = STOP) -> None:
        """Stop the default server; return when it has ended."""
        accept = (HTTPStatus.NO_CONTENT, HTTPStatus.ACCEPTED)
        self.api("DELETE", "/server", accept=accept)
        deadline = time.monotonic() + seconds
        while self.api("GET")["servers"]:
            if time.monotonic() > deadline:
                raise UserError(f"not within {seconds:.0f} s")
            time.sleep(0.2)

    def compute(self, server: str, code: str = "1+1") -> str:
        """Return the value of this code in a new kernel of the server at that path; empty if it has no kernels."""
        below = server.removeprefix(urlsplit(self.url).path)
        status, text = self.answer("POST", f"{below}api/kernels", {})
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            return ""
        if status != HTTPStatus.CREATED:
            raise UserError(f"the server has started no kernel: {status} {reason(text)}")
        kernel = f"{below}api/kernels/{json.loads(text)['id']}"
        try:
            return asyncio.run(self.execute(f"{kernel}/channels", code))
        except (OSError, TimeoutError) as error:
            raise UserError(f"no answer of the kernel within {KERNEL:.0f} s: {error!r}") from None
        finally:
            self.ask("DELETE", kernel)

    async def execute(self, channels: str, code: str) -> str:
        """Return the value of an expression, by a kernel's websocket ("Messaging in Jupyter" of jupyter-client)."""
        from tornado.httpclient import HTTPClientError, HTTPRequest
        from tornado.websocket import WebSocketClosedError, websocket_connect

        parts = urlsplit(self.url)
        url = urlunsplit(("ws", parts.netloc, f"{parts.path}{channels}", "", ""))
        Connection(parts, self.owner).require_owner()
        request = HTTPRequest(url, headers={"Authorization": f"token {self.token}"}, request_timeout=KERNEL)
        async with asyncio.timeout(KERNEL):
            try:
                socket = await websocket_connect(request)
            except HTTPClientError as error:
                raise UserError(f"the kernel's websocket is refused: {error}") from None
            header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
            header |= {"session": uuid.uuid4().hex, "username": self.name}
            content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
            message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
            with contextlib.suppress(WebSocketClosedError):  # as is said below
                await socket.write_message(json.dumps(message))
            while (text := await socket.read_message()) is not None:
                if found := value_in(json.loads(text), header["msg_id"]):
                    socket.close()
                    return found
        raise UserError("the kernel's websocket was closed")


def value_in(message: Mapping[str, Any], asked: str) -> str:
    """Return the value that a kernel's message carries for the request `asked`; empty for others. Raises UserError."""
    if message["parent_header"].get("msg_id") != asked:
        return ""
    match message["msg_type"], message["content"]:
        case "execute_result", {"data": {"text/plain": value}}:
            return str(value)
        case "error", {"ename": name, "evalue": why}:
            raise UserError(printable(f"the kernel says {name}: {why}"))
    return ""


def reason(text: bytes) -> str:
    """Return the message of an answer in JSON; of any other, that it has none."""
    try:
        return printable(str(json.loads(text)["message"]))
    except (ValueError, TypeError, KeyError):
        return "without a reason"
