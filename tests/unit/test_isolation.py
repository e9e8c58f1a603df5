"""A rehearsal's hub and the hub that runs: real hubs, with a copy of one's database for the other."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub.accounts import current_user
from barehub.errors import UserError
from barehub.lifecycle.canary import Canary
from barehub.lifecycle.database import forget_servers, running_servers
from barehub.lifecycle.isolation import isolate
from barehub.listeners import Owner
from traitlets.config import Config

from tests.unit.proxies import wait_until
from tests.unit.real_hub import RealHub, running

ME = Owner("no-such.service", current_user())
TOKEN = "0123456789abcdef"
# A spawner that writes down what is asked of it, and a service that would act on whatever servers it finds.
SITE = f"""
from pathlib import Path
from jupyterhub.spawner import SimpleLocalProcessSpawner
BASE = Path(__file__).parent

class Told(SimpleLocalProcessSpawner):
    def tell(self, what):
        with open(BASE / "asked", "a") as file:
            file.write(f"{{what}} {{self.user.name}}\\n")
    async def start(self):
        self.tell("start")
        if self.user.name == "broken":
            raise RuntimeError("the disk of broken is full")
        return await super().start()
    async def stop(self, now=False):
        self.tell("stop")
        await super().stop(now=now)
    async def poll(self):
        self.tell("poll")
        return await super().poll()

c.JupyterHub.spawner_class = Told
c.JupyterHub.db_url = f"sqlite:///{{BASE}}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{{BASE}}/secret"
c.JupyterHub.pid_file = f"{{BASE}}/pid"
c.Authenticator.allowed_users = {{"ada"}}
c.LocalAuthenticator.create_system_users = True
c.LocalAuthenticator.add_user_cmd = ["touch", f"{{BASE}}/made"]
c.JupyterHub.services = [
    {{"name": "barehub", "api_token": "{TOKEN}"}},
    {{"name": "culler", "command": [sys.executable, "-c", f"open(r'{{BASE}}/culled', 'w').close()"]}},
]
c.JupyterHub.load_roles = [
    {{"name": "all", "services": ["barehub"], "scopes": ["admin:users", "admin:servers", "tokens"]}},
    {{"name": "culls", "services": ["culler"], "scopes": ["admin:servers"]}},
]
"""
ISOLATED = """
from barehub.lifecycle.isolation import isolate
isolate(
    c, database=f"{BASE}/copy.sqlite", cookie_secret=f"{BASE}/own-secret", bind_url=c.JupyterHub.bind_url,
    api_url="http://127.0.0.1:9", hub_port=c.JupyterHub.hub_port,
)
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHub]:
    """A hub with a server of ada's."""
    with running(tmp_path_factory.mktemp("real"), SITE) as hub:
        assert hub.ask("POST", "/hub/api/users/ada/server", TOKEN).status_code in (201, 202)
        wait_until(lambda: is_ready(hub))
        yield hub


@pytest.fixture(scope="module")
def second(real: RealHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHub]:
    """A rehearsal's hub with a copy of that hub's database."""
    base = tmp_path_factory.mktemp("second")
    assert forget_servers(copied(real, base)) == ["ada"]
    with running(base, SITE + ISOLATED) as hub:
        yield hub


def copied(real: RealHub, base: Path) -> Path:
    """A copy of a hub's database where the other one expects it."""
    return shutil.copy(real.log.with_name("hub.sqlite"), base / "copy.sqlite")


def is_ready(hub: RealHub) -> bool:
    return hub.get("/hub/api/users/ada", TOKEN).json()["servers"].get("", {}).get("ready", False)


def asked(hub: RealHub) -> set[str]:
    """What the hub's spawner was asked to do, and for whom."""
    return set(hub.log.with_name("asked").read_text().splitlines())


def canary(hub: RealHub, name: str) -> Canary:
    return Canary.log_in(f"{hub.url}/", ME, TOKEN, name)


def test_a_user_logs_in_without_a_password_and_has_a_server_while_others_keep_theirs(
    real: RealHub, second: RealHub
) -> None:
    user = canary(second, "grace")
    assert user.name == "grace"
    path = user.start_server()
    assert path == "/user/grace/"
    user.stop_server()
    assert user.api("GET")["servers"] == {}
    assert asked(second) == {"start grace", "poll grace", "stop grace"}
    assert is_ready(real)
    assert second.get("/hub/api/users/grace", TOKEN).status_code == 200
    assert real.get("/hub/api/users/grace", TOKEN).status_code == 404


def test_a_hub_with_servers_in_its_database_leaves_them_alone(real: RealHub, tmp_path: Path) -> None:
    """Should they not have been removed: neither its start nor its end asks for them."""
    database = copied(real, tmp_path)
    with running(tmp_path, SITE + ISOLATED) as hub:
        wait_until(lambda: hub.get("/hub/api/users/ada", TOKEN).json()["servers"] == {})
        assert running_servers(database) == []
    assert not (tmp_path / "asked").exists()
    assert is_ready(real)


def test_no_service_starts_no_account_is_made_and_no_file_of_the_sites_is_written(
    real: RealHub, second: RealHub
) -> None:
    base = second.log.parent
    canary(second, "grace")
    wait_until(real.log.with_name("culled").exists)  # where it may
    assert real.log.with_name("made").exists()
    assert not (base / "culled").exists()
    assert not (base / "made").exists()
    assert not (base / "pid").exists()
    assert not (base / "secret").exists()
    assert not (base / "hub.sqlite").exists()


def test_a_server_that_does_not_start_has_the_spawners_reason(second: RealHub) -> None:
    with pytest.raises(UserError, match="the disk of broken is full"):
        canary(second, "broken").start_server()


def test_what_the_hub_started_ends_with_it(real: RealHub, tmp_path: Path) -> None:
    """Ctrl-C at any moment comes to this."""
    forget_servers(copied(real, tmp_path))
    with running(tmp_path, SITE + ISOLATED) as hub:
        canary(hub, "grace").start_server()
        started = servers_of(hub)
        assert started
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
    assert is_ready(real)


def test_what_tells_servers_where_the_hub_is_has_the_port_of_this_one() -> None:
    config = Config()
    config.JupyterHub.hub_connect_url = "http://head:8081/pre/"
    config.Spawner.hub_connect_url = "http://[fd00::1]:8081/pre/hub/api"
    isolate(config, database="/d", cookie_secret="/c", bind_url="http://127.0.0.1:1/", api_url="", hub_port=343)
    assert config.JupyterHub.hub_connect_url == "http://head:343/pre/"
    assert config.Spawner.hub_connect_url == "http://[fd00::1]:343/pre/hub/api"
    assert config.JupyterHub.db_url == "sqlite:////d"


def test_routes_logs_and_events_of_the_real_hub_are_not_written() -> None:
    config = Config()
    config.TraefikFileProviderProxy.dynamic_config_file = "/opt/barehub/state/rules/rules.json"
    config.Application.logging_config = {"handlers": {"file": {"class": "logging.FileHandler"}}}
    config.EventLogger.handlers = [object()]
    isolate(config, database="/d", cookie_secret="/c", bind_url="http://127.0.0.1:1/", api_url="", hub_port=343)
    assert "dynamic_config_file" not in config.TraefikFileProviderProxy
    assert "logging_config" not in config.Application
    assert "EventLogger" not in config


def servers_of(hub: RealHub) -> list[int]:
    """The processes that have this hub's address in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"JUPYTERHUB_API_URL={hub.url}/hub/api".encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parts[2]))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]
