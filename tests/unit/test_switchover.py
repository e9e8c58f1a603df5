"""barehub.lifecycle.switchover: in which order services stop and start, and what a failure puts back.

systemctl is a script that notes its calls; hub and proxy are a small server that answers for both.
"""

import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle import database, ports, safe_ports, servers
from barehub.lifecycle.options import Request
from barehub.lifecycle.servers import ForgottenError
from barehub.lifecycle.switchover import Switchover
from barehub.settings import Installation

from tests.unit.installations import ME, NEW, OLD, add_user, answering, fake_command, make_upgradable, users

HUB, PROXY, TARGET = "barehub-hub.service", "barehub-proxy.service", "barehub.target"
SERVERS = f"/hub/api/users?state=active&limit={servers.PAGE}&offset=0"
NONE: dict[str, Any] = {"items": [], "_pagination": {"next": None}}


@pytest.fixture
def pages() -> dict[str, Any]:
    """What hub and proxy answer."""
    return {"/hub/health": {}, "/hub/api/": {"version": importlib.metadata.version("jupyterhub")}, SERVERS: NONE}


@pytest.fixture
def old(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: dict[str, Any]
) -> Iterator[Installation]:
    """An older release that is active, with data, and a newer one beside it whose schema is the same."""
    old = make_upgradable(layout, tmp_path, monkeypatch)
    layout.system_units.mkdir(parents=True)
    with answering(pages) as port:
        lines = (f'c.JupyterHub.bind_url = "http://127.0.0.1:{port}/"', f"c.JupyterHub.hub_port = {port}")
        (layout.config / "50-site.py").write_text("\n".join(lines))
        yield old


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake_command(tmp_path / "bin", "systemctl", 'case "$1" in show) echo 0;; esac', monkeypatch)


def switchover(old: Installation, layout: Layout, request: Request, said: list[str]) -> Switchover:
    new = Installation(layout, replace(old.settings, proxy_user=request.proxy_user or old.settings.proxy_user))
    return Switchover(new, old.settings, request, managed=True, say=said.append)


def enable(layout: Layout) -> str:
    return " ".join(["enable", *(str(layout.units / name) for name in ME.units)])


def changes(calls: Path) -> list[str]:
    return [line for line in calls.read_text().splitlines() if not line.startswith("show ")]


def test_the_hub_stops_only_after_all_that_can_be_checked_before(
    old: Installation, layout: Layout, calls: Path
) -> None:
    run = switchover(old, layout, Request(NEW), [])
    plan = run.prepare()
    assert changes(calls) == []
    assert layout.active == OLD
    run.stop_hub(plan)
    assert changes(calls) == [f"stop {HUB}"]
    assert users(layout.backup(OLD)) == ["alice"]
    run.commit(plan)
    assert layout.active == NEW
    # The proxy, whose programs are the same, goes on.
    assert changes(calls)[1:] == ["daemon-reload", enable(layout), f"restart {HUB}", f"start {TARGET}"]
    assert (layout.system_units / HUB).resolve() == layout.release_units / HUB


def test_what_changes_for_the_proxy_restarts_it(old: Installation, layout: Layout, calls: Path) -> None:
    run = switchover(old, layout, Request(OLD, restart=True), [])
    plan = run.prepare()
    run.stop_hub(plan)  # the same release and schema: nothing to stop for
    assert changes(calls) == []
    run.start([], reconfigured=False)
    assert changes(calls) == [f"restart {PROXY}", f"restart {HUB}", f"start {TARGET}"]
    calls.write_text("")
    run = switchover(old, layout, Request(OLD), [])
    run.start([], reconfigured=False)
    assert changes(calls) == [f"start {TARGET}"]
    run.start([PROXY], reconfigured=False)
    assert f"restart {PROXY}" in changes(calls)
    assert f"restart {HUB}" not in changes(calls)


def test_a_failure_before_the_stop_touches_no_service(old: Installation, layout: Layout, calls: Path) -> None:
    (layout.config / "60-wrong.py").write_text("c.A.b = undefined\n")
    record = layout.record.read_text()
    run = switchover(old, layout, Request(NEW, proxy_user="nobody"), [])
    with pytest.raises(UserError, match="undefined"):
        run.prepare()
    assert layout.record.read_text() != record
    run.roll_back(data_changed=False)
    assert layout.record.read_text() == record
    assert changes(calls) == []


def test_a_failure_after_the_switch_leads_back_with_the_hub_running(
    old: Installation, layout: Layout, calls: Path
) -> None:
    said: list[str] = []
    run = switchover(old, layout, Request(NEW), said)
    plan = run.prepare()
    run.stop_hub(plan)
    run.commit(plan)
    calls.write_text("")
    run.roll_back(data_changed=False)
    assert layout.active == OLD
    assert changes(calls) == [f"stop {HUB}", "daemon-reload", enable(layout), f"start {HUB}"]
    assert said[-1] == f"going back to {OLD}"


