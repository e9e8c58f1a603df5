"""barehub.lifecycle.safe_ports: the hub's port is one that no other account can take; an older hub moves there."""

import json
import logging
import os
import re
from pathlib import Path

import pytest
from barehub import listeners
from barehub.errors import Exit, UserError
from barehub.evaluation import evaluate
from barehub.health import Endpoints
from barehub.layout import Layout
from barehub.lifecycle import options
from barehub.lifecycle import safe_ports as ports
from barehub.lifecycle.options import Request
from barehub.rules import RulesFile, move_target, read_routes
from barehub.settings import Installation, Settings

from tests.unit.installations import NEW, make_active, make_release

HUB = Settings(hub_user="hub", proxy_user="daemon")


@pytest.fixture
def installed(layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Installation:
    """One that has a unit; ports below 1024 need a privilege, whatever this machine says."""
    monkeypatch.setattr(listeners, "UNPRIVILEGED", tmp_path / "none")
    installation = make_active(make_release(layout, NEW), monkeypatch)
    layout.system_units.mkdir(parents=True)
    (layout.system_units / installation.settings.hub_unit).touch()
    return installation


def chosen(layout: Layout, bind_url: str | None = None) -> dict[str, object]:
    return ports.choose(layout, bind_url, lambda _: None)


def endpoints(installation: Installation) -> Endpoints:
    return evaluate(installation.layout, installation.settings).endpoints


def test_a_first_install_under_systemd_takes_ports_that_others_cannot(layout: Layout) -> None:
    options.write_installer_config(layout, Request(NEW), first=True, managed=True, say=lambda _: None)
    text = layout.installer_config.read_text()
    hub, api = (int(number) for number in re.findall(r"(?:hub_port = |127\.0\.0\.1:)(\d+)", text))
    assert hub != api
    assert {hub, api} <= set(ports.SAFE)
    assert max(ports.SAFE) < 512  # NFS and rresvport(3) take those above
    text = layout.installer_config.read_text()
    options.write_installer_config(layout, Request(NEW), first=False, managed=True, say=lambda _: None)
    assert layout.installer_config.read_text() == text


def test_a_machine_where_no_port_takes_a_privilege_says_so(
    installed: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "zero").write_text("0\n")
    monkeypatch.setattr(listeners, "UNPRIVILEGED", tmp_path / "zero")
    said = ports.warning(installed, endpoints(installed))
    assert said.endswith("see sysctl net.ipv4.ip_unprivileged_port_start")


def test_ports_in_use_are_left_to_their_owners(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {334, 335, 337}
    monkeypatch.setattr(ports, "port_is_free", lambda port, _: port not in taken)
    assert chosen(layout) == {ports.HUB: 336, ports.API: "http://127.0.0.1:338"}
    assert chosen(layout, "http://:336/") == {ports.HUB: 338, ports.API: "http://127.0.0.1:339"}
    taken |= {*ports.SAFE} - {343}
    with pytest.raises(UserError, match="fewer than two of the ports 334 to 343 are free") as caught:
        chosen(layout)
    assert caught.value.code == Exit.PORTS


def test_a_port_that_anybody_can_take_is_named_with_what_to_do(installed: Installation) -> None:
    layout = installed.layout
    unsafe = ports.warning(installed, endpoints(installed))
    assert "any account can take the hub's port 8081 while the hub restarts" in unsafe
    assert "run the installer again when no user's server runs" in unsafe
    site = layout.config / "50-site.py"
    for line in ("c.JupyterHub.hub_port = 9081", 'c.JupyterHub.hub_connect_url = "http://head:8081"'):
        site.write_text(f"{line}\n")
        assert not ports.may_move(layout, endpoints(installed))
        assert f"set c.JupyterHub.hub_port = 334 in {site} when" in ports.warning(installed, endpoints(installed))
    site.write_text('c.JupyterHub.hub_ip = "10.9.0.1"\n')  # a firewall may let only the old port through
    assert not ports.may_move(layout, endpoints(installed))
    assert f"in {site} when no" in ports.warning(installed, endpoints(installed))
    site.write_text("c.JupyterHub.hub_port = 700\n")
    assert ports.warning(installed, endpoints(installed)) == ""
    site.unlink()
    (layout.system_units / installed.settings.hub_unit).unlink()  # `barehub run`: there may be no privilege
    assert ports.warning(installed, endpoints(installed)) == ""


def test_the_route_to_the_hub_moves_and_the_others_stay(layout: Layout) -> None:
    def service(url: str) -> dict[str, object]:
        return {"loadBalancer": {"servers": [{"url": url}]}}

    old, new, ada = "http://127.0.0.1:8081", "http://127.0.0.1:334", "http://127.0.0.1:40000"
    routes = {"a": {"routespec": "/", "target": old}, "b": {"routespec": "/user/ada/", "target": ada}}
    services = {"a": service(old), "b": service(ada)}
    layout.rules.mkdir(parents=True)
    rules = RulesFile(layout.rules_file, logging.getLogger())
    rules.atomic_dump({"http": {"services": services, "routers": {}}, "jupyterhub": {"routes": routes}})
    move_target(layout.rules_file, old, new)
    assert [route["target"] for route in read_routes(layout.rules_file).values()] == [new, ada]
    written = json.loads(layout.rules_file.read_text())
    assert written["http"]["services"] == {"a": service(new), "b": service(ada)}


def test_a_release_whose_unit_cannot_have_the_port_is_known(layout: Layout) -> None:
    unit = layout.release(NEW) / "lib/python3.11/site-packages/barehub/units/hub.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nUser=@HUB_USER@\n")
    safe, unsafe = (Endpoints("", f"http://127.0.0.1:{port}/hub/health", "", "", "") for port in (334, 8081))
    assert ports.must_go_back(Installation(layout, HUB), NEW, safe)
    assert not ports.must_go_back(Installation(layout, Settings(proxy_user="daemon")), NEW, safe)  # root
    assert not ports.must_go_back(Installation(layout, HUB), NEW, unsafe)
    unit.write_text((Path(listeners.__file__).parent / "units/hub.service").read_text())
    assert not ports.must_go_back(Installation(layout, HUB), NEW, safe)


def test_rules_that_are_missing_stop_nothing(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.defpath)
    assert not ports.move_route(installed, "http://127.0.0.1:8081", "http://127.0.0.1:334")
