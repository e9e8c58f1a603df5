"""barehub.lifecycle.second_hub: a copy of an installation, what its hub would do, and that nothing is left of it."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from barehub import systemd
from barehub.errors import UserError
from barehub.evaluation import evaluate
from barehub.health import Endpoints
from barehub.layout import Layout
from barehub.lifecycle import database, second_hub
from barehub.lifecycle.directories import ensure_directories
from barehub.lifecycle.install import install
from barehub.lifecycle.options import Request
from barehub.lifecycle.second_hub import SecondHub
from barehub.lifecycle.upgrade_rehearsal import require_no_server
from barehub.settings import Installation

from tests.unit.installations import NEW, OLD_SCHEMA, fake_command, make_upgradable, users


@pytest.fixture
def real(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """An older release that is active, with data of an older schema, and the newer one, whose code this is."""
    old = make_upgradable(layout, tmp_path, monkeypatch, OLD_SCHEMA)
    monkeypatch.setattr(second_hub, "SAFE", ())  # tests run side by side
    add_server(database.own_database(layout, OLD_SCHEMA), "alice")
    return Installation(layout, old.settings)


def add_server(path: Path, name: str) -> None:
    """Let a server of this user's run, as far as the database knows."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("insert into servers (id, port) values (7, 8888)")
        connection.execute(
            "insert into spawners (user_id, server_id, name, state, user_options) "
            "select id, 7, '', '{\"pid\": 1}', '{\"kept\": true}' from users where name = ?",
            (name,),
        )


@pytest.fixture
def second(real: Installation) -> Iterator[SecondHub]:
    with second_hub.second_hub(real, Request(NEW)) as one:
        yield one


def files(directory: Path) -> dict[str, tuple[float, int]]:
    found = {path: path.lstat() for path in directory.rglob("*") if "__pycache__" not in path.parts}
    return {str(path): (one.st_mtime, one.st_mode) for path, one in found.items() if not path.is_dir()}


def site(real: Installation, text: str) -> None:
    (real.layout.config / "50-site.py").write_text(text)


def answers(real: Installation, request: Request | None = None) -> tuple[Endpoints, Endpoints, dict[str, object]]:
    """Where a rehearsal expects its hub, where its configuration puts it, and traefik's static configuration."""
    with second_hub.second_hub(real, request or Request(NEW)) as second:
        expected = second.configure()
        found = evaluate(second.copy.layout, second.copy.settings, os.environ)
        assert found.db_url == f"sqlite:///{database.own_database(second.copy.layout)}"
        return expected, found.endpoints, found.require_proxy().static


def test_the_copy_has_the_new_schema_and_no_server_and_the_original_is_as_it_was(second: SecondHub) -> None:
    original = database.own_database(second.real.layout, OLD_SCHEMA)
    before = original.read_bytes()
    assert second.copy_database() == ["alice"]
    copy = database.own_database(second.copy.layout)
    assert users(copy) == ["alice"]
    assert database.running_servers(copy) == []
    with database.opened(copy) as connection:
        assert connection.execute("select state, user_options from spawners").fetchall() == [(None, '{"kept": true}')]
        assert connection.execute("select count(*) from servers").fetchone() == (0,)
    assert original.read_bytes() == before
    assert database.running_servers(original) == ["alice"]


def test_nothing_is_left_also_after_an_error(real: Installation) -> None:
    before = files(real.layout.base)

    def interrupted() -> None:
        with second_hub.second_hub(real, Request(NEW)) as second:
            second.copy_database()
            second.configure()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert files(real.layout.base) == before
    assert not (real.layout.base / ".staging").exists()


def test_an_installation_that_has_its_name_is_left_alone(real: Installation) -> None:
    real.layout.system_units.mkdir(parents=True, exist_ok=True)
    theirs = real.layout.system_units / "barehub-rehearsal-hub.service"
    theirs.symlink_to(real.layout.record)
    before = files(real.layout.base)
    with pytest.raises(UserError, match=f"{theirs} belongs to") as caught, second_hub.second_hub(real, Request(NEW)):
        pass
    assert "--canary" in caught.value.fix
    assert files(real.layout.base) == before