def test_a_hub_that_forgot_servers_gets_its_data_back(
    old: Installation, layout: Layout, calls: Path, pages: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema is the same, so only the backup knows what the new hub has changed."""
    model = {"url": "/user/alice/", "ready": True, "pending": None}
    pages[SERVERS] = [{"items": [{"servers": {"": model}}], "_pagination": {"next": None}}, NONE]
    monkeypatch.setattr("barehub.lifecycle.switchover.KNOWN_SECONDS", 0)
    with answering({}) as port:
        routes = {"a": {"routespec": "/user/alice/", "target": f"http://127.0.0.1:{port}"}}
        layout.rules_file.write_text(json.dumps({"jupyterhub": json.dumps({"routes": routes})}))
        run = switchover(old, layout, Request(NEW), [])
        plan = run.prepare()
        run.stop_hub(plan)
        with pytest.raises(ForgottenError, match="alice"):
            run.commit(plan)
    add_user(database.own_database(layout), 2, "bob")  # the new hub's doing
    run.roll_back(data_changed=True)
    assert users(database.own_database(layout)) == ["alice"]


def on_an_old_port(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the small server be a hub whose port is the installer's to choose; what it says about the port."""
    site = layout.config / "50-site.py"
    bind, line = site.read_text().splitlines()
    site.write_text(bind)
    with layout.installer_config.open("a") as file:
        file.write(f"{line}\n")
    moved = {ports.HUB: 334, ports.API: "http://127.0.0.1:335"}
    monkeypatch.setattr(safe_ports, "choose", lambda *_: moved)
    monkeypatch.setattr(safe_ports, "anyone_may_listen", lambda port: port >= 1024)
    return line


def test_a_hub_whose_port_anybody_can_take_moves_when_nobody_would_miss_it(
    old: Installation, layout: Layout, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_an_old_port(layout, monkeypatch)
    routed: list[tuple[str, str, list[str]]] = []
    monkeypatch.setattr(safe_ports, "move_route", lambda _, *urls: routed.append((*urls, changes(calls))))
    run = switchover(old, layout, Request(OLD), [])
    plan = run.prepare()
    port = plan.endpoints.hub_url.rpartition(":")[2]
    plan = run.stop_hub(plan)
    # The proxy is told before the hub leaves its port.
    assert routed == [(f"http://127.0.0.1:{port}", "http://127.0.0.1:334", [])]
    assert changes(calls) == [f"stop {HUB}"]
    assert (plan.api.url, plan.reconfigured) == ("http://127.0.0.1:334/hub/api/", True)
    assert "c.JupyterHub.hub_port = 334\n" in layout.installer_config.read_text()
    run.roll_back(data_changed=False)
    assert f"c.JupyterHub.hub_port = {port}\n" in layout.installer_config.read_text()


def test_the_hub_that_runs_is_asked_although_its_account_changes(
    old: Installation, layout: Layout, calls: Path
) -> None:
    before = replace(old.settings, hub_user="daemon")
    plan = Switchover(Installation(layout, old.settings), before, Request(NEW), managed=True, say=print).prepare()
    assert plan.api.owner.account == "daemon"


def test_servers_that_know_the_hubs_port_keep_it(
    old: Installation, layout: Layout, calls: Path, pages: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = on_an_old_port(layout, monkeypatch)
    for pending, ready in ((None, True), ("spawn", False), ("stop", False)):
        model = {"url": "/user/alice/", "ready": ready, "pending": pending}
        pages[SERVERS] = {"items": [{"servers": {"": model}}], "_pagination": {"next": None}}
        run = switchover(old, layout, Request(OLD), [])
        assert run.stop_hub(plan := run.prepare()) is plan
    del pages[SERVERS]  # a hub that does not tell
    run = switchover(old, layout, Request(OLD), [])
    assert run.stop_hub(plan := run.prepare()) is plan
    assert changes(calls) == []
    assert f"{line}\n" in layout.installer_config.read_text()


def test_a_hub_that_systemd_does_not_run_has_to_be_stopped_first(old: Installation, layout: Layout) -> None:
    run = Switchover(Installation(layout, old.settings), old.settings, Request(NEW), managed=False, say=lambda _: None)
    with pytest.raises(UserError, match="the hub runs, and not under systemd"):
        run.stop_hub(run.prepare())
    assert layout.active == OLD


def test_what_goes_wrong_on_the_way_back_does_not_keep_the_hub_down(
    old: Installation, layout: Layout, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = switchover(old, layout, Request(NEW), [])
    run.stop_hub(run.prepare())
    monkeypatch.setattr(Switchover, "restore_files", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        run.roll_back(data_changed=False)
    assert layout.active == OLD
    assert f"start {HUB}" in changes(calls)


def test_the_options_file_may_be_a_link_and_stays_one(
    old: Installation, layout: Layout, calls: Path, tmp_path: Path
) -> None:
    real = tmp_path / "10-install.py"
    layout.installer_config.rename(real)
    real.chmod(0o600)
    layout.installer_config.symlink_to(real)
    run = switchover(old, layout, Request(NEW, bind_url="http://:9090"), [])
    before = real.read_text()
    run.prepare()
    assert "9090" in real.read_text()
    run.roll_back(data_changed=False)
    assert layout.installer_config.is_symlink()
    assert (real.read_text(), real.stat().st_mode & 0o777) == (before, 0o600)
