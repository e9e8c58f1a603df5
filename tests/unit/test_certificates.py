"""What is accepted as a certificate, what is warned about, and what becomes of files that are not; traefik's store."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.machines.authority import authority, issue

if os.environ.get("CI") != "true":
    pytest.importorskip("cryptography")

from barehub.errors import UserError
from barehub.layout import Layout
from barehub.proxy_unit import acme, certificates
from barehub.proxy_unit.certificates import Served, Source, examine
from barehub.urls import listening

ROOT = authority()
MIDDLE = authority("Middle", ROOT)
GOOD = issue(MIDDLE, "hub.example.org", "*.people.example.org", "192.0.2.7")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    for directory in (layout.proxy_state, layout.acme):
        directory.mkdir(parents=True)
    return layout


@pytest.fixture
def source(tmp_path: Path) -> Source:
    put(tmp_path, GOOD.cert + MIDDLE.cert + ROOT.cert, GOOD.key)
    return Source(str(tmp_path / "cert"), str(tmp_path / "key"), ("hub.example.org",))


def put(directory: Path, cert: str, key: str) -> None:
    (directory / "cert").write_text(cert)
    (directory / "key").write_text(key)
    (directory / "key").chmod(0o600)


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


@pytest.mark.parametrize(
    ("begins", "days", "text"),
    [(3, 1, "has expired on"), (-2, 9, "is not valid before")],
)
def test_the_wrong_time(begins: float, days: float, text: str) -> None:
    pair = issue(ROOT, "hub.example.org", days=days, since=begins)
    (warning,) = examine((pair.cert + ROOT.cert).encode(), pair.key.encode(), ())[2]
    assert text in warning


def test_the_copy_is_a_pair_for_the_proxy_alone(layout: Layout, source: Source) -> None:
    assert certificates.take(layout, source) == []
    text = layout.certificate.read_text()
    assert text.startswith(GOOD.cert)
    assert text.count("BEGIN") == 4
    assert layout.certificate.stat().st_mode & 0o777 == 0o400


def test_an_expired_pair_is_served_where_there_is_no_better_one(layout: Layout, source: Source) -> None:
    late = issue(ROOT, "hub.example.org", days=1, since=3)
    put(layout.base, late.cert + ROOT.cert, late.key)
    assert "has expired" in certificates.take(layout, source)[0]
    put(layout.base, GOOD.cert, GOOD.key)
    certificates.take(layout, source)
    put(layout.base, late.cert + ROOT.cert, late.key)
    with pytest.raises(UserError, match="has expired on"):
        certificates.take(layout, source)
    assert layout.certificate.read_text().startswith(GOOD.cert)


def test_a_bad_pair_is_looked_at_once(layout: Layout, source: Source) -> None:
    certificates.take(layout, source)
    put(layout.base, GOOD.cert, MIDDLE.key)
    with pytest.raises(UserError, match="is not that of the first certificate"):
        certificates.renew(layout, source)
    assert Source.load(layout) == replace(source, seen=source.digest)
    assert source.seen != source.digest
    (layout.base / "key").unlink()
    with pytest.raises(UserError, match=r"ssl_key: .*/key: No such file"):
        certificates.renew(layout, source)


def test_how_long_it_lasts_is_told() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    told = Served.of(GOOD.certificate.public_bytes(Encoding.DER))
    assert str(told).startswith("hub.example.org, *.people.example.org, 192.0.2.7, by Middle, until ")
    assert str(told).endswith(" (88 days)") or str(told).endswith(" (89 days)")
    assert not told.is_traefiks_own
    assert told.left > told.late


STORE = json.dumps({"server": {"Account": {"Email": "a@example.org"}, "Certificates": None}})


def test_a_good_store_is_copied(layout: Layout) -> None:
    assert acme.keep_store(layout, running=False) == []
    layout.acme_store.write_text(STORE)
    layout.acme_store.chmod(0o600)
    assert acme.keep_store(layout, running=True) == []
    assert layout.acme_copy.read_text() == STORE
    assert layout.acme_copy.stat().st_mode & 0o777 == 0o600
    layout.acme_store.unlink()  # for a new one
    assert acme.keep_store(layout, running=False) == []
    assert not layout.acme_copy.exists()


@pytest.mark.parametrize("damage", ["", STORE[:20], "{}", "[]", '{"server": null}'])
def test_a_damaged_store_is_put_back(layout: Layout, damage: str) -> None:
    for text in (STORE, damage):
        layout.acme_store.write_text(text)
        layout.acme_store.chmod(0o600)
        if text == damage:  # it may be just being written
            assert acme.keep_store(layout, running=True) == []
            os.utime(layout.acme_store, (0, time.time() - 60))
        said = acme.keep_store(layout, running=True)
    assert "was damaged; put back as it was" in said[0]
    assert layout.acme_store.read_text() == STORE


def test_a_damaged_store_without_a_copy_is_put_aside(layout: Layout) -> None:
    layout.acme_store.write_text("{")
    layout.acme_store.chmod(0o600)
    assert "there is no copy; put aside" in acme.keep_store(layout, running=False)[0]
    assert [path.name for path in layout.acme.iterdir()] == ["acme.json.damaged"]


def test_a_store_that_others_can_read_is_put_right(layout: Layout) -> None:
    layout.acme_store.write_text(STORE)
    layout.acme_store.chmod(0o644)
    assert "had mode 644" in acme.keep_store(layout, running=False)[0]
    assert layout.acme_store.stat().st_mode & 0o777 == 0o600


def test_root_follows_no_link_of_the_proxys(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "shadow").write_text(STORE)
    layout.acme_store.symlink_to(tmp_path / "shadow")
    assert "Too many levels of symbolic links" in acme.keep_store(layout, running=False)[0]
    layout.acme_store.unlink()
    os.link(tmp_path / "shadow", layout.acme_store)
    assert "is not a plain file" in acme.keep_store(layout, running=False)[0]
    assert not layout.acme_copy.exists()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hub.example.org", "https://:443"),
        ("https://hub.example.org:8443/base/", "https://:8443/base/"),
        ("https://192.0.2.7:443", "https://192.0.2.7:443"),
        ("https://[::1]:443", "https://[::1]:443"),
        ("https://localhost:8443", "https://localhost:8443"),
        ("https://:443", "https://:443"),
        ("http://hub.example.org", "http://hub.example.org"),
    ],
)
def test_an_https_name_is_not_an_address_to_listen_on(url: str, expected: str) -> None:
    assert listening(url) == expected