def test_what_a_killed_one_left_is_no_obstacle(real: Installation) -> None:
    left = real.layout.base / ".staging/rehearsal/state"
    left.mkdir(parents=True)
    (left / "x").touch()
    with second_hub.second_hub(real, Request(NEW)) as second:
        assert not (second.copy.layout.state / "x").exists()


SITES = [
    "",
    "c.JupyterHub.bind_url = 'http://192.0.2.1:80/pre/fix/'",
    "c.JupyterHub.base_url = '/hub/'; c.JupyterHub.port = 9000",
    "c.JupyterHub.hub_bind_url = 'http://[::1]:8081/'; c.JupyterHub.hub_connect_url = 'http://head:8081/'",
    "c.JupyterHub.hub_ip = ''; c.JupyterHub.hub_connect_ip = 'head.example.org'",
    "c.JupyterHub.bind_url = 'https://h.example.org'; c.BarehubProxy.acme_email = 'a@h.example.org'",
    "c.JupyterHub.bind_url = 'https://h.example.org/'; c.JupyterHub.ssl_cert = '/c'; c.JupyterHub.ssl_key = '/k'",
    "c.JupyterHub.bind_url = 'https://h.example.org/'; c.BarehubProxy.acme_email = 'a@h.example.org'; "
    "c.JupyterHub.subdomain_host = 'https://h.example.org'",
    "c.BarehubProxy.extra_static_config = {'entryPoints': {'metrics': {'address': '127.0.0.1:9100'}}}",
    "c.JupyterHub.db_url = 'postgresql://hub:secret@db/hub'; c.JupyterHub.db_kwargs = {'pool_size': 5}",
    "c.JupyterHub.services.append({'name': 's', 'command': ['true'], 'url': 'http://127.0.0.1:9'})",
]


@pytest.mark.parametrize("text", SITES)
def test_whatever_the_site_says_it_is_on_loopback_and_asks_nobody(real: Installation, text: str) -> None:
    site(real, text)
    expected, found, static = answers(real)
    assert found.public == expected.public
    assert (found.hub, found.api, found.proxy) == (expected.hub, expected.api, expected.proxy)
    assert found.public.startswith("http://127.0.0.1:")
    assert "certificatesResolvers" not in static
    entrypoints = static["entryPoints"]
    assert isinstance(entrypoints, dict)
    assert {name: one["address"].partition(":")[0] for name, one in entrypoints.items()} == {
        "web": "127.0.0.1", "api": "127.0.0.1",
    }  # fmt: skip
    assert "tls" not in entrypoints["web"]["http"]


def test_it_has_the_address_that_the_upgrade_would_set_and_the_site_keeps_its_own(real: Installation) -> None:
    before = real.layout.installer_config.read_text()
    expected, _, _ = answers(real, Request(NEW, bind_url="http://:8000/new/"))
    assert expected.public.endswith("/new/")
    assert real.layout.installer_config.read_text() == before


def test_files_beside_the_configuration_and_in_the_hubs_directory_are_found(real: Installation) -> None:
    (real.layout.config / "names.txt").write_text("ada\n")
    (real.layout.hub_state / "more.txt").write_text("grace\n")
    (real.layout.config / "secret").write_text("hidden\n")
    site(
        real,
        "from pathlib import Path\nfrom barehub.secret import read_secret\n"
        "names = Path(__file__).with_name('names.txt').read_text() + Path('more.txt').read_text()\n"
        "assert names.split() == ['ada', 'grace'] and read_secret('secret') == 'hidden'\n",
    )
    answers(real)


def test_a_database_that_cannot_be_copied_is_not_touched(real: Installation) -> None:
    site(real, "c.JupyterHub.db_url = 'postgresql://hub:secret@db/hub'")
    with second_hub.second_hub(real, Request(NEW)) as second:
        assert second.copy_database() is None
        with pytest.raises(UserError, match="does not report whether ada has a server"):
            require_no_server(second, "ada", None)


def test_no_room_for_a_copy_is_said_before_it_is_made(second: SecondHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_hub.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="no room in"):
        second.copy_database()
    assert not database.own_database(second.copy.layout).exists()


