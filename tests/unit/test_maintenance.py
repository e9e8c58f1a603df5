"""BASE/maintenance.md and .html in a real hub: who is kept out, who is let through, and what goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from barehub import maintenance
from jupyterhub import apihandlers, handlers
from jupyterhub.handlers.base import PrefixRedirectHandler

from tests.unit.proxies import wait_until
from tests.unit.real_hub import ADMIN, PEOPLE, RealHub, log_in, running, start, token_of, visit

CONFIG = """
from barehub.layout import Layout
from barehub.maintenance import close_during_maintenance
from barehub.notices import register_announcement
layout = Layout.from_environment()
for _ in range(2):
    close_during_maintenance(layout)
register_announcement(layout, c)

c.JupyterHub.log_level = "WARN"
c.JupyterHub.load_groups = {"maintenance": {"users": ["ada"]}}
c.Authenticator.admin_users = {"root"}
"""
OPEN, CLOSED = 200, 503


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("base")


@pytest.fixture(scope="module")
def hub(base: Path) -> Iterator[RealHub]:
    """A hub with bob's server running."""
    with running(base, PEOPLE + CONFIG) as new:
        for name in ("bob", "root"):
            log_in(new, name)
        start(new, "bob", ADMIN)
        yield new


@pytest.fixture
def notice(base: Path, hub: RealHub) -> Iterator[Path]:
    path = base / "maintenance.md"
    path.write_text("Back at **14:00** <script>")
    path.chmod(0o644)
    yield path
    path.unlink(missing_ok=True)


def page(hub: RealHub, browser: requests.Session, path: str) -> requests.Response:
    return browser.get(hub.url + path)


@pytest.mark.parametrize(
    "path", ["/hub/", "/hub/home", "/hub/spawn", "/hub/token", "/hub/user/bob/lab", "/hub/nothing"]
)
def test_others_get_a_page_that_says_why_until_the_file_goes(hub: RealHub, notice: Path, path: str) -> None:
    for browser in (log_in(hub, "bob"), requests.Session()):
        closed = page(hub, browser, path)
        assert (closed.status_code, closed.reason) == (CLOSED, "Closed for maintenance")
        assert closed.headers["Retry-After"] == closed.headers["Refresh"] == "60"
        assert "Back at <strong>14:00</strong> &lt;script&gt;" in closed.text
    notice.unlink()
    assert page(hub, log_in(hub, "bob"), path).status_code != CLOSED


def test_the_login_shows_the_text_and_lets_administrators_in(hub: RealHub, notice: Path) -> None:
    closed = page(hub, requests.Session(), "/hub/spawn?profile=1")
    assert 'href="/hub/login?next=%2Fhub%2Fspawn%3Fprofile%3D1"' in closed.text
    assert "14:00" in page(hub, requests.Session(), "/hub/login").text
    assert 'href="/hub/logout"' in page(hub, log_in(hub, "bob"), "/hub/home").text


@pytest.mark.parametrize("name", ["root", "ada"])
def test_administrators_and_the_group_work_on_and_see_that_it_is_closed(hub: RealHub, notice: Path, name: str) -> None:
    home = page(hub, log_in(hub, name), "/hub/home")
    assert home.status_code == OPEN
    assert "14:00" in home.text
    assert hub.get(f"/hub/api/users/{name}", token_of(hub, name)).status_code == OPEN


def test_the_api_is_closed_too_and_says_so_as_json(hub: RealHub, notice: Path) -> None:
    bob = token_of(hub, "bob")
    for method, path in (
        ("GET", "/hub/api/users/bob"),
        ("DELETE", "/hub/api/users/bob/server"),
        ("POST", "/hub/api/users/bob/servers/second"),
        ("POST", "/hub/api/users/bob/tokens"),
        ("GET", "/hub/api/nothing"),
    ):
        for token in (bob, ""):
            closed = hub.ask(method, path, token)
            assert (closed.status_code, closed.headers["Retry-After"]) == (CLOSED, "60"), path
            assert closed.json()["message"].startswith("the hub is closed for maintenance")


