"""The overlay `slurm` on the head of a test cluster, installed as its README says, and ways to observe it."""

import contextlib
import html
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from tests.machines.cluster import HEAD, Cluster, cluster
from tests.machines.hub_client import URL, HubSession
from tests.machines.machine import PATIENCE, until
from tests.machines.rootfs import USERS
from tests.readme import admin_commands

BASE = "/opt/slurm"  # of an installer built with --name slurm
BAREHUB, HUB = f"{BASE}/hub/bin/barehub", "slurm-hub.service"
EXAMPLES = f"{BASE}/hub/share/barehub/examples"
CONFIG = f"{BASE}/jupyterhub_config.d"
TOKEN = "for-tests-alone"

# Shorter times than a site has, a token for the API, and servers that are meant to fail.
TEST_CONFIG = f"""
c.SlurmJobSpawner.queue_interval = 1
c.SlurmJobSpawner.report_timeout = 3
c.Spawner.poll_interval = 2
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}
c.JupyterHub.services = [{{"name": "test", "api_token": "{TOKEN}"}}]
c.JupyterHub.load_roles = [
    {{"name": "test", "scopes": ["admin:users", "admin:servers", "proxy"], "services": ["test"]}}
]

def misconfigure(spawner):
    for name in ("users_environment", "hub_connect_url", "start_timeout"):
        if name in spawner.user_options:
            setattr(spawner, name, spawner.user_options[name])

c.Spawner.pre_spawn_hook = misconfigure
"""


@contextlib.contextmanager
def site(root: Path, installer: Path) -> Iterator[Cluster]:
    """A cluster with the overlay on its head."""
    with cluster(root) as new:
        install(new, installer)
        yield new


def install(cluster: Cluster, installer: Path) -> None:
    """Run on the head what the README says, for a hub that runs as root in its tighter sandbox."""
    head = cluster.head
    head.copy_in(installer, "/mnt/slurm.sh")
    edit = f"sed -i s,10.0.0.1,{HEAD},"
    for command in admin_commands("slurm", "/mnt/slurm.sh", edit):
        head.shell(command)
        head.write(f"{CONFIG}/60-test.py", TEST_CONFIG)
    head.eventually(BAREHUB, "status")


def user(cluster: Cluster, name: str) -> HubSession:
    session = HubSession(cluster.head, name)
    session.login(USERS.get(name, name))
    return session


def api(cluster: Cluster, path: str) -> Any:
    """Return what the hub's API tells an administrator."""
    with cluster.head.network():
        answer = requests.get(f"{URL}/hub/api/{path}", headers={"Authorization": f"token {TOKEN}"}, timeout=120)
    answer.raise_for_status()
    return answer.json()


def wait_for_end(cluster: Cluster, name: str, timeout: float = PATIENCE) -> None:
    """Wait until a user's server has ended, and JupyterHub has done with it."""

    def has_ended() -> bool:
        told = api(cluster, f"users/{name}")
        return not (told["server"] or told["pending"])

    until(has_ended, f"the end of {name}'s server", timeout)


def page(session: HubSession, path: str) -> str:
    """Return a page of the hub, with characters as a browser shows them."""
    return html.unescape(session.get(path).text)


def failure(session: HubSession) -> str:
    """Wait until a start has failed and return what its user is told."""

    def end() -> dict[str, Any] | None:
        try:
            *_, last = session.progress()
        except requests.HTTPError as error:
            if error.response.status_code != 400:  # it has failed, and the hub is still clearing away
                raise
            return None
        return last

    last = until(end, "the end of the start")
    assert last.get("failed"), last
    return last["message"]


def left_over(cluster: Cluster) -> list[str]:
    """Return the jobs, the routes except the hub's, and the servers, including those that are pending."""
    servers = [one["name"] for one in api(cluster, "users") if one["server"] or one["pending"]]
    return cluster.jobs() + servers + [route for route in api(cluster, "proxy") if route != "/"]


def require_clean(cluster: Cluster) -> None:
    """Wait until nothing is left."""
    deadline = time.monotonic() + 240
    while (left := left_over(cluster)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


@contextlib.contextmanager
def full(cluster: Cluster, nodes: int = 2) -> Iterator[Callable[[], None]]:
    """Occupy so many nodes with another account's jobs; call the result to end them."""
    submit = ("sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--exclusive", "--wrap=sleep 1000")
    jobs = [cluster.head.succeed(*submit).strip() for _ in range(nodes)]
    until(lambda: sum("root RUNNING" in job for job in cluster.jobs()) == nodes, "full nodes")

    def end() -> None:
        cluster.head.succeed("scancel", *jobs)

    try:
        yield end
    finally:
        end()
