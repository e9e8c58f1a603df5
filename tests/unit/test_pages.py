"""What people see while the hub is away or their server has ended: BarehubProxy, the supervisor, and a real traefik."""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.unit import proxies
from tests.unit.proxies import Server, free_port, named_server, wait_until
from tests.unit.supervised import Place, place_in

if os.environ.get("CI") != "true":
    pytest.importorskip("jupyterhub_traefik_proxy")

from barehub import notices
from barehub.proxy import BarehubProxy
from jupyterhub.app import JupyterHub

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Cookie": "c=secret"}
PROGRAM = {"Accept": "*/*", "Authorization": "token secret"}
RELOADS = 'http-equiv="refresh"'


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


def ask(port: int, path: str, headers: dict[str, str], method: str = "GET", body: bytes | None = None) -> Answer:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read().decode())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An installation whose proxy runs, with a route to the hub and one to a server, where nobody listens yet."""
    with place_in(tmp_path) as new:
        monkeypatch.setenv("BAREHUB_BASE", str(new.base))
        new.systemd.start()
        new.systemd.wait_until_ready()
        yield new


@pytest.fixture
def away(place: Place) -> Place:
    route(place, {"/": f"http://127.0.0.1:{free_port()}", "/user/alice/": f"http://127.0.0.1:{free_port()}"})
    return place


def route(place: Place, routes: dict[str, str], hub: JupyterHub | None = None) -> None:
    """Let the hub's side of the proxy add routes; that of / leads to the hub."""

    async def add() -> None:
        traits = {"public_url": f"http://127.0.0.1:{place.web}", "traefik_api_url": f"http://127.0.0.1:{place.api}"}
        proxy = BarehubProxy(parent=hub, **traits) if hub else BarehubProxy(**traits)
        for spec, target in routes.items():
            await proxy.add_route(spec, target, {"hub": True} if spec == "/" else {"user": "alice"})

    asyncio.run(add())


@pytest.mark.parametrize("path", ["/", "/hub/home?next=%2F", "/hub/api/oauth2/authorize?client_id=x", "/user/bob/lab"])
def test_a_browser_gets_a_page_that_reloads_itself(away: Place, path: str) -> None:
    status, headers, text = ask(away.web, path, BROWSER)
    assert (status, headers["Retry-After"], headers["Cache-Control"]) == (503, "5", "no-store")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Location" not in headers
    assert RELOADS in text
    assert "The hub is not available" in text


def test_who_sent_a_form_gets_the_page(away: Place) -> None:
    status, _, text = ask(away.web, "/hub/login", BROWSER, "POST", b"username=alice")
    assert status == 503
    assert RELOADS in text


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_program_gets_json(away: Place, method: str) -> None:
    status, headers, text = ask(away.web, "/hub/api/users", PROGRAM, method)
    assert (status, headers["Retry-After"], headers["Content-Type"]) == (503, "5", "application/json")
    assert json.loads(text)["status"] == 503
    assert ask(away.web, "/hub/api/users", PROGRAM, "HEAD").status == 503


def test_the_same_address_leads_to_the_hub_when_it_is_back_and_to_the_page_when_it_goes(place: Place) -> None:
    with named_server("hub") as hub:
        route(place, {"/": hub})
        assert ask(place.web, "/hub/home", BROWSER)[::2] == (200, "hub")
    assert ask(place.web, "/hub/home", BROWSER).status == 503
    with listening(urlsplit(hub).port or 0, "back"):
        assert ask(place.web, "/hub/home", BROWSER)[::2] == (200, "back")


