"""What servers behind HTTPS get to see of clients, and changes of the proxy's configuration, told in order."""

import json
import ssl
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.machines.authority import authority, issue
from tests.machines.https_client import NAME, served
from tests.machines.https_site import ACME, CONFIG, INSTALLED, install, journal, options_of, restart, status
from tests.machines.https_site import FILES as CERTIFICATE_FILES
from tests.machines.hub_client import BAREHUB, PROXY
from tests.machines.machine import Machine

FILES = f"""{CERTIFICATE_FILES}
c.JupyterHub.services = [{{"name": "echo", "url": "http://127.0.0.1:9999"}}]
"""

# Says which headers have reached it.
ECHO = """
import http.server, json

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps([*self.headers.items()]).encode())

http.server.HTTPServer(("127.0.0.1", 9999), Handler).serve_forever()
"""


def echoed(machine: Machine, headers: dict[str, str]) -> dict[str, str]:
    """What a server behind the proxy gets to see of a request, by headers in lower case."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with machine.network():
        connection = HTTPSConnection("127.0.0.1", 443, timeout=120, context=context)
        connection.request("GET", "/services/echo/", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        seen = {name.lower(): value for name, value in json.loads(response.read())}
        connection.close()
        return seen | {"(hsts)": response.getheader("Strict-Transport-Security")}


def test_install_with_certificate_files(machine: Machine, installer: Path) -> None:
    machine.copy_in(installer, "/mnt/barehub.sh")
    root = authority()
    pair = issue(root, NAME)
    install(machine, pair.cert + root.cert, pair.key)


def test_nobody_can_pretend_to_be_somebody_else(machine: Machine) -> None:
    machine.write("/mnt/echo.py", ECHO)
    machine.succeed("systemd-run", "--unit=echo", "python3", "/mnt/echo.py")
    restart(machine, FILES)
    machine.eventually(BAREHUB, "status")
    false = {
        "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example.org",
        "X-Forwarded-Port": "1", "X-Real-Ip": "192.0.2.1", "X_Forwarded_For": "192.0.2.1", "X_Real_IP": "192.0.2.1",
        "Forwarded": "for=192.0.2.1", "X-Forwarded-Tls-Client-Cert": "x",
    }  # fmt: skip
    for more in ({}, {"Connection": "X-Forwarded-For, X-Real-Ip, X-Forwarded-Proto"}):
        seen = echoed(machine, {"Host": NAME} | false | more)
        assert (seen["x-forwarded-for"], seen["x-real-ip"]) == ("127.0.0.1", "127.0.0.1")
        assert (seen["x-forwarded-proto"], seen["x-forwarded-host"]) == ("https", NAME)
        assert "192.0.2.1" not in {value for name, value in seen.items() if name != "forwarded"}
        assert "evil.example.org" not in seen.values()
    assert seen["(hsts)"] is None


def test_headers_of_a_trusted_network_are_believed_and_hsts_is_said(machine: Machine) -> None:
    more = 'c.BarehubProxy.trusted_networks = ["127.0.0.0/8"]\nc.BarehubProxy.hsts_seconds = 31536000\n'
    restart(machine, FILES + more)
    machine.eventually(BAREHUB, "status")
    seen = echoed(machine, {"Host": NAME, "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "front.example.org"})
    assert seen["x-forwarded-for"] == "192.0.2.1, 127.0.0.1"
    assert seen["x-forwarded-host"] == "front.example.org"
    assert seen["(hsts)"] == "max-age=31536000"


OTHER_PORT = FILES.replace(f"https://{NAME}", f"https://{NAME}:8443/base/")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (OTHER_PORT, "cannot listen on :8443 (entrypoint web): Address already in use"),
        (ACME + "c.BarehubProxy.acme_ca_bundle = '/nowhere'", "acme_ca_bundle: /nowhere: No such file or directory"),
    ],
)
def test_a_mistake_leaves_the_proxy_as_it_was(machine: Machine, config: str, message: str) -> None:
    if config is OTHER_PORT:
        machine.succeed("systemd-run", "--unit=squatter", "python3", "-m", "http.server", "8443")
        machine.eventually("python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8443))")
    serial = served(machine).serial_number
    machine.write(CONFIG, config)
    machine.succeed("systemctl", "restart", PROXY)
    assert machine.unit(PROXY, "ActiveState") == "active"
    said = journal(machine)
    assert message in said
    assert "the proxy goes on with its last configuration" in said
    assert served(machine).serial_number == serial
    assert echoed(machine, {})["x-forwarded-proto"] == "https"
    output = machine.fails(BAREHUB, "status", code=1)
    assert "its last configuration" in output or "the proxy runs with an older configuration" in output


def test_another_port_and_a_base_url(machine: Machine) -> None:
    machine.succeed("systemctl", "stop", "squatter")
    restart(machine, OTHER_PORT)
    machine.eventually(BAREHUB, "status")
    assert status(machine)["url"] == f"https://{NAME}:8443/base/"
    listening = machine.succeed("ss", "-Hltn")
    assert "*:8443" in listening
    assert "*:443" not in listening
    assert "*:80 " not in listening  # who knows whose port 80 is


def test_back_to_http_nothing_is_left_of_it(machine: Machine) -> None:
    machine.succeed("rm", CONFIG)
    machine.succeed("sh", "/mnt/barehub.sh", "-b", "--bind-url", "http://:8000")
    assert options_of(machine.read(INSTALLED)) == ['c.JupyterHub.bind_url = "http://:8000"']
    machine.succeed(BAREHUB, "status")
    machine.fails("ls", "/opt/barehub/state/proxy/certificate.json")
    machine.succeed(BAREHUB, "uninstall", "-y")
    assert machine.succeed("find", "/etc/systemd/system", "-name", "barehub*") == ""
