"""The static configuration for traefik that follows from JupyterHub's traits."""

import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.unit import proxies
from tests.unit.proxies import REPOSITORY

if os.environ.get("CI") != "true":
    pytest.importorskip("jupyterhub_traefik_proxy")

from barehub.config import ConfigError, load_hub
from barehub.layout import Layout
from barehub.proxy_unit.sockets import RELAYED
from barehub.proxy_unit.static import static_config
from barehub.proxy_unit.traits import make_proxy


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    base = proxies.make_base(tmp_path / "base")
    monkeypatch.setenv("BAREHUB_BASE", str(base))
    return Layout(base, prefix=REPOSITORY / "post_install/data")


def configure(layout: Layout, *lines: str) -> None:
    (layout.config / "50-test.py").write_text("\n".join(lines) + "\n")


def derived(layout: Layout, *lines: str) -> dict[str, Any]:
    configure(layout, *lines)
    return static_config(layout, make_proxy(layout, load_hub(layout)))


def test_defaults(layout: Layout) -> None:
    config = derived(layout)
    web, api = config["entryPoints"]["web"], config["entryPoints"]["api"]
    assert (web["address"], api["address"]) == (":8000", "127.0.0.1:8099")
    assert "tls" not in web["http"]
    assert "forwardedHeaders" not in web  # nobody's X-Forwarded-For is believed
    assert "accessLog" not in config  # tokens are in URLs
    assert config["providers"]["file"]["directory"] == str(layout.rules)


@pytest.mark.parametrize(
    ("bind_url", "expected"),
    [
        ("http://:80", ":80"),
        ("http://0.0.0.0:80/base/", "0.0.0.0:80"),
        ("http://*:80", ":80"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://hub.example.org", "hub.example.org:80"),
    ],
)
def test_the_address_is_that_of_bind_url(layout: Layout, bind_url: str, expected: str) -> None:
    assert derived(layout, f"c.JupyterHub.bind_url = {bind_url!r}")["entryPoints"]["web"]["address"] == expected


def test_traits_of_the_proxy_count(layout: Layout) -> None:
    config = derived(
        layout,
        "c.TraefikProxy.traefik_api_url = 'http://127.0.0.1:8100'",
        "c.TraefikProxy.traefik_log_level = 'DEBUG'",
        "c.TraefikProxy.extra_static_config = {'entryPoints': {'web': {'http': {'maxHeaderBytes': 9}}}}",
    )
    assert config["entryPoints"]["api"]["address"] == "127.0.0.1:8100"
    assert config["log"]["level"] == "DEBUG"
    assert config["entryPoints"]["web"]["http"]["maxHeaderBytes"] == 9
    assert "maxHeaderBytes" not in config["entryPoints"]["api"]["http"]
    assert derived(layout)["log"]["level"] == "WARN"


def test_https_with_a_certificate_is_on_the_entrypoint(layout: Layout) -> None:
    config = derived(
        layout, "c.JupyterHub.bind_url = 'https://:443'", "c.JupyterHub.ssl_cert = c.JupyterHub.ssl_key = '/x.pem'"
    )
    assert config["entryPoints"]["web"]["address"] == ":443"
    assert config["entryPoints"]["web"]["http"]["tls"] == {"options": "default"}


def test_the_names_of_the_certificate_are_told_to_those_who_check_it(layout: Layout) -> None:
    files = "c.JupyterHub.ssl_cert = c.JupyterHub.ssl_key = '/x.pem'"
    config = derived(layout, "c.JupyterHub.bind_url = 'https://hub.example.org'", files)
    tls = config["entryPoints"]["web"]["http"]["tls"]
    assert tls["domains"] == [{"main": "hub.example.org", "sans": []}]
    assert "certResolver" not in tls
    config = derived(layout, "c.JupyterHub.bind_url = 'https://192.0.2.7'", files)
    assert "domains" not in config["entryPoints"]["web"]["http"]["tls"]


ACME = "c.BarehubProxy.acme_email = 'a@example.org'"
HTTPS = "c.JupyterHub.bind_url = 'https://hub.example.org'"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((HTTPS, ACME), {"web": ":443", "redirect": ":80"}),
        ((HTTPS + " + ':8443/base'", ACME), {"web": ":8443"}),
        ((HTTPS + " + ':8443'", ACME, "c.BarehubProxy.http_redirect_port = 88"), {"web": ":8443", "redirect": ":88"}),
        ((HTTPS, ACME, "c.BarehubProxy.http_redirect_port = 0"), {"web": ":443"}),
        (
            ("c.JupyterHub.bind_url = 'https://[::1]:443'", "c.JupyterHub.ssl_cert = c.JupyterHub.ssl_key = '/x.pem'"),
            {"web": "[::1]:443", "redirect": "[::1]:80"},
        ),
        (("c.BarehubProxy.http_redirect_port = 80",), {"web": ":8000"}),
    ],
)
def test_where_http_is_redirected(layout: Layout, lines: tuple[str, ...], expected: dict[str, str]) -> None:
    entrypoints = derived(layout, *lines)["entryPoints"]
    assert {name: one["address"] for name, one in entrypoints.items() if name != "api"} == expected
    assert "tls" not in entrypoints.get("redirect", {}).get("http", {})


