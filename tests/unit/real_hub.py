"""A JupyterHub of a test's own: a process with a site's configuration, without a proxy in front, without notebooks."""

import contextlib
import logging
import multiprocessing
import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from jupyterhub.app import JupyterHub

from tests.unit.installations import SHARE
from tests.unit.proxies import free_port, wait_until

ROOT = Path(__file__).parents[2]
OVERLAYS = ROOT / "construct/overlays"

# People talk to the hub itself. Servers are processes of the account that runs the tests.
CONFIG = """\
import sys
from jupyterhub.proxy import Proxy

class NoProxy(Proxy):
    should_start = False
    routes = {}
    async def add_route(self, routespec, target, data):
        self.routes[routespec] = {"routespec": routespec, "target": target, "data": data}
    async def delete_route(self, routespec):
        self.routes.pop(routespec, None)
    async def get_all_routes(self):
        return self.routes

c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = %(port)d
c.JupyterHub.bind_url = "http://127.0.0.1:%(front)d"
c.JupyterHub.db_url = "sqlite:///:memory:"
c.JupyterHub.cookie_secret = bytes(32)
c.JupyterHub.redirect_to_server = False  # after a login
c.JupyterHub.spawner_class = "simple"
c.Spawner.cmd = [sys.executable, %(server)r]
"""

ADMIN = "6" * 32
# Anybody logs in with any password. A service with the token ADMIN does what the test cannot do as a user.
PEOPLE = f"""
rights = ["admin:users", "admin:servers", "admin:groups", "tokens", "proxy", "read:metrics"]
c.JupyterHub.load_roles.append({{"name": "admins", "scopes": rights, "services": ["admin"]}})
c.JupyterHub.services.append({{"name": "admin", "api_token": "{ADMIN}"}})
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
"""


@dataclass
class RealHub:
    """A hub that runs, at `url`; what it has logged is in `log`."""

    url: str
    log: Path

    def get(self, path: str, token: str = "", **more: object) -> requests.Response:
        return self.ask("GET", path, token, **more)

    def ask(self, method: str, path: str, token: str = "", **more: object) -> requests.Response:
        """Send a request of the hub's API, with a token."""
        headers = {"Authorization": f"token {token}"} if token else {}
        return requests.request(method, self.url + path, headers=headers, timeout=60, **more)  # type: ignore[arg-type]


@contextlib.contextmanager
def running(base: Path, config: str, overlay: str = "") -> Iterator[RealHub]:
    """A hub with this configuration, which can read secrets from BASE/jupyterhub_config.d, and import an overlay."""
    port, front = free_port(), free_port()
    (base / "jupyterhub_config.d").mkdir(parents=True, exist_ok=True)
    server = {"port": port, "front": front, "server": str(Path(__file__).with_name("a_server.py"))}
    (base / "config.py").write_text(CONFIG % server + config)
    paths = [ROOT / "post_install", *([OVERLAYS / overlay / "python"] if overlay else [])]
    environment = {
        **os.environ,
        "BAREHUB_BASE": str(base),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    hub = RealHub(f"http://127.0.0.1:{port}", base / "hub.log")
    process = multiprocessing.get_context("fork").Process(target=serve, args=(base, environment, hub.log), daemon=True)
    process.start()
    try:
        wait_until(lambda: answers(hub, process))
        yield hub
    finally:
        process.terminate()
        process.join()


def serve(base: Path, environment: Mapping[str, str], log: Path) -> None:
    """Be what `jupyterhub --config=config.py` is, in a child that need not import JupyterHub: it takes seconds."""
    os.chdir(base)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate((os.devnull, log, log)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), descriptor)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])  # such as ports of the test's
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - until this process ends
    logging.getLogger().handlers.clear()
    JupyterHub.clear_instance()
    JupyterHub.launch_instance([f"--config={base}/config.py"])


@contextlib.contextmanager
def with_example(name: str, token: str, base: Path, config: str = "") -> Iterator[RealHub]:
    """A hub with an example that we ship, and the token that it reads; with PEOPLE, and with more configuration."""
    secret = base / "jupyterhub_config.d" / f"{Path(name).stem.partition('-')[2]}-token"
    secret.parent.mkdir()
    secret.write_text(f"{token}\n")
    with running(base, (SHARE / "examples" / name).read_text() + PEOPLE + config) as new:
        yield new


def answers(hub: RealHub, process: BaseProcess) -> bool:
    if process.exitcode is not None:
        pytest.fail(f"the hub has ended:\n{hub.log.read_text()}")
    with contextlib.suppress(requests.ConnectionError):
        return hub.get("/hub/health").status_code == 200
    return False


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
