"""The overlay `oidc`: a real hub with the overlay's files, and a real provider whose certificate is the site's own."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from tests.machines.authority import Pair, authority, issue
from tests.unit import oidc
from tests.unit.proxies import free_port
from tests.unit.real_hub import OVERLAYS, RealHub, running

SECRET = "the hub's own"
# Accounts that every machine has. `nobody-here` is none.
PEOPLE = {"DAEMON": ["hpc-users"], "bin": ["hpc-admins"], "mail": ["others"], "nobody-here": ["hpc-users"]}
PEOPLE |= {"root": ["hpc-admins"]}


@dataclass
class Site:
    """A hub, and the certificates of the provider that it is configured for."""

    hub: RealHub
    port: int
    pair: Pair
    ca: Path

    def browser(self) -> requests.Session:
        session = requests.Session()
        session.trust_env, session.verify = False, str(self.ca)
        return session

    def provider(self, **settings: str | int) -> "contextlib.AbstractContextManager[str]":
        callback = f"{self.hub.url}/hub/oauth_callback"
        return oidc.provider(self.port, self.pair, callback, PEOPLE, **{"secret": SECRET, **settings})

    def log_in(self, name: str) -> requests.Response:
        return oidc.log_in(self.browser(), self.hub.url, name)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base, port = tmp_path_factory.mktemp("base"), free_port()
    ca = authority("Site Authority")
    (base / "ca.pem").write_text(ca.cert)
    (base / "jupyterhub_config.d").mkdir()
    (base / "jupyterhub_config.d/oidc-secret").write_text(f"{SECRET}\n")
    with running(base, config(base, port), overlay="oidc") as hub:
        yield Site(hub, port, issue(ca, "localhost"), base / "ca.pem")


def config(base: Path, port: int) -> str:
    """The overlay's configuration and its example, adapted as a site would."""
    text = (OVERLAYS / "oidc/jupyterhub_config.d/40-oidc.py").read_text()
    example = (OVERLAYS / "oidc/examples/60-oidc.py").read_text()
    for old, new in (
        ("https://id.example.org/realms/site/protocol/openid-connect", f"https://localhost:{port}"),
        ("/userinfo", "/me"),
        ("/logout?", "/session/end?"),
        ("/etc/ssl/certs/site-ca.pem", f"{base}/ca.pem"),
        ('"https://hub.example.org/', 'f"http://127.0.0.1:{c.JupyterHub.hub_port}/'),
    ):
        assert old in example
        example = example.replace(old, new)
    # The accounts that every machine has are the system's.
    return f"{text}{example}\nc.GenericOAuthenticator.least_uid = 1\nc.Application.log_level = 'DEBUG'\n"


@pytest.fixture
def running_provider(site: Site) -> Iterator[None]:
    with site.provider():
        yield


def test_groups_decide_who_may_log_in_and_who_is_an_administrator(site: Site, running_provider: None) -> None:
    for name, account, is_admin in (("DAEMON", "daemon", False), ("bin", "bin", True)):
        browser = site.browser()
        page = oidc.log_in(browser, site.hub.url, name)
        assert page.url == f"{site.hub.url}/hub/home", page.text
        xsrf = browser.cookies.get("_xsrf", path="/hub/")
        user = browser.get(f"{site.hub.url}/hub/api/user", headers={"X-XSRFToken": xsrf}).json()
        assert (user["name"], user["admin"], user["groups"]) == (account, is_admin, PEOPLE[name])
    assert site.log_in("mail").status_code == 403


def test_the_pages_say_who_has_no_account(site: Site, running_provider: None) -> None:
    for name, why in (("nobody-here", "There is no account nobody-here"), ("root", "The account root is the system")):
        page = site.log_in(name)
        assert (page.status_code, why in page.text) == (403, True)


def test_a_logout_ends_the_providers_session_too(site: Site, running_provider: None) -> None:
    browser = site.browser()
    oidc.log_in(browser, site.hub.url, "bin")
    browser.cookies.clear(domain="127.0.0.1")  # the hub's own; the provider is at localhost
    again = browser.get(f"{site.hub.url}/hub/oauth_login")
    assert again.url == f"{site.hub.url}/hub/home", again.text
    page = browser.get(f"{site.hub.url}/hub/logout")
    assert page.url.startswith(f"https://localhost:{site.port}/session/end"), page.url
    oidc.submit(browser, page, logout="yes")
    assert "/interaction/" in browser.get(f"{site.hub.url}/hub/oauth_login").url
    assert "/hub/login" in browser.get(f"{site.hub.url}/hub/home").url


@pytest.mark.parametrize("seconds", [-120, 120])
def test_the_providers_clock_may_be_wrong(site: Site, seconds: int) -> None:
    with site.provider(clock=seconds):
        assert site.log_in("bin").url == f"{site.hub.url}/hub/home"


def test_a_wrong_secret_is_said_and_not_shown(site: Site) -> None:
    with site.provider(secret="another"):
        page = site.log_in("bin")
    assert (page.status_code, "does not accept the hub (HTTP 401)" in page.text) == (500, True)
    assert "client&#39;s secret" in page.text
    for said in (page.text, site.hub.log.read_text()):
        assert SECRET not in said


def test_a_provider_that_is_down_is_said(site: Site) -> None:
    browser = site.browser()
    with site.provider():
        page = browser.get(f"{site.hub.url}/hub/oauth_login")
        page = oidc.submit(browser, page, login="bin", password="any")
        browser.max_redirects = 1
        with pytest.raises(requests.TooManyRedirects) as stopped:  # at the hub's own address
            oidc.submit(browser, page)
    assert stopped.value.response
    page = browser.get(stopped.value.response.headers["Location"])
    assert (page.status_code, "The login service does not answer the hub" in page.text) == (503, True)


@pytest.mark.parametrize("path", ["/token", "/me"])
def test_a_provider_that_is_down_in_part_is_said(site: Site, path: str) -> None:
    with site.provider(broken=path):
        page = site.log_in("bin")
    assert (page.status_code, "The login service does not answer the hub" in page.text) == (503, True)
    assert f"localhost:{site.port}{path}" in site.hub.log.read_text()


def test_a_logout_while_the_provider_is_down_ends_the_hubs_login(site: Site) -> None:
    browser = site.browser()
    with site.provider():
        assert oidc.log_in(browser, site.hub.url, "bin").url == f"{site.hub.url}/hub/home"
    assert browser.get(f"{site.hub.url}/hub/home").url == f"{site.hub.url}/hub/home"  # who is in stays in
    with pytest.raises(requests.ConnectionError):  # at the provider's address
        browser.get(f"{site.hub.url}/hub/logout")
    assert "/hub/login" in browser.get(f"{site.hub.url}/hub/home").url


def test_no_secret_is_logged_with_debug(site: Site, running_provider: None) -> None:
    assert "[D " in site.hub.log.read_text()
    site.log_in("bin")
    for secret in (SECRET, SECRET.replace(" ", "+"), quote(SECRET)):
        assert secret not in site.hub.log.read_text()