@contextlib.contextmanager
def listening(port: int, name: str) -> Iterator[None]:
    """A server at a port that another has left."""
    with Server(("127.0.0.1", port), type("Handler", (proxies.Named,), {"name": name})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def test_a_server_that_has_ended_leads_to_the_hub_and_is_not_asked_for_ever(away: Place) -> None:
    status, headers, text = ask(away.web, "/user/alice/lab", BROWSER)
    assert status == 502
    assert "Retry-After" not in headers
    assert RELOADS not in text
    assert 'href="/hub/home"' in text
    status, _, text = ask(away.web, "/user/alice/api/kernels", PROGRAM, "POST", b"{}")
    assert (status, json.loads(text)["status"]) == (502, 502)


@pytest.mark.parametrize(
    ("traits", "home"),
    [
        ({"bind_url": "http://127.0.0.1:8000/dev/"}, "/dev/hub/home"),
        ({"subdomain_host": "https://hub.example.org"}, "https://hub.example.org/hub/home"),
    ],
)
def test_the_way_to_the_hub_is_the_hubs_own(place: Place, traits: dict[str, str], home: str) -> None:
    route(place, {"/dev/user/alice/": f"http://127.0.0.1:{free_port()}"}, JupyterHub(**traits))
    assert f'href="{home}"' in ask(place.web, "/dev/user/alice/", BROWSER).text


def test_the_page_has_the_hubs_logo(place: Place, tmp_path: Path) -> None:
    ours = place.base / "hub/share/jupyterhub/static/images/jupyterhub-80.png"
    ours.parent.mkdir(parents=True)
    ours.write_bytes(b"ours")
    sites, namesake = tmp_path / "logo.svg", tmp_path / ours.name
    sites.write_text("<svg/>")
    namesake.write_bytes(b"theirs")
    for file, shown in (
        (sites, "data:image/svg+xml;base64,PHN2Zy8+"),
        (namesake, "data:image/png;base64,dGhlaXJz"),
        (ours, "data:image/png;base64,b3Vycw=="),
    ):
        route(place, {"/": f"http://127.0.0.1:{free_port()}"}, JupyterHub(logo_file=str(file)))
        assert f'src="{shown}"' in ask(place.web, "/hub/home", BROWSER).text
    (place.base / "state/rules/.new/logo").write_text('data:image/png;base64,"><script>')
    assert 'src="data:image/png;base64,b3Vycw=="' in ask(place.web, "/hub/home", BROWSER).text


def test_the_pages_are_there_after_a_restart_of_the_proxy(away: Place) -> None:
    for _ in range(2):
        away.systemd.stop()
        away.systemd.start()
        away.systemd.wait_until_ready()
        assert RELOADS in ask(away.web, "/hub/home", BROWSER).text
    away.systemd.crash()
    away.systemd.start()
    away.systemd.wait_until_ready()
    assert RELOADS in ask(away.web, "/hub/home", BROWSER).text


def test_what_maintenance_md_says_is_on_the_page_while_it_is_there(away: Place) -> None:
    path = away.base / "maintenance.md"
    path.write_text("Back at **14:00** <script>")
    path.chmod(0o644)
    assert "Back at <strong>14:00</strong> &lt;script&gt;" in ask(away.web, "/hub/home", BROWSER).text
    assert "14:00" not in ask(away.web, "/user/alice/", BROWSER).text
    path.chmod(0o666)
    assert "14:00" not in ask(away.web, "/hub/home", BROWSER).text
    path.unlink()
    assert RELOADS in ask(away.web, "/hub/home", BROWSER).text


def test_a_page_of_the_sites_own_is_shown_as_it_is_while_it_is_there(away: Place) -> None:
    path = away.base / "maintenance.html"
    path.write_bytes(b"<title>Zur\xc3\xbcck</title> $HOME \xff")
    path.chmod(0o644)
    shown = ask(away.web, "/hub/home", BROWSER)
    assert (shown.status, shown.text) == (503, "<title>Zurück</title> $HOME \ufffd")
    assert (shown.headers["Retry-After"], shown.headers["Refresh"]) == ("5", "5")
    assert ask(away.web, "/hub/api/user", PROGRAM).headers["Content-Type"] == "application/json"
    assert "Zurück" not in ask(away.web, "/user/alice/", BROWSER).text
    for text, mode in ((b"x" * (notices.SIZE + 1), 0o644), (b"x", 0o666)):
        path.write_bytes(text)
        path.chmod(mode)
        assert RELOADS in ask(away.web, "/hub/home", BROWSER).text
    path.unlink()
    assert RELOADS in ask(away.web, "/hub/home", BROWSER).text


class Program(BaseHTTPRequestHandler):
    """A user's server: it answers with the status in the path, streams events, and takes uploads."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        code = int(self.path.rpartition("/")[2])
        self.send_response(code)
        if code == 200:
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: 1\n\n")
            self.rfile.read(1)  # until the client goes: nothing more comes
            return
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"mine")

    def do_PUT(self) -> None:
        size = len(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.send_header("Content-Length", str(len(str(size))))
        self.end_headers()
        self.wfile.write(str(size).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def program(away: Place) -> Iterator[Place]:
    """A place without a hub, where alice's server runs."""
    with Server(("127.0.0.1", 0), Program) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        route(away, {"/user/alice/": f"http://127.0.0.1:{server.server_port}"})
        yield away
        server.shutdown()


@pytest.mark.parametrize("code", [404, 424, 500, 503])
def test_errors_of_a_running_server_are_its_own(program: Place, code: int) -> None:
    assert ask(program.web, f"/user/alice/{code}", BROWSER)[::2] == (code, "mine")


def test_a_servers_own_502_keeps_its_status(program: Place) -> None:
    assert ask(program.web, "/user/alice/502", PROGRAM).status == 502
    assert ask(program.web, "/user/alice/504", PROGRAM).status == 504


def test_uploads_and_streams_of_a_running_server_go_through_without_the_hub(program: Place) -> None:
    size = 20_000_000
    assert ask(program.web, "/user/alice/file", PROGRAM, "PUT", bytes(size))[::2] == (201, str(size))
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", program.web, timeout=60)) as connection:
        connection.request("GET", "/user/alice/200", headers={"Accept": "text/event-stream"})
        assert connection.getresponse().readline() == b"data: 1\n"  # although more is to come


def test_a_websocket_goes_on_while_the_hub_goes(place: Place) -> None:
    with named_server("hub") as hub, socket.create_server(("127.0.0.1", 0)) as kernel:
        route(place, {"/": hub, "/user/alice/": f"http://127.0.0.1:{kernel.getsockname()[1]}"})
        with socket.create_connection(("127.0.0.1", place.web), timeout=60) as client:
            client.sendall(
                b"GET /user/alice/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
            )
            behind, _ = kernel.accept()
            with behind:
                while b"\r\n\r\n" not in behind.recv(2**16, socket.MSG_PEEK):
                    pass
                behind.recv(2**16)
                behind.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                answer = client.makefile("rb")
                assert b" 101 " in answer.readline()
                while answer.readline().strip():
                    pass
                assert ask(place.web, "/hub/home", BROWSER).status == 200
                client.sendall(b"ping")
                assert behind.recv(4) == b"ping"
                behind.sendall(b"pong")
                assert answer.read(4) == b"pong"


def test_nothing_secret_leaves_the_request_and_an_older_supervisor_is_no_harm(place: Place) -> None:
    """traefik alone, told that the pages are at a place that keeps what it gets; then told nothing."""
    route(place, {"/": f"http://127.0.0.1:{free_port()}", "/user/alice/": f"http://127.0.0.1:{free_port()}"})
    place.systemd.end()
    words = (proxies.traefik(), f"--configfile={place.base}/state/proxy/traefik.yaml")
    with socket.create_server(("127.0.0.1", 0)) as pages:
        there = f"http://127.0.0.1:{pages.getsockname()[1]}"
        with proxies.running(*words, BAREHUB_PAGES=there):
            wait_until(lambda: proxies.answers(place.web) and ask(place.web, "/barehub-ready", {}).status == 418)
            got = threading.Thread(target=ask, args=(place.web, "/user/alice/lab?token=secret", BROWSER | PROGRAM))
            got.start()
            connection, _ = pages.accept()
            with connection:
                asked = connection.recv(2**16).decode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            got.join()
    assert asked.startswith("GET /server?status=502&home=%2Fhub%2Fhome HTTP/1.1\r\n")
    assert "secret" not in asked
    with proxies.running(*words):
        wait_until(lambda: proxies.answers(place.web) and ask(place.web, "/barehub-ready", {}).status == 418)
        assert ask(place.web, "/user/alice/", BROWSER)[::2] == (502, "Bad Gateway")
