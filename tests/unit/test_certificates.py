"""What is accepted as a certificate, and what is warned about."""

import os
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.machines.authority import authority, issue

if os.environ.get("CI") != "true":
    pytest.importorskip("cryptography")

from barehub.errors import UserError
from barehub.proxy_unit import certificates
from barehub.proxy_unit.certificates import AUTHORITIES, TRAEFIKS_OWN, Served, examine, expiry_of, leaf_of

ROOT = authority()
MIDDLE = authority("Middle", ROOT)
GOOD = issue(MIDDLE, "hub.example.org", "*.people.example.org", "192.0.2.7")


def warnings(cert: str, *names: str) -> list[str]:
    return examine(cert.encode(), GOOD.key.encode(), names)[2]


@pytest.mark.parametrize("name", ["hub.example.org", "HUB.example.org", "x.people.example.org", "192.0.2.7"])
def test_names_that_are_covered(name: str) -> None:
    assert warnings(GOOD.cert + MIDDLE.cert + ROOT.cert, name) == []


@pytest.mark.parametrize("name", ["example.org", "people.example.org", "a.b.people.example.org", "192.0.2.8"])
def test_names_that_are_not(name: str) -> None:
    (warning,) = warnings(GOOD.cert + MIDDLE.cert + ROOT.cert, name)
    assert warning.startswith(f"the certificate is not for {name}, but for hub.example.org, ")


def test_a_chain_with_a_hole() -> None:
    (warning,) = warnings(GOOD.cert)
    assert "ends with Middle, which is neither in ssl_cert nor known" in warning
    (warning,) = warnings(GOOD.cert + ROOT.cert)
    assert "the chain is broken: hub.example.org is not issued by Test Authority" in warning


def test_a_chain_that_this_machine_knows_the_end_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "known.pem").write_text(ROOT.cert)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "known.pem"))
    assert warnings(GOOD.cert + MIDDLE.cert) == []


@pytest.mark.parametrize("bundle", ["etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt"])
def test_the_authorities_are_this_machines_wherever_openssl_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "")  # so that it is put back
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "nothing"))
    paths = SimpleNamespace(openssl_cafile=str(tmp_path / "usr/lib/ssl/cert.pem"))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    monkeypatch.setattr(certificates, "AUTHORITIES", [str(tmp_path / one.lstrip("/")) for one in AUTHORITIES])
    certificates.find_authorities()
    assert "SSL_CERT_FILE" not in os.environ  # there are none
    (tmp_path / bundle).parent.mkdir(parents=True)
    (tmp_path / bundle).write_text(ROOT.cert)
    certificates.find_authorities()
    [root] = ssl.create_default_context().get_ca_certs()
    assert root["subject"] == ((("commonName", "Test Authority"),),)


@pytest.mark.parametrize(
    ("begins", "days", "text"),
    [(3, 1, "has expired on"), (-2, 9, "is not valid before")],
)
def test_the_wrong_time(begins: float, days: float, text: str) -> None:
    pair = issue(ROOT, "hub.example.org", days=days, since=begins)
    (warning,) = examine((pair.cert + ROOT.cert).encode(), pair.key.encode(), ())[2]
    assert text in warning


def test_how_long_it_lasts_is_told() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    told = Served.of(GOOD.certificate.public_bytes(Encoding.DER))
    assert str(told).startswith("hub.example.org, *.people.example.org, 192.0.2.7, by Middle, until ")
    assert str(told).endswith(" (88 days)") or str(told).endswith(" (89 days)")
    assert not told.is_traefiks_own
    assert told.left > told.late


def test_the_first_certificate_of_a_text_is_the_servers() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    assert leaf_of(f"words {GOOD.cert}{MIDDLE.cert}{GOOD.key}") == GOOD.certificate.public_bytes(Encoding.DER)
    for text in ("", GOOD.key, GOOD.cert[:200]):
        assert leaf_of(text) is None


def test_the_end_of_a_file_that_cannot_be_used_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "certificate.pem"
    assert expiry_of(path) is None
    path.write_text("nothing")
    assert expiry_of(path) is None
    path.write_text(GOOD.cert)
    assert expiry_of(path) == GOOD.certificate.not_valid_after_utc


def test_a_pair_is_of_one_kind_and_readable() -> None:
    for cert, key, message in (
        (GOOD.cert, MIDDLE.key, "is not that of the first certificate"),
        (MIDDLE.cert + GOOD.cert, GOOD.key, "is not that of the first certificate"),
        (GOOD.cert[:200], GOOD.key, "ssl_cert holds no PEM certificate"),
        (GOOD.cert, GOOD.key[:60], "ssl_key holds no PEM private key"),
    ):
        with pytest.raises(UserError, match=message):
            examine(cert.encode(), key.encode(), ())


def test_traefiks_own_certificate_is_known_by_its_name() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    own = authority(TRAEFIKS_OWN).certificate.public_bytes(Encoding.DER)
    assert Served.of(own).is_traefiks_own
    assert TRAEFIKS_OWN.encode() in own
