"""HTTPS, told in order on one machine: certificate files, their renewal, what is wrong with them, an ACME server."""

import base64
import hashlib
import json
import ssl
import time
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from selenium.webdriver.common.by import By

from tests.machines import pebble
from tests.machines.authority import Pair, authority, issue
from tests.machines.browser import chromium
from tests.machines.https_client import NAME, connect, served, visitors
from tests.machines.hub_client import BAREHUB, HUB, PROXY, TEST_CONFIG, HubSession
from tests.machines.machine import Machine
from tests.machines.rootfs import USERS

ALIAS = "alias.example.org"
CONFIG = "/opt/barehub/jupyterhub_config.d/60-https.py"
COPY = "/opt/barehub/state/proxy/certificate.pem"
STORE = "/opt/barehub/state/acme/acme.json"
LIVE, ARCHIVE = "/etc/letsencrypt/live/hub", "/etc/letsencrypt/archive/hub"
CERTIFICATES = "barehub-certificates.service"


@pytest.fixture(scope="module")
def root_authority() -> Pair:
    return authority()


@pytest.fixture(scope="module")
def intermediate(root_authority: Pair) -> Pair:
    return authority("Test Intermediate", root_authority)


@pytest.fixture(scope="module")
def bundle(root_authority: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority that the users' browsers know."""
    path = tmp_path_factory.mktemp("authority") / "root.pem"
    path.write_text(root_authority.cert)
    return path


@pytest.fixture(scope="module")
def first(intermediate: Pair) -> Pair:
    return issue(intermediate, NAME, ALIAS, "127.0.0.1")


def give(machine: Machine, cert: str, key: str, number: int) -> None:
    """Have these be the certificate files, as certbot does it: new files, then links to them are renamed."""
    machine.write(f"{ARCHIVE}/fullchain{number}.pem", cert)
    machine.write(f"{ARCHIVE}/privkey{number}.pem", key, 0o600)
    for name in ("privkey", "fullchain"):
        machine.succeed("ln", "-sfn", f"../../archive/hub/{name}{number}.pem", f"{LIVE}/{name}.new")
        machine.succeed("mv", "-T", f"{LIVE}/{name}.new", f"{LIVE}/{name}.pem")


def restart(machine: Machine, config: str | None = None) -> None:
    if config is not None:
        machine.write(CONFIG, config)
    machine.succeed("systemctl", "restart", PROXY, HUB)


def status(machine: Machine) -> dict:
    return json.loads(machine.run(BAREHUB, "status", "--json").stdout)


def journal(machine: Machine, unit: str = PROXY) -> str:
    """What a unit has said in its latest run."""
    run = f"_SYSTEMD_INVOCATION_ID={machine.unit(unit, 'InvocationID')}"
    return machine.succeed("journalctl", "--no-pager", "--output=cat", run)


def test_install_with_certificate_files(machine: Machine, installer: Path, first: Pair, intermediate: Pair) -> None:
    machine.copy_in(installer, "/mnt/barehub.sh")
    machine.succeed("mkdir", "-p", LIVE, ARCHIVE)
    machine.succeed("chmod", "700", "/etc/letsencrypt/live", "/etc/letsencrypt/archive")
    give(machine, first.cert + intermediate.cert, first.key, 1)
    files = ("--tls-cert", f"{LIVE}/fullchain.pem", "--tls-key", f"{LIVE}/privkey.pem")
    output = machine.succeed("sh", "/mnt/barehub.sh", "-b", "--bind-url", f"https://{NAME}", *files)
    assert f"is running at https://{NAME}/" in output
    assert machine.read("/opt/barehub/jupyterhub_config.d/10-install.py").splitlines()[1:] == [
        f'c.JupyterHub.bind_url = "https://{NAME}"',
        f'c.JupyterHub.ssl_cert = "{LIVE}/fullchain.pem"',
        f'c.JupyterHub.ssl_key = "{LIVE}/privkey.pem"',
    ]
    machine.write("/opt/barehub/jupyterhub_config.d/50-test.py", TEST_CONFIG)
    machine.succeed("systemctl", "restart", HUB)
    machine.eventually(BAREHUB, "status")


def test_the_key_is_readable_by_root_and_the_proxy_alone(machine: Machine) -> None:
    assert machine.succeed("stat", "-Lc", "%a %U", f"{LIVE}/privkey.pem").split() == ["600", "root"]
    assert machine.succeed("stat", "-c", "%a %U", COPY).split() == ["400", "www-data"]
    for key in (COPY, f"{LIVE}/privkey.pem"):
        machine.as_user("alice", "sh", "-c", f"! cat {key} 2>/dev/null")
    assert "PRIVATE KEY" not in machine.read("/opt/barehub/state/rules/rules.yaml")


def test_status_tells_about_the_certificate(machine: Machine, first: Pair) -> None:
    told = status(machine)
    assert told["healthy"]
    assert told["url"] == f"https://{NAME}/"
    assert told["certificate_ends"] == first.certificate.not_valid_after_utc.isoformat()
    assert f"{NAME}, {ALIAS}, 127.0.0.1, by Test Intermediate" in told["certificate"]
    # The root is not one that this machine knows; that it is the users' is for the site to say.
    (warning,) = told["warnings"]
    assert "the chain ends with Test Authority, which is neither in ssl_cert nor known to this machine" in warning


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_browsers_get_modern_tls_and_nothing_else(machine: Machine, bundle: Path) -> None:
    context = ssl.create_default_context(cafile=bundle)
    context.set_alpn_protocols(["h2", "http/1.1"])
    for name in (NAME, ALIAS):
        with connect(machine, context, name) as one:
            assert (one.version(), one.selected_alpn_protocol()) == ("TLSv1.3", "h2")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    with connect(machine, context) as one:
        assert one.version() == "TLSv1.2"
    context.set_ciphers("AES128-SHA:AES256-GCM-SHA384:ECDHE-ECDSA-AES128-SHA")
    with pytest.raises(ssl.SSLError):
        connect(machine, context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        connect(machine, context)


@pytest.mark.parametrize(("method", "code"), [("GET", 301), ("POST", 308)])
def test_http_is_redirected(machine: Machine, method: str, code: int) -> None:
    with machine.network():
        connection = HTTPConnection("127.0.0.1", 80, timeout=20)
        connection.request(method, "/hub/login?next=%2Fhub%2Fhome&a=b", headers={"Host": NAME})
        response = connection.getresponse()
        assert response.status == code
        assert response.getheader("Location") == f"https://{NAME}/hub/login?next=%2Fhub%2Fhome&a=b"
        connection.close()


def test_alice_works_over_https(machine: Machine, bundle: Path) -> None:
    alice = HubSession(machine, "alice", "https://127.0.0.1")
    alice.verify = str(bundle)
    answer = alice.login()
    assert answer.history
    assert alice.is_logged_in()
    cookies = {cookie.name: cookie for cookie in alice.cookies}
    assert cookies["jupyterhub-hub-login"].secure
    alice.start_server()
    assert alice.start_kernel().execute("print(6 * 7)") == "42\n"


def test_the_login_page_in_a_browser(machine: Machine, first: Pair, screenshots: Path) -> None:
    public = first.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    known = base64.b64encode(hashlib.sha256(public).digest()).decode()
    switches = (f"host-resolver-rules=MAP {NAME} 127.0.0.1", f"ignore-certificate-errors-spki-list={known}")
    with machine.network(), chromium(*switches) as browser:
        browser.get(f"http://{NAME}/hub/login")
        browser.find_element(By.ID, "username_input").send_keys("alice")
        browser.find_element(By.ID, "password_input").send_keys(USERS["alice"])
        browser.save_screenshot(screenshots / "https-login.png")
        assert browser.current_url == f"https://{NAME}/hub/login"
        browser.find_element(By.ID, "login_submit").click()
        browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
        assert browser.current_url.startswith(f"https://{NAME}/user/alice/lab")


def test_a_renewed_pair_is_taken_with_no_failed_request(
    machine: Machine, bundle: Path, first: Pair, intermediate: Pair
) -> None:
    before = [machine.unit(unit, "InvocationID") for unit in (PROXY, HUB)]
    assert machine.unit("barehub-certificates.timer", "ActiveState") == "active"
    second = issue(intermediate, NAME, ALIAS, "127.0.0.1")
    assert served(machine).serial_number == first.serial
    with visitors(machine, ssl.create_default_context(cafile=bundle)) as seen:
        give(machine, second.cert + intermediate.cert, second.key, 2)
        machine.succeed("systemctl", "start", CERTIFICATES)  # which the timer does each minute
        wait_until_served(machine, second)
    assert set(seen) == {"200"}
    assert seen["200"] > 20
    assert [machine.unit(unit, "InvocationID") for unit in (PROXY, HUB)] == before
    assert "error" not in journal(machine)


def wait_until_served(machine: Machine, pair: Pair) -> None:
    for _ in range(400):
        if served(machine).serial_number == pair.serial:
            return
    pytest.fail(f"another certificate is served: {machine.run(BAREHUB, 'status').stdout}")


def test_a_bad_renewal_leaves_the_pair_in_use(machine: Machine, intermediate: Pair) -> None:
    serial = served(machine).serial_number
    other = issue(intermediate, NAME)
    bad = {
        "the key in ssl_key is not that of the first certificate": (other.cert, intermediate.key),
        "put the server's certificate before its issuers'": (intermediate.cert + other.cert, other.key),
        "ssl_cert holds no PEM certificate, or a damaged one": (other.cert[:300], other.key),
        "ssl_key holds no PEM private key, or a damaged one": (other.cert, other.key[:60]),
        "has expired on": ((late := issue(intermediate, NAME, days=1, since=3)).cert, late.key),
    }
    for number, (what, (cert, key)) in enumerate(bad.items(), 10):
        give(machine, cert, key, number)
        machine.succeed("systemctl", "start", CERTIFICATES)
        said = journal(machine)
        assert what in said
        assert "the proxy goes on with the certificate it has" in said
        assert served(machine).serial_number == serial
    machine.succeed("systemctl", "restart", PROXY)
    assert served(machine).serial_number == serial
    machine.fails("systemctl", "reload", PROXY, code=1)
    assert machine.unit(PROXY, "ActiveState") == "active"
    machine.succeed("rm", f"{LIVE}/privkey.pem")
    output = machine.fails(BAREHUB, "status", code=1)
    assert f"problem: ssl_key: {LIVE}/privkey.pem: No such file or directory; the proxy goes on" in output


def test_warnings_that_stop_nothing(machine: Machine, intermediate: Pair) -> None:
    elsewhere = issue(intermediate, "elsewhere.example.org", days=5)
    give(machine, elsewhere.cert, elsewhere.key, 20)
    machine.succeed("chmod", "644", f"{ARCHIVE}/privkey20.pem")
    machine.succeed("systemctl", "reload", PROXY)
    wait_until_served(machine, elsewhere)
    said = journal(machine)
    output = machine.succeed(BAREHUB, "status")
    for text in (said, output):
        assert f"the certificate is not for {NAME}, but for elsewhere.example.org" in text
        assert "the chain ends with Test Intermediate" in text
    assert f"everybody can read {LIVE}/privkey.pem" in said


ACME = f"""
c.JupyterHub.ssl_cert = c.JupyterHub.ssl_key = ""
c.JupyterHub.bind_url = "https://{NAME}"
c.BarehubProxy.acme_email = "admin@example.org"
c.BarehubProxy.acme_ca_server = "{pebble.DIRECTORY}"
c.BarehubProxy.acme_ca_bundle = "{pebble.BUNDLE}"
"""


def names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return sorted(found.value.get_values_for_type(x509.DNSName))


def wait_for_certificate(machine: Machine, other_than: int = 0, name: str = NAME) -> x509.Certificate:
    """The certificate for `name` from the ACME server, once it is another one than that with this number."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        found = served(machine, name)
        if "Pebble" in found.issuer.rfc4514_string() and found.serial_number != other_than:
            return found
        time.sleep(0.2)
    pytest.fail(f"{found}\n{machine.run(BAREHUB, 'status').stdout}")


def test_a_certificate_from_an_acme_server(machine: Machine, root_authority: Pair) -> None:
    # So short-lived that it is due for renewal, 20 minutes before its end, when it is there.
    pebble.install_pebble(machine, root_authority, seconds=1200)
    machine.write(CONFIG, "c.BarehubProxy.acme_certificate_hours = 1\n")
    options = ("--acme-email", "admin@example.org", "--acme-ca-server", pebble.DIRECTORY)
    more = ("--bind-url", f"https://{NAME}", *options, "--acme-ca-bundle", pebble.BUNDLE)
    machine.succeed("sh", "/mnt/barehub.sh", "-b", *more)
    assert machine.read("/opt/barehub/jupyterhub_config.d/10-install.py").splitlines()[1:] == [
        f'c.JupyterHub.bind_url = "https://{NAME}"',
        'c.BarehubProxy.acme_email = "admin@example.org"',
        f'c.BarehubProxy.acme_ca_server = "{pebble.DIRECTORY}"',
        f'c.BarehubProxy.acme_ca_bundle = "{pebble.BUNDLE}"',
    ]
    found = wait_for_certificate(machine)
    assert names(found) == [NAME]
    assert machine.succeed("stat", "-c", "%a %U", STORE).split() == ["600", "www-data"]
    machine.eventually(BAREHUB, "status")
    told = status(machine)
    assert told["certificate_ends"] == found.not_valid_after_utc.isoformat()
    assert f"{NAME}, by Pebble" in told["certificate"]
    assert told["warnings"] == []


def test_traefiks_api_wants_its_password_and_is_not_public(machine: Machine) -> None:
    def code(url: str) -> str:
        program = (
            "import ssl, sys, urllib.request as r, urllib.error as e\n"
            "class No(r.HTTPRedirectHandler):\n    def redirect_request(self, *_): return None\n"
            "o = r.build_opener(No, r.HTTPSHandler(context=ssl._create_unverified_context()))\n"
            "try: a = o.open(sys.argv[1])\nexcept e.HTTPError as x: a = x\n"
            "print(a.status, a.headers.get('Location'))"
        )
        return machine.succeed("python3", "-c", program, url).strip()

    assert code("http://127.0.0.1:8099/api/rawdata") == "401 None"
    assert code("http://127.0.0.1:8099/dashboard/") == "404 None"
    for path in ("api/rawdata", "dashboard/"):
        assert code(f"https://127.0.0.1/{path}") == f"302 /hub/{path}"  # it is the hub's to answer
    listening = machine.succeed("ss", "-Hltn")
    assert "127.0.0.1:8099" in listening
    assert "*:8099" not in listening


def test_it_is_renewed_with_no_attention(machine: Machine) -> None:
    before = machine.unit(PROXY, "InvocationID")
    wait_for_certificate(machine, other_than=served(machine).serial_number)
    assert machine.unit(PROXY, "InvocationID") == before


def test_more_names_by_http_01_while_http_is_redirected(machine: Machine) -> None:
    more = f'c.BarehubProxy.acme_domains = ["{NAME}", "{ALIAS}"]\nc.BarehubProxy.acme_challenge = "http-01"\n'
    restart(machine, ACME + more)
    assert names(wait_for_certificate(machine, name=ALIAS)) == [ALIAS, NAME]
    output = machine.eventually(BAREHUB, "status")  # whose lifetime is Let's Encrypt's by default
    assert "valid for 1 h: set c.BarehubProxy.acme_certificate_hours to that" in output


def test_a_store_that_was_damaged_is_put_back(machine: Machine) -> None:
    machine.succeed("systemctl", "start", CERTIFICATES)  # takes the copy
    machine.succeed("systemctl", "stop", "pebble")
    serial, good = served(machine, ALIAS).serial_number, machine.read(STORE)
    for damage, said in {
        f": >{STORE}": "was damaged; put back",
        f"head -c 300 {STORE} >/tmp/x && cat /tmp/x >{STORE}": "was damaged; put back",
        f"chmod 644 {STORE}": "had mode 644",
    }.items():
        machine.succeed("systemctl", "stop", PROXY)
        machine.shell(damage)
        machine.succeed("systemctl", "start", PROXY)
        assert said in journal(machine)
        assert served(machine, ALIAS).serial_number == serial
        assert json.loads(machine.read(STORE)) == json.loads(good)
        assert machine.succeed("stat", "-c", "%a %U", STORE).split() == ["600", "www-data"]
    # And while the proxy runs.
    machine.shell(f": >{STORE}; touch -d yesterday {STORE}; systemctl start {CERTIFICATES}")
    assert "was damaged; put back" in machine.succeed("journalctl", "--no-pager", "-u", CERTIFICATES)
    assert machine.read(STORE) == good


def test_a_wildcard_by_dns_01(machine: Machine) -> None:
    pebble.run(machine, "pebble", "pebble", "-config", pebble.CONFIG, "-dnsserver", "127.0.0.1:8053")
    environment = "/opt/barehub/jupyterhub_config.d/acme.env"
    machine.write(environment, "HTTPREQ_ENDPOINT=http://127.0.0.1:8056\n", 0o644)
    # Its DNS server knows no zones to look into.
    acme = {"dnsChallenge": {"propagation": {"disableChecks": True}}}
    extra = {"certificatesResolvers": {"acme-example-org-14000": {"acme": acme}}}
    more = f"""
c.BarehubProxy.acme_domains = ["*.example.org"]
c.BarehubProxy.acme_dns_provider = "httpreq"
c.BarehubProxy.acme_dns_resolvers = ["127.0.0.1:8053"]
c.TraefikProxy.extra_static_config = {extra}
"""
    machine.succeed("rm", STORE)  # the server has forgotten the account
    restart(machine, ACME + more)
    assert names(wait_for_certificate(machine, name="any.example.org")) == ["*.example.org"]
    assert f"{environment} is not root's alone" in journal(machine)
    assert f"warning: {environment} is not root's alone" in machine.eventually(BAREHUB, "status")
    machine.succeed("chmod", "600", environment)
    assert "is not root's alone" not in machine.succeed(BAREHUB, "status")


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
FILES = f"""
c.JupyterHub.bind_url = "https://{NAME}"
c.JupyterHub.ssl_cert, c.JupyterHub.ssl_key = "{LIVE}/fullchain.pem", "{LIVE}/privkey.pem"
c.BarehubProxy.acme_email = ""
c.JupyterHub.services = [{{"name": "echo", "url": "http://127.0.0.1:9999"}}]
"""


def echoed(machine: Machine, headers: dict[str, str]) -> dict[str, str]:
    """What a server behind the proxy gets to see of a request, by headers in lower case."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with machine.network():
        connection = HTTPSConnection("127.0.0.1", 443, timeout=20, context=context)
        connection.request("GET", "/services/echo/", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        seen = {name.lower(): value for name, value in json.loads(response.read())}
        connection.close()
        return seen | {"(hsts)": response.getheader("Strict-Transport-Security")}


def test_nobody_can_pretend_to_be_somebody_else(machine: Machine, first: Pair, intermediate: Pair) -> None:
    machine.write("/mnt/echo.py", ECHO)
    machine.succeed("systemd-run", "--unit=echo", "python3", "/mnt/echo.py")
    give(machine, first.cert + intermediate.cert, first.key, 30)
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
    assert machine.read("/opt/barehub/jupyterhub_config.d/10-install.py").splitlines()[1:] == [
        'c.JupyterHub.bind_url = "http://:8000"'
    ]
    machine.succeed(BAREHUB, "status")
    machine.fails("ls", "/opt/barehub/state/proxy/certificate.json")
    machine.succeed(BAREHUB, "uninstall", "-y")
    assert machine.succeed("find", "/etc/systemd/system", "-name", "barehub*") == ""
