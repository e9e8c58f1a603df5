"""The example 70-course.py in a real hub: what its program and its instructor may do, and what they may not."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests

from tests.unit.installations import SHARE
from tests.unit.proxies import wait_until
from tests.unit.real_hub import RealHub, running

TOKEN, ADMIN = "5" * 32, "6" * 32
CONFIG = f"""
rights = ["admin:users", "admin:servers", "tokens", "proxy"]
c.JupyterHub.load_roles.append({{"name": "admins", "scopes": rights, "services": ["admin"]}})
c.JupyterHub.services.append({{"name": "admin", "api_token": "{ADMIN}"}})
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHub]:
    base = tmp_path_factory.mktemp("base")
    (base / "jupyterhub_config.d").mkdir()
    (base / "jupyterhub_config.d/course-token").write_text(f"{TOKEN}\n")
    example = (SHARE / "examples/70-course.py").read_text()
    with running(base, example + CONFIG) as new:
        new.ask("POST", "/hub/api/users/bob", ADMIN).raise_for_status()
        yield new


def log_in(hub: RealHub, name: str) -> requests.Session:
    """A browser in which a user has logged in."""
    browser = requests.Session()
    browser.trust_env = False
    browser.get(f"{hub.url}/hub/login")
    form = {"username": name, "password": "any", "_xsrf": browser.cookies.get("_xsrf", path="/hub/")}
    answer = browser.post(f"{hub.url}/hub/login", data=form, allow_redirects=False)
    assert answer.status_code == 302, answer.text
    return browser


def token_of(hub: RealHub, name: str) -> str:
    """A token with all the rights of a user."""
    answer = hub.ask("POST", f"/hub/api/users/{name}/tokens", ADMIN)
    answer.raise_for_status()
    return str(answer.json()["token"])


def start(hub: RealHub, name: str, token: str) -> None:
    """Start a user's server, and wait until it is ready."""
    assert hub.ask("POST", f"/hub/api/users/{name}/server", token).status_code in (201, 202)
    wait_until(lambda: hub.get(f"/hub/api/users/{name}", token).json()["servers"][""]["ready"])


def visit(hub: RealHub, browser: requests.Session, name: str) -> requests.Response:
    """The page of a user's server. What the proxy would send there goes there."""
    server = hub.get("/hub/api/proxy", ADMIN).json()[f"/user/{name}/"]["target"]
    page = browser.get(f"{server}/user/{name}/", allow_redirects=False)
    for _ in range(10):
        if page.is_redirect:
            path = urlsplit(page.headers["Location"])._replace(scheme="", netloc="").geturl()
            page = browser.get((server if path.startswith("/user/") else hub.url) + path, allow_redirects=False)
        elif 'name="scopes"' in page.text:  # the server is another's: the hub asks whether it may know who comes
            fields = dict(re.findall(r'name="(scopes|_xsrf)"[^>]*value="([^"]+)"', page.text, re.DOTALL))
            page = browser.post(page.url, data=fields, headers={"Referer": page.url}, allow_redirects=False)
    return page


def names(hub: RealHub, token: str) -> set[str]:
    answer = hub.get("/hub/api/users", token)
    answer.raise_for_status()
    return {user["name"] for user in answer.json()}


def test_the_program_starts_and_stops_the_courses_servers_alone(hub: RealHub) -> None:
    assert names(hub, TOKEN) == {"ada", "grace"}
    start(hub, "ada", TOKEN)
    assert hub.get("/hub/api/user", TOKEN).json()["name"] == "course"
    assert hub.ask("DELETE", "/hub/api/users/ada/server", TOKEN).status_code in (202, 204)
    for method, path in (
        ("POST", "/hub/api/users/bob/server"),
        ("GET", "/hub/api/users/bob"),
        ("POST", "/hub/api/users/ada/tokens"),
        ("POST", "/hub/api/users/eve"),
        ("DELETE", "/hub/api/users/ada"),
        ("GET", "/hub/api/groups"),
        ("POST", "/hub/api/shutdown"),
    ):
        assert hub.ask(method, path, TOKEN).status_code in (403, 404), path


def test_the_instructor_looks_into_the_courses_servers_alone(hub: RealHub) -> None:
    alan = token_of(hub, "alan")
    assert names(hub, alan) == {"ada", "grace"}
    for name in ("grace", "bob"):
        start(hub, name, ADMIN)
    assert visit(hub, log_in(hub, "alan"), "grace").text == "Hello alan"
    assert visit(hub, log_in(hub, "grace"), "grace").text == "Hello grace"
    assert visit(hub, log_in(hub, "alan"), "bob").status_code == 403
    assert visit(hub, log_in(hub, "ada"), "grace").status_code == 403
    for method, path in (
        ("DELETE", "/hub/api/users/grace/server"),
        ("POST", "/hub/api/users/ada/server"),
        ("GET", "/hub/api/users/bob"),
        ("POST", "/hub/api/users/grace/tokens"),
        ("PATCH", "/hub/api/users/grace"),
        ("DELETE", "/hub/api/users/grace"),
    ):
        assert hub.ask(method, path, alan, json={}).status_code in (403, 404), path
    start(hub, "alan", alan)  # their own
