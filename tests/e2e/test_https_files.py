"""HTTPS with certificate files, told in order on one machine: what browsers get, renewals, and invalid files."""

import base64
import hashlib
import ssl
from http.client import HTTPConnection
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from selenium.webdriver.common.by import By

from tests.machines.authority import Pair, authority, issue
from tests.machines.browser import chromium, log_in
from tests.machines.https_client import NAME, connect, served, visitors
from tests.machines.https_site import (
    ALIAS,
    ARCHIVE,
    CERTIFICATES,
    INSTALLED,
    LIVE,
    give,
    install,
    journal,
    options_of,
    status,
    wait_until_served,
)
from tests.machines.hub_client import BAREHUB, HUB, PROXY, HubSession
from tests.machines.machine import Machine

COPY = "/opt/barehub/state/proxy/certificate.pem"


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


def test_install_with_certificate_files(machine: Machine, installer: Path, first: Pair, intermediate: Pair) -> None:
    machine.copy_in(installer, "/mnt/barehub.sh")
    output = install(machine, first.cert + intermediate.cert, first.key)
    assert f"is running at https://{NAME}/" in output
    assert options_of(machine.read(INSTALLED)) == [
        f'c.JupyterHub.bind_url = "https://{NAME}"',
        f'c.JupyterHub.ssl_cert = "{LIVE}/fullchain.pem"',
        f'c.JupyterHub.ssl_key = "{LIVE}/privkey.pem"',
    ]


def test_the_key_is_readable_by_root_and_the_proxy_alone(machine: Machine) -> None:
    assert machine.succeed("stat", "-Lc", "%a %U", f"{LIVE}/privkey.pem").split() == ["600", "root"]
    assert machine.succeed("stat", "-c", "%a %U", COPY).split() == ["400", "barehub-proxy"]
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
        connection = HTTPConnection("127.0.0.1", 80, timeout=120)
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
        assert browser.current_url == f"https://{NAME}/hub/login"
        log_in(browser, "alice", picture=screenshots / "https-login.png")
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
    machine.succeed("chmod", "755", "/etc/letsencrypt/live", "/etc/letsencrypt/archive")  # or nobody gets to the key
    machine.succeed("systemctl", "reload", PROXY)
    wait_until_served(machine, elsewhere)
    said = journal(machine)
    output = machine.succeed(BAREHUB, "status")
    for text in (said, output):
        assert f"the certificate is not for {NAME}, but for elsewhere.example.org" in text
        assert "the chain ends with Test Intermediate" in text
    assert f"everybody can read {LIVE}/privkey.pem" in said


def test_a_certificate_that_is_not_served_is_told(machine: Machine, intermediate: Pair) -> None:
    other = issue(intermediate, "other.example.org")
    machine.write("/opt/barehub/state/proxy/other.pem", other.cert + other.key)
    machine.succeed("systemctl", "stop", HUB)
    machine.succeed("sed", "-i", "s#certificate.pem#other.pem#g", "/opt/barehub/state/rules/rules.yaml")
    machine.succeed("systemctl", "restart", PROXY)
    said = journal(machine)
    assert "warning: traefik serves the certificate other.example.org, by Test Intermediate" in said
    assert f" for {NAME} instead of the one in {COPY} after 10 s" in said
    machine.succeed("systemctl", "start", HUB)
    machine.eventually(BAREHUB, "status")