def test_nobody_else_starts_a_server_and_those_that_run_go_on(hub: RealHub, notice: Path) -> None:
    for path in ("/hub/api/users/bob/servers/second", "/hub/api/users/carol/server"):
        assert hub.ask("POST", path, ADMIN).status_code == CLOSED
    browser = log_in(hub, "bob")
    assert visit(hub, browser, "bob").text == "Hello bob"  # with a login at the server, by OAuth
    bob = token_of(hub, "bob")
    assert hub.get("/hub/api/user", bob).json()["name"] == "bob"
    now = {"last_activity": "2026-11-24T00:00:00Z"}
    assert hub.ask("POST", "/hub/api/users/bob/activity", bob, json=now).status_code == OPEN
    start(hub, "ada", token_of(hub, "ada"))


def test_services_and_checks_go_on(hub: RealHub, notice: Path) -> None:
    for path in ("/hub/health", "/hub/api/", "/hub/logo", "/hub/static/favicon.ico"):
        assert hub.get(path).status_code == OPEN, path
    for path in ("/hub/api/users", "/hub/api/proxy", "/hub/metrics"):
        assert hub.get(path, ADMIN).status_code == OPEN, path
    assert hub.ask("DELETE", "/hub/api/users/ada/server", ADMIN).status_code in (202, 204)


def test_a_request_that_is_refused_is_one_line_of_the_log(hub: RealHub, notice: Path) -> None:
    assert hub.get("/hub/login?well").status_code == OPEN
    assert hub.get("/hub/home?once").status_code == CLOSED
    wait_until(lambda: "/hub/home?once" in hub.log.read_text())
    lines = hub.log.read_text().splitlines()
    assert len([line for line in lines if "/hub/home?once" in line]) == 1
    assert [line for line in lines if "?well" in line] == []  # of this level


def test_an_empty_file_closes_and_one_that_others_can_change_does_not(hub: RealHub, notice: Path) -> None:
    bob = log_in(hub, "bob")
    notice.write_text("")
    assert page(hub, bob, "/hub/home").status_code == CLOSED
    notice.chmod(0o666)
    assert page(hub, bob, "/hub/home").status_code == OPEN


def test_a_page_of_the_sites_is_shown_as_it_is_to_people_and_closes_the_hub_to_programs_as_well(
    hub: RealHub, base: Path
) -> None:
    own, bob = base / "maintenance.html", log_in(hub, "bob")
    own.write_text("<!DOCTYPE html><title>Zurück um 14:00</title><script>alert(1)</script>$HOME {{ 7 * 7 }}")
    try:
        for browser in (bob, requests.Session()):
            closed = page(hub, browser, "/hub/home")
            assert (closed.status_code, closed.reason) == (CLOSED, "Closed for maintenance")
            assert (closed.content, closed.headers["Content-Type"]) == (own.read_bytes(), "text/html; charset=utf-8")
            assert closed.headers["Retry-After"] == closed.headers["Refresh"] == "60"
            assert closed.headers["Cache-Control"] == "no-store"
            assert "default-src 'none'" in closed.headers["Content-Security-Policy"]  # so its script does not run
        told = hub.get("/hub/api/users/bob", token_of(hub, "bob"))
        assert (told.status_code, told.json()["status"]) == (CLOSED, CLOSED)
        assert page(hub, log_in(hub, "root"), "/hub/home").status_code == OPEN
        assert page(hub, requests.Session(), "/hub/login").status_code == OPEN
        own.chmod(0o666)
        assert page(hub, bob, "/hub/home").status_code == OPEN
        own.chmod(0o644)
        own.write_text("")
        assert "Servers that are running continue" in page(hub, bob, "/hub/home").text  # an empty one: the hub's own
    finally:
        own.unlink()
    assert page(hub, bob, "/hub/home").status_code == OPEN


def test_what_is_not_named_is_closed() -> None:
    """The names are JupyterHub's: a new version may have others, and what it adds has to be thought about."""
    served = {entry[1] for entry in handlers.default_handlers + apihandlers.default_handlers}
    known = {kind for kind in served if kind.__module__.startswith("jupyterhub.")} | {PrefixRedirectHandler}
    assert {kind.__name__ for kind in known if maintenance.is_open(kind)} == maintenance.OPEN | {
        *("LoginHandler", "LogoutHandler", "MetricsHandler"),
        *("CookieAPIHandler", "TokenAPIHandler", "OAuthAuthorizeHandler", "OAuthTokenHandler"),
    }
    assert maintenance.STARTS in {kind.__name__ for kind in known}