def test_an_address_and_a_domain_are_enough_for_lets_encrypt(layout: Layout) -> None:
    config = derived(layout, HTTPS, ACME)
    ((name, resolver),) = config["certificatesResolvers"].items()
    assert resolver["acme"] == {
        "email": "a@example.org",
        "caServer": "https://acme-v02.api.letsencrypt.org/directory",
        "storage": str(layout.acme_store),
        "keyType": "EC256",
        "certificatesDuration": 2160,
        "tlsChallenge": {},
    }
    tls = config["entryPoints"]["web"]["http"]["tls"]
    assert tls["certResolver"] == name
    assert tls["domains"] == [{"main": "hub.example.org", "sans": []}]
    staging = "c.BarehubProxy.acme_ca_server = 'https://acme-staging-v02.api.letsencrypt.org/directory'"
    # Its certificates are not taken for those of the other one.
    assert name not in derived(layout, HTTPS, ACME, staging)["certificatesResolvers"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c.JupyterHub.ssl_cert = '/x.pem'", "acme_email and ssl_cert are both set"),
        ("c.JupyterHub.bind_url = 'http://:80'", "acme_email is set, but bind_url is http"),
        ("c.JupyterHub.bind_url = 'https://192.0.2.7'", "needs a host name"),
        ("c.BarehubProxy.acme_domains = ['hub_1.example.org']", "not a domain name"),
        ("c.BarehubProxy.acme_domains = ['*.example.org']", "needs the challenge dns-01"),
        ("c.BarehubProxy.acme_ca_server = 'staging'", "is not an https URL"),
        ("c.BarehubProxy.acme_challenge = 'dns-01'", "needs a provider"),
        ("c.BarehubProxy.acme_challenge = 'dns'", "acme_challenge"),
        ("c.BarehubProxy.acme_challenge = 'http-01'; c.BarehubProxy.http_redirect_port = 0", "http-01 needs HTTP"),
        ("c.BarehubProxy.acme_key_type = 'RSA'", "acme_key_type"),
        ("c.BarehubProxy.acme_email = ''; c.JupyterHub.ssl_cert = c.JupyterHub.ssl_key = 'x.pem'", "depends on who"),
        ("c.BarehubProxy.trusted_networks = ['10.0.0.1/8']", "has host bits set"),
    ],
)
def test_what_does_not_fit_together_is_an_error(layout: Layout, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        derived(layout, HTTPS, ACME, line)


def test_forwarded_headers_are_trusted_from_named_networks(layout: Layout) -> None:
    config = derived(layout, HTTPS, ACME, "c.BarehubProxy.trusted_networks = ['192.0.2.0/24', '2001:db8::/32']")
    for name in ("web", "redirect"):
        assert config["entryPoints"][name]["forwardedHeaders"] == {"trustedIPs": ["192.0.2.0/24", "2001:db8::/32"]}
    assert "forwardedHeaders" not in config["entryPoints"]["api"]


def test_only_the_supervisor_tells_an_address_by_the_proxy_protocol(layout: Layout) -> None:
    config = derived(layout, HTTPS, ACME)
    for name in ("web", "redirect"):
        assert config["entryPoints"][name]["proxyProtocol"] == {"trustedIPs": [f"{RELAYED[socket.AF_INET]}/32"]}
    assert "proxyProtocol" not in config["entryPoints"]["api"]


def test_clients_who_waited_are_never_trusted(layout: Layout) -> None:
    """They come from one address of this machine, be it in a network of the load balancers' or not."""
    networks = ["127.0.0.1/32", "127.0.0.0/8", "0.0.0.0/0", "::1/128", "::/0", "10.9.0.0/24"]
    config = derived(layout, f"c.BarehubProxy.trusted_networks = {networks}")
    found = config["entryPoints"]["web"]["forwardedHeaders"]["trustedIPs"]
    assert found[0] == "127.0.0.1/32"
    assert found[-1] == "10.9.0.0/24"
    ranges = [ipaddress.ip_network(one) for one in found]
    for trusted, address in (
        (False, RELAYED[socket.AF_INET]), (False, RELAYED[socket.AF_INET6]),
        (True, "127.0.0.1"), (True, "127.66.97.113"), (True, "8.8.8.8"), (True, "2001:db8::1"),
    ):  # fmt: skip
        assert any(ipaddress.ip_address(address) in one for one in ranges) == trusted, address


def test_no_request_lasts_for_ever(layout: Layout) -> None:
    for entrypoint in derived(layout)["entryPoints"].values():
        timeouts = entrypoint["transport"]["respondingTimeouts"]
        assert timeouts["readTimeout"] == "6h"
        assert timeouts["writeTimeout"] == "0s"  # a download, or a notebook's progress


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c.JupyterHub.bind_url = 'https://:443'", "needs a certificate"),
        ("c.JupyterHub.bind_url = 'http+unix://%2Frun%2Fhub'", "must be of the form"),
        ("c.JupyterHub.proxy_class = 'jupyterhub.proxy.ConfigurableHTTPProxy'", "ConfigurableHTTPProxy"),
    ],
)
def test_what_traefik_cannot_do_is_an_error(layout: Layout, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        derived(layout, line)
