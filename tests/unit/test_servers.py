"""barehub.lifecycle.servers: no server is cut off while it starts, and none forgotten; asked of a small hub."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from barehub.accounts import current_user
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle import servers
from barehub.lifecycle.servers import Api, ForgottenError, Server, wait_for_starting, wait_until_known
from barehub.listeners import Owner
from traitlets.config import Config

from tests.unit.installations import answering

TOKEN = "0123456789abcdef" * 4
VERSION = importlib.metadata.version("jupyterhub")


def path(offset: int = 0) -> str:
    return f"/hub/api/users?state=active&limit={servers.PAGE}&offset={offset}"


def model(url: str, *, ready: bool = True, pending: str | None = None, **more: object) -> dict[str, Any]:
    return {"url": url, "ready": ready, "pending": pending, **more}


def page(*models: dict[str, Any], next_offset: int | None = None) -> dict[str, Any]:
    following = {"offset": next_offset} if next_offset else None
    items = [{"name": "x", "servers": {str(number): one for number, one in enumerate(models)}}]
    return {"items": items, "_pagination": {"next": following}}


def api(port: int) -> Api:
    return Api(f"http://127.0.0.1:{port}/hub/api/", "token", Owner("no-such.service", current_user()))


def write_routes(layout: Layout, **targets: str) -> None:
    routes = {f"r{i}": {"routespec": f"/user/{name}/", "target": url} for i, (name, url) in enumerate(targets.items())}
    layout.rules.mkdir(parents=True)
    layout.rules_file.write_text(json.dumps({"jupyterhub": json.dumps({"routes": routes})}))


def test_all_pages_of_servers_are_read() -> None:
    pages = {
        path(): page(
            model("/user/alice/"), model("/user/bob/gpu%20one/", pending="spawn", ready=False), next_offset=200
        ),
        path(200): page(model("/user/carol/", stopped=True), model("/user/d%C3%A9/")),
    }
    with answering(pages) as port:
        found = api(port).servers()
    assert found == [
        Server("alice", "/user/alice/", ready=True, starting=False),
        Server("bob/gpu one", "/user/bob/gpu one/", ready=False, starting=True),
        Server("dé", "/user/dé/", ready=True, starting=False),
    ]


def test_a_name_cannot_pass_for_a_message() -> None:
    with answering({path(): page(model("/user/ada/x%1b%5d0%3bowned%07%0aerror: forged/"))}) as port:
        (server,) = api(port).servers() or []
    assert server.name == r"ada/x\x1b]0;owned\x07\nerror: forged"


def test_a_hub_that_does_not_answer_tells_nothing(layout: Layout) -> None:
    with answering({}) as port:
        assert api(port).servers() is None
        assert wait_for_starting(layout, api(port), 60, pytest.fail) is None
    assert api(port).version() is None


def test_servers_that_start_are_waited_for(layout: Layout) -> None:
    write_routes(layout, alice="http://node:1", bob="http://node:2")
    starting = page(model("/user/alice/"), model("/user/bob/", ready=False, pending="spawn"))
    said: list[str] = []
    with answering({path(): [starting, page(model("/user/alice/"), model("/user/bob/"))]}) as port:
        found = wait_for_starting(layout, api(port), 60, said.append)
    assert found is not None
    assert [(one.name, one.target) for one in found] == [("alice", "http://node:1"), ("bob", "http://node:2")]
    assert said == ["waiting for servers that are still starting, at most 60 s: bob"]


def test_a_server_that_a_restart_does_not_cut_off_is_not_waited_for(layout: Layout) -> None:
    queued = model("/user/bob/", ready=False, pending="spawn", state={servers.SURVIVES_RESTART: True, "job_id": "7"})
    other = model("/user/eve/", ready=False, pending="spawn", state={"pid": 7})
    with answering({path(): [page(queued)]}) as port:
        assert wait_for_starting(layout, api(port), 60, pytest.fail) == []
    said: list[str] = []
    with answering({path(): [page(queued, other)]}) as port:
        wait_for_starting(layout, api(port), -1, said.append)
    assert said == ["still starting, and the hub's restart may cut them off: eve"]


def test_what_does_not_start_in_time_is_named(layout: Layout) -> None:
    said: list[str] = []
    with answering({path(): page(model("/user/bob/", ready=False, pending="spawn"))}) as port:
        assert wait_for_starting(layout, api(port), -1, said.append) == []
    assert said == ["still starting, and the hub's restart may cut them off: bob"]


def test_a_new_hub_is_waited_for_until_it_knows_the_servers_that_ran() -> None:
    said: list[str] = []
    pages = {"/hub/api/": [{"version": "0"}, {"version": VERSION}], path(): [page(), page(model("/user/alice/"))]}
    with answering(pages) as port:
        alice = Server("alice", "/user/alice/", ready=True, starting=False, target=f"http://127.0.0.1:{port}")
        wait_until_known(api(port), [alice], seconds=60, say=said.append)
    assert said == []


def test_a_server_that_has_ended_meanwhile_is_not_waited_for() -> None:
    said: list[str] = []
    with answering({}) as closed:
        gone = Server("bob", "/user/bob/", ready=True, starting=False, target=f"http://127.0.0.1:{closed}")
    with answering({"/hub/api/": {"version": VERSION}, path(): page()}) as port:
        wait_until_known(api(port), [gone], seconds=60, say=said.append)
    assert said == ["the server of bob has ended meanwhile"]


def test_a_hub_that_forgets_a_running_server_is_an_error_of_its_own() -> None:
    with answering({"/hub/api/": {"version": VERSION}, path(): page()}) as port:
        alice = Server("alice", "/user/alice/", ready=True, starting=False, target=f"http://127.0.0.1:{port}")
        with pytest.raises(ForgottenError, match="running servers of alice"):
            wait_until_known(api(port), [alice], seconds=-1, say=pytest.fail)


def test_a_hub_of_another_version_is_not_the_new_one() -> None:
    with (
        answering({"/hub/api/": {"version": "0.1"}}) as port,
        pytest.raises(UserError, match=f"0.1, not {VERSION}") as e,
    ):
        wait_until_known(api(port), [], seconds=-1, say=pytest.fail)
    assert not isinstance(e.value, ForgottenError)


def test_asking_a_hub_takes_none_of_its_code() -> None:
    """`barehub`'s commands, and the configuration, read the rules without the proxy class and its imports."""
    program = "import sys, barehub.lifecycle.servers; sys.exit('jupyterhub' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_service_can_only_read(layout: Layout, tmp_path: Path) -> None:
    config = Config({"JupyterHub": {"services": [], "load_roles": []}})
    servers.register_service(layout, config)
    assert config.JupyterHub.services == []  # no token yet
    layout.hub_state.mkdir(parents=True)
    layout.api_token.write_text(TOKEN)
    servers.register_service(layout, config)
    assert config.JupyterHub.services == [{"name": "barehub", "api_token": TOKEN}]
    (role,) = config.JupyterHub.load_roles
    changing = [scope for scope in role["scopes"] if not scope.startswith(("list:", "read:"))]
    assert changing == ["admin:server_state"]  # which nothing but a GET has a use for


@pytest.mark.parametrize("body", [[], {}, "a page", 0, {"items": []}])
def test_what_is_not_the_hubs_api_is_no_answer(body: object) -> None:
    with answering({"/hub/api/": body, path(): body}) as port:
        assert api(port).version() is None
        assert api(port).servers() is None
