"""What a user's browser says to the hub, without a browser: log in, start a server, run code in a kernel.

The protocols are JupyterHub's login form, OAuth redirects and progress events; its `_xsrf` cookies, one for
each path, which go back as the header X-XSRFToken; and Jupyter's messages over a kernel's websocket, which
jupyter-client's documentation describes in "Messaging in Jupyter".
"""

import json
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import websocket
from requests.cookies import get_cookie_header

from tests.machines.machine import Machine, until
from tests.machines.rootfs import USERS, USERS_ENVIRONMENT

URL = "http://127.0.0.1:8000"
HUB, PROXY = "barehub-hub.service", "barehub-proxy.service"
BAREHUB = "/opt/barehub/hub/bin/barehub"

# What an administrator adds so that the users can log in, and use the environment that was made for them.
TEST_CONFIG = f"""\
c.Authenticator.allowed_users = {{"alice", "bob"}}
c.Spawner.cmd = ["{USERS_ENVIRONMENT}/bin/jupyterhub-singleuser"]
c.Spawner.default_url = "/lab"
"""

# A spawner that waits while a file is there, and roles and groups that must survive.
PATIENT_SITE = f"""{TEST_CONFIG}
import asyncio, os
from jupyterhub.spawner import LocalProcessSpawner

class Patient(LocalProcessSpawner):
    async def start(self):
        while os.path.exists("/run/slow-" + self.user.name):
            await asyncio.sleep(0.1)
        return await super().start()

c.JupyterHub.spawner_class = Patient
c.Authenticator.allow_all = True
c.JupyterHub.load_groups = {{"physics": {{"users": ["alice"]}}}}
c.JupyterHub.load_roles = [
    {{"name": "user", "scopes": ["self"]}},
    {{"name": "reader", "users": ["alice"], "scopes": ["list:users", "read:users", "read:groups"]}},
]
"""


def let_users_in(machine: Machine, config: str = TEST_CONFIG) -> None:
    """Add the configuration that lets alice and bob log in, and restart the hub with it."""
    machine.write("/opt/barehub/jupyterhub_config.d/50-test.py", config)
    machine.succeed("systemctl", "restart", HUB)
    machine.eventually(BAREHUB, "status")


def wait_for_hub(machine: Machine) -> None:
    """Wait until the hub is well. Until it answers at all, asking costs next to nothing: the machine has work to do."""
    hub = HubSession(machine, "")
    until(lambda: answers(hub), "the hub's answer")
    machine.eventually(BAREHUB, "status")


def answers(hub: "HubSession") -> bool:
    try:
        return hub.get("/hub/health").ok
    except requests.ConnectionError:
        return False


def kernel_of(machine: Machine, user: str) -> "Kernel":
    """A kernel of a user, who logs in and starts a server."""
    session = HubSession(machine, user)
    session.login()
    session.start_server()
    return session.start_kernel()


class HubSession(requests.Session):
    """A user who talks to the hub of `machine`, and has its cookies."""

    def __init__(self, machine: Machine, user: str, url: str = URL) -> None:
        super().__init__()
        self.trust_env = False  # no proxies of the host's
        self.machine, self.user, self.url = machine, user, url

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        """As requests has it, but `path` is enough for a URL."""
        with self.machine.network():
            return super().request(method, urljoin(self.url, path), **{"timeout": 240, **more})

    def xsrf(self, path: str) -> str:
        """The token to send back with a change below `path`."""
        return self.cookies.get("_xsrf", "", path=path)

    def login(self, password: str = "") -> requests.Response:
        """Fill in the login form, with the user's own password or with another; the page that follows it."""
        self.get("/hub/login").raise_for_status()
        form = {"username": self.user, "password": password or USERS[self.user], "_xsrf": self.xsrf("/hub/")}
        return self.post("/hub/login", data=form)

    def is_logged_in(self) -> bool:
        """Whether the hub knows the session's cookie; else it leads to the login page."""
        return urlsplit(self.get("/hub/home").url).path == "/hub/home"

    def start_server(self, **options: Any) -> None:
        """Start the user's server, wait until it is ready, and get its cookies."""
        self.ask_for_server(**options)
        *_, last = self.progress()
        assert last.get("ready"), last
        self.get(f"/user/{self.user}/lab").raise_for_status()

    def ask_for_server(self, **options: Any) -> requests.Response:
        """Ask for the user's server; the answer, which does not wait for it to be ready."""
        api = f"/hub/api/users/{self.user}/server"
        answer = self.post(api, headers={"X-XSRFToken": self.xsrf("/hub/")}, json=options or None)
        answer.raise_for_status()
        return answer

    def progress(self) -> Iterator[dict[str, Any]]:
        """What the hub says meanwhile, until the server is ready or has failed."""
        api, xsrf = f"/hub/api/users/{self.user}/server/progress", {"X-XSRFToken": self.xsrf("/hub/")}
        with self.get(api, headers=xsrf, stream=True) as events:
            events.raise_for_status()
            for line in events.iter_lines():
                if line.startswith(b"data:"):
                    yield json.loads(line.removeprefix(b"data:"))

    def stop_server(self) -> requests.Response:
        """Ask for the user's server to be stopped; the answer, 204 if it was at once."""
        api = f"/hub/api/users/{self.user}/server"
        return self.delete(api, headers={"X-XSRFToken": self.xsrf("/hub/")})

    def start_kernel(self) -> "Kernel":
        server = f"/user/{self.user}/"
        started = self.post(f"{server}api/kernels", json={}, headers={"X-XSRFToken": self.xsrf(server)})
        started.raise_for_status()
        return Kernel(self, f"{server}api/kernels/{started.json()['id']}")


class Kernel:
    """A kernel and the websocket to it, which stays open between executions."""

    def __init__(self, session: HubSession, path: str) -> None:
        self.session, self.path = session, path
        self.connect()

    def connect(self) -> None:
        """Open the websocket, as the page does again when it was closed."""
        url = urljoin(self.session.url, f"{self.path}/channels")
        cookies = get_cookie_header(self.session.cookies, requests.Request("GET", url).prepare())
        scheme = {"http": "ws", "https": "wss"}[urlsplit(url).scheme]
        authorities = {"ca_certs": self.session.verify} if scheme == "wss" else {}
        with self.session.machine.network():
            self.socket = websocket.create_connection(
                urlsplit(url)._replace(scheme=scheme).geturl(), cookie=cookies, timeout=240, http_no_proxy=["*"],
                sslopt=authorities,
            )  # fmt: skip

    def execute(self, code: str) -> str:
        """Run `code` over the open websocket; what it printed."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
        header |= {"session": uuid.uuid4().hex, "username": self.session.user}
        message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}}
        self.socket.send(json.dumps(message | {"content": {"code": code, "silent": False}}))
        printed = ""
        while True:
            reply = json.loads(self.socket.recv())
            if reply["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            match reply["msg_type"], reply["content"]:
                case "stream", {"text": text}:
                    printed += text
                case "error", {"ename": name, "evalue": value}:
                    raise AssertionError(f"{name}: {value}")
                case "status", {"execution_state": "idle"}:
                    return printed
