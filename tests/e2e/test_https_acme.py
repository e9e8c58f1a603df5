"""HTTPS with an ACME server, told in order on one machine: its challenges, renewals, and traefik's store."""

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from cryptography import x509

from tests.machines import pebble
from tests.machines.authority import Pair, authority, issue
from tests.machines.https_client import NAME, served
from tests.machines.https_site import (
    ACME,
    ALIAS,
    CERTIFICATES,
    CONFIG,
    INSTALLED,
    install,
    journal,
    options_of,
    restart,
    status,
)
from tests.machines.hub_client import BAREHUB, PROXY
from tests.machines.machine import Machine

STORE = "/opt/barehub/state/acme/acme.json"


@pytest.fixture(scope="module")
def root_authority() -> Pair:
    return authority()


def test_install_with_certificate_files_at_first(machine: Machine, installer: Path, root_authority: Pair) -> None:
    machine.copy_in(installer, "/mnt/barehub.sh")
    pair = issue(root_authority, NAME)
    install(machine, pair.cert + root_authority.cert, pair.key)


def names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return sorted(found.value.get_values_for_type(x509.DNSName))


def wait_for_certificate(machine: Machine, other_than: int = 0, name: str = NAME) -> x509.Certificate:
    """The certificate for `name` from the ACME server, once its serial number is not this one."""
    deadline = time.monotonic() + 240
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
    assert options_of(machine.read(INSTALLED)) == [
        f'c.JupyterHub.bind_url = "https://{NAME}"',
        'c.BarehubProxy.acme_email = "admin@example.org"',
        f'c.BarehubProxy.acme_ca_server = "{pebble.DIRECTORY}"',
        f'c.BarehubProxy.acme_ca_bundle = "{pebble.BUNDLE}"',
    ]
    found = wait_for_certificate(machine)
    assert names(found) == [NAME]
    assert machine.succeed("stat", "-c", "%a %U", STORE).split() == ["600", "barehub-proxy"]
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

    assert code("http://127.0.0.1:335/api/rawdata") == "401 None"
    assert code("http://127.0.0.1:335/dashboard/") == "404 None"
    for path in ("api/rawdata", "dashboard/"):
        assert code(f"https://127.0.0.1/{path}") == f"302 /hub/{path}"  # it is the hub's to answer
    listening = machine.succeed("ss", "-Hltn")
    assert "127.0.0.1:335" in listening
    assert "*:335" not in listening


def test_it_is_renewed_with_no_attention(machine: Machine) -> None:
    before = machine.unit(PROXY, "InvocationID")
    wait_for_certificate(machine, other_than=served(machine).serial_number)
    assert machine.unit(PROXY, "InvocationID") == before


def test_a_restart_shows_nothing_but_the_stored_certificate(machine: Machine) -> None:
    seen, gone = Counter[str](), threading.Event()

    def visit() -> None:
        while not gone.is_set():
            seen[str(served(machine).issuer.rfc4514_string().startswith("CN=Pebble"))] += 1

    visitors = [threading.Thread(target=visit) for _ in range(3)]
    for visitor in visitors:
        visitor.start()
    for _ in range(5):
        machine.succeed("systemctl", "restart", PROXY)
    gone.set()
    for visitor in visitors:
        visitor.join()
    assert set(seen) == {"True"}, seen
    assert "nevertheless" not in journal(machine)


def test_more_names_by_http_01_while_http_is_redirected(machine: Machine) -> None:
    more = f'c.BarehubProxy.acme_domains = ["{NAME}", "{ALIAS}"]\nc.BarehubProxy.acme_challenge = "http-01"\n'
    restart(machine, ACME + more)
    assert names(wait_for_certificate(machine, name=ALIAS)) == [ALIAS, NAME]
    output = machine.eventually(BAREHUB, "status")  # whose lifetime is Let's Encrypt's by default
    assert "valid for 1 h: set c.BarehubProxy.acme_certificate_hours to that" in output


def test_a_store_that_was_damaged_is_restored(machine: Machine) -> None:
    machine.succeed("systemctl", "start", CERTIFICATES)  # takes the copy
    machine.succeed("systemctl", "stop", "pebble")
    serial, good = served(machine, ALIAS).serial_number, machine.read(STORE)
    for damage, said in {
        f": >{STORE}": "was damaged; restored",
        f"head -c 300 {STORE} >/tmp/x && cat /tmp/x >{STORE}": "was damaged; restored",
        f"chmod 644 {STORE}": "had mode 644",
    }.items():
        machine.succeed("systemctl", "stop", PROXY)
        machine.shell(damage)
        machine.succeed("systemctl", "start", PROXY)
        assert said in journal(machine)
        assert served(machine, ALIAS).serial_number == serial
        assert json.loads(machine.read(STORE)) == json.loads(good)
        assert machine.succeed("stat", "-c", "%a %U", STORE).split() == ["600", "barehub-proxy"]
    # And while the proxy runs.
    machine.shell(f": >{STORE}; touch -d yesterday {STORE}; systemctl start {CERTIFICATES}")
    assert "was damaged; restored" in machine.succeed("journalctl", "--no-pager", "-u", CERTIFICATES)
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
