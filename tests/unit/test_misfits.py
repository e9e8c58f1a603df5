"""barehub.lifecycle.misfits: what an upgrade says, before it switches, of environments and servers that do not fit."""

from pathlib import Path
from typing import Any

import pytest
from barehub.accounts import current_user
from barehub.environments import hubs_version, started_from
from barehub.layout import Layout
from barehub.lifecycle.misfits import report_environments, report_servers
from barehub.lifecycle.options import Request
from barehub.lifecycle.servers import Server
from barehub.settings import Installation

from tests.unit.installations import NEW as RELEASE
from tests.unit.installations import OLD as BEFORE
from tests.unit.test_environments import make_environment
from tests.unit.test_servers import model
from tests.unit.test_switchover import SERVERS, calls, old, pages, switchover

__all__ = ["calls", "old", "pages"]  # fixtures

OLD, NOW = "1.5.0", hubs_version()


def of(version: str) -> dict[str, Any]:
    return {"environment": started_from("/lab/releases/1", version)}


def said_of(servers: dict[str, Any], before: str = NOW) -> list[str]:
    said: list[str] = []
    running = (Server.of(model(f"/user/{name}/", state=state)) for name, state in servers.items())
    report_servers(running, before, said.append)
    return said


def test_environments_that_do_not_fit_are_named_by_their_labels(tmp_path: Path) -> None:
    environments = {
        "Lab": str(make_environment(tmp_path / "lab", NOW)),
        "Old": str(make_environment(tmp_path / "old", OLD)),
        "Gone": "/no/such",
        "Module": "module load jupyter",
    }
    said: list[str] = []
    report_environments(current_user(), environments, said.append)
    assert said == [f"warning: the environment Old has jupyterhub {OLD}, which is too old for the hub's {NOW}"]


def test_users_whose_servers_do_not_fit_are_named() -> None:
    old, new = said_of({"ada": of(OLD), "bob": of(NOW), "eve/two": of(OLD), "dan": of("99.0")})
    assert f"have jupyterhub {OLD}, which is too old for the hub's {NOW}, and may have to be started" in old
    assert old.endswith(": ada, eve/two")
    assert "99.0, which is too new" in new
    assert new.endswith(": dan")


def test_what_is_not_known_of_a_server_is_told_if_the_hub_changes() -> None:
    servers = {"ada": {"pid": 7}, "bob": None, "eve": of(NOW)}
    assert said_of(servers) == []
    assert said_of(servers, before="4.1.6") == [
        f"the hub goes from 4.1.6 to {NOW}; it is not known whether these servers fit: ada, bob"
    ]


@pytest.mark.parametrize(
    "state", [{"environment": "x"}, {"environment": {"jupyterhub": 6}}, {"environment": {"jupyterhub": "6\nevil"}}, {}]
)
def test_a_state_that_says_something_else_says_nothing(state: dict[str, Any]) -> None:
    assert Server.of(model("/user/ada/", state=state)).jupyterhub == ""


@pytest.mark.usefixtures("calls")
def test_an_upgrade_says_it_before_it_stops_the_hub(
    old: Installation, layout: Layout, tmp_path: Path, pages: dict[str, Any]
) -> None:
    """Of a named server too, and of one whose spawner does not know."""
    prefix = make_environment(tmp_path / "lab", OLD)
    (layout.config / "60-lab.py").write_text(f'c.Spawner.cmd = ["{prefix}/bin/jupyterhub-singleuser"]\n')
    running = {"ada": of(OLD), "bob/two": of(OLD), "eve": of(NOW), "dan": {"pid": 7}}
    servers = {name: model(f"/user/{name}/", state=state) for name, state in running.items()}
    pages[SERVERS] = {"items": [{"name": "all", "servers": servers}], "_pagination": {"next": None}}
    said: list[str] = []
    run = switchover(old, layout, Request(RELEASE), said)
    plan = run.prepare()
    assert f"warning: the environment {prefix} has jupyterhub {OLD}, which is too old for the hub's {NOW}" in said
    run.stop_hub(plan)
    (told,) = (one for one in said if one.startswith("warning: these running servers have"))
    assert told.endswith(": ada, bob/two")
    assert said.index(told) < said.index("stopping the hub for a moment; users' servers and the proxy go on")
    assert layout.active == BEFORE