@pytest.mark.parametrize("ran", [["bob", "alice"], ["Alice/second"]])
def test_a_user_with_a_server_is_no_canary(second: SecondHub, ran: list[str]) -> None:
    with pytest.raises(UserError, match="alice has a server"):
        require_no_server(second, "alice", ran)
    require_no_server(second, "ali", ran)


def test_units_are_the_releases_with_the_sites_changes_and_are_removed(
    second: SecondHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_in = tmp_path / "site.conf"
    drop_in.write_text("[Service]\nEnvironment=A=b\nRuntimeDirectory=hub\nExecStopPost=pkill -u alice\n")
    shown = f'case "$*" in *DropInPaths*-hub.service) echo {drop_in};; esac'
    calls = fake_command(tmp_path / "bin", "systemctl", shown, monkeypatch)
    units = second_hub.units_directory(second.copy.layout)
    hub, proxy = "barehub-rehearsal-hub.service", "barehub-rehearsal-proxy.service"
    with contextlib.suppress(KeyboardInterrupt), second.running():
        text = (units / hub).read_text()
        assert f"ExecStart={second.copy.layout.base}/hub/bin/jupyterhub" in text
        assert f"Wants={proxy}" in text
        assert (units / f"{hub}.d/site.conf").read_text() == drop_in.read_text()
        ours = (units / f"{hub}.d/zz-rehearsal.conf").read_text()
        for line in ("KillMode=mixed", "RuntimeDirectoryPreserve=yes", "ExecStopPost=", "StandardOutput=journal"):
            assert f"{line}\n" in ours
        assert f"ReadOnlyPaths={second.real.layout.state}\n" in ours
        assert sorted(path.name for path in units.iterdir()) == [hub, f"{hub}.d", proxy, f"{proxy}.d"]
        raise KeyboardInterrupt
    assert list(units.iterdir()) == []
    done = [line for line in calls.read_text().splitlines() if not line.startswith("show ")]
    ended = [f"stop {hub} {proxy}", "daemon-reload", f"reset-failed {hub} {proxy}"]
    assert done == [f"stop {hub} {proxy}", "daemon-reload", f"start {hub}", *ended]


@pytest.mark.parametrize("text", [second_hub.HUB_DROP_IN, second_hub.PROXY_DROP_IN])
def test_a_users_own_systemd_is_asked_for_no_mounts(text: str) -> None:
    assert "RuntimeMaxSec=" in systemd.for_user(text)
    assert "Paths=" not in systemd.for_user(text)


def test_without_systemd_it_is_refused_before_anything_changes(real: Installation) -> None:
    before = files(real.layout.base)
    for request in (Request(NEW, rehearse=True), Request(NEW, canary="ada")):
        with pytest.raises(UserError, match="a rehearsal needs systemd"):
            install(real.layout, request, say=lambda _: None)
    assert files(real.layout.base) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a hub with another account")
def test_a_hub_with_an_account_of_its_own_reads_its_configuration_and_secrets(
    real: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The checkout may be closed to the other account: with its modules, which are loaded now, and alembic's scripts.
    answers(real)
    known = database.newest_revision()
    monkeypatch.setattr(database, "newest_revision", lambda scripts=None: known)
    database.own_database(real.layout, OLD_SCHEMA).unlink()
    real = replace(real, settings=replace(real.settings, hub_user="nobody"))
    for above in real.layout.base.parents:
        above.chmod(above.stat().st_mode | 0o011)
    ensure_directories(real)
    (real.layout.config / "secret").write_text("s3cret\n")
    os.chown(real.layout.config / "secret", 0, real.layout.hub_state.stat().st_gid)
    (real.layout.config / "secret").chmod(0o640)
    (real.layout.config / "70-secret.py").write_text(
        "import os\nfrom barehub.secret import read_secret\n"
        "c.JupyterHub.base_url = f'/{read_secret(\"secret\")}-{os.geteuid()}/'\n"
    )
    with second_hub.second_hub(real, Request(NEW)) as second:
        assert second.configure().public.endswith(f"/s3cret-{real.layout.hub_state.stat().st_uid}/")
        assert second.copy.layout.hub_state.owner() == "nobody"
