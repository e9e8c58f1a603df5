"""The post-install hooks on a temporary directory, without systemd."""

import json
import os
import re
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from barehub import config, systemd
from barehub.config import ConfigError, config_files, load_files, masked_files
from barehub.errors import UserError
from barehub.health import Endpoints
from barehub.layout import Layout
from barehub.lifecycle import install
from barehub.lifecycle.database import own_database
from barehub.lifecycle.install import Request
from barehub.process import write_atomically
from barehub.settings import Settings
from traitlets.config import Config

ME = Settings(name="barehub", hub_user="root", proxy_user="daemon")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "base", root=tmp_path / "root", prefix=tmp_path / "base/releases/2026.11.24")
    layout.config.mkdir(parents=True)
    (layout.share / "jupyterhub_config.d").mkdir(parents=True)
    return layout


# Configuration


def test_files_of_both_directories_are_loaded_by_name_and_base_masks_the_release(layout: Layout) -> None:
    release = layout.share / "jupyterhub_config.d"
    for path in (release / "10-a.py", release / "30-c.py", layout.config / "20-b.py", layout.config / "30-c.py"):
        path.write_text(f"c.Seen.setdefault('order', []).append({path.parent.parent.name + '/' + path.name!r})\n")
    (layout.config / "README").write_text("not Python")
    loaded = Config()
    load_files(layout, loaded, lambda *_: None)
    assert loaded.Seen.order == ["barehub/10-a.py", "base/20-b.py", "base/30-c.py"]
    assert masked_files(layout) == [release / "30-c.py"]
    assert config_files(layout)[-1] == layout.config / "30-c.py"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("c.A.b = 1\nc.A.b = (\n", r"50-site\.py, line 2: SyntaxError: '\(' was never closed"),
        ("import os\n\nc.A.b = undefined\n", r"50-site\.py, line 3: NameError: name 'undefined' is not defined"),
        ("import json\njson.loads('{')\n", r"50-site\.py, line 2: json\.decoder\.JSONDecodeError"),
        (b"c.A.b = '\xff'\n", r"50-site\.py.*: SyntaxError"),
    ],
)
def test_a_mistake_is_reported_with_file_and_line(layout: Layout, text: str | bytes, complaint: str) -> None:
    (layout.config / "50-site.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_files(layout, Config(), lambda *_: None)
    assert str(caught.value).startswith(str(layout.config))


def test_the_base_configuration_loads_into_jupyterhub(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(__file__).parents[2] / "post_install/data/share/barehub"
    shutil.copytree(source, layout.share, dirs_exist_ok=True)
    monkeypatch.setattr("barehub.layout.sys.prefix", str(layout.prefix))
    monkeypatch.setenv("BAREHUB_BASE", str(layout.base))
    (layout.config / "50-site.py").write_text('c.JupyterHub.bind_url = "http://127.0.0.1:1234/base/"\n')
    hub = config.load_hub(layout)
    assert hub.db_url == f"sqlite:///{own_database(layout)}"
    assert hub.cleanup_servers is False
    endpoints = Endpoints.of(hub)
    assert endpoints.public == "http://127.0.0.1:1234/base/"
    assert endpoints.hub == "http://127.0.0.1:8081/base/hub/health"
    (layout.config / "50-site.py").write_text('c.JupyterHub.hub_port = "eight"\n')
    with pytest.raises(ConfigError, match="hub_port"):
        config.load_hub(layout)


@pytest.mark.parametrize("example", ["50-pam-users.py", "60-idle-culler.py"])
def test_the_examples_load(layout: Layout, example: str) -> None:
    source = Path(__file__).parents[2] / "post_install/data/share/barehub/examples" / example
    shutil.copyfile(source, layout.config / example)
    load_files(layout, Config(), lambda *_: None)


# Settings and files


def test_settings_are_kept(layout: Layout) -> None:
    assert Settings.load(layout) is None
    assert ME.save(layout)
    assert not ME.save(layout)
    assert Settings.load(layout) == ME


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "nmae": "x"}', '{"schema": 2, "name": "x"}'])
def test_damaged_settings_are_an_error_with_a_cure(layout: Layout, text: str) -> None:
    layout.record.write_text(text)
    with pytest.raises(UserError) as caught:
        Settings.load(layout)
    assert caught.value.fix
    assert caught.value.code == 6


def test_a_file_is_written_whole_with_its_mode_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    old = os.umask(0o002)
    try:
        assert write_atomically(path, "one", 0o600)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not write_atomically(path, "one", 0o600)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("barehub.process.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "two", 0o600)
    assert path.read_text() == "one"


def test_installer_options_become_a_readable_file_that_keeps_what_was_added(layout: Layout) -> None:
    said: list[str] = []
    request = Request("2026.11.24", bind_url="http://:8080")
    install.write_installer_config(layout, request, first=False, say=said.append)
    assert layout.installer_config.read_text().splitlines()[1:] == ['c.JupyterHub.bind_url = "http://:8080"']
    layout.installer_config.write_text(layout.installer_config.read_text() + "c.JupyterHub.log_level = 10\n")
    install.write_installer_config(layout, replace(request, bind_url="http://:9090"), first=False, say=said.append)
    assert layout.installer_config.read_text().splitlines()[1:] == [
        'c.JupyterHub.bind_url = "http://:9090"',
        "c.JupyterHub.log_level = 10",
    ]
    assert said == [f"wrote {layout.installer_config}"] * 2


def test_internal_ports_that_are_taken_are_replaced_on_the_first_install(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(install, "INTERNAL_PORTS", {"hub_port": taken})
        assert install.write_installer_config(layout, Request("2026.11.24"), first=True, say=lambda _: None)
    number = int(re.search(r"hub_port = (\d+)", layout.installer_config.read_text())[1])
    assert taken < number < taken + 1000


def test_a_switch_is_one_rename_and_idempotent(layout: Layout) -> None:
    for release in ("2026.10.24", "2026.11.24"):
        layout.release(release).mkdir(exist_ok=True)
        install.switch(layout, release)
        inode = layout.hub.lstat().st_ino
        install.switch(layout, release)
        assert layout.active == release
        assert layout.hub.lstat().st_ino == inode
    assert str(layout.hub.readlink()) == "releases/2026.11.24"


def test_directories_get_their_modes_whatever_the_umask(layout: Layout) -> None:
    old = os.umask(0o077)
    try:
        settings = replace(ME, hub_user="root", proxy_user="daemon") if os.geteuid() == 0 else ME
        install.ensure_directories(layout, settings)
        layout.hub_state.chmod(0o777)
        install.ensure_directories(layout, settings)
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in layout.state.iterdir()}
    assert modes == {"hub": 0o700, "rules": 0o2750, "proxy": 0o750, "acme": 0o700}


def test_an_incomplete_release_is_not_activated(layout: Layout) -> None:
    with pytest.raises(UserError, match="is not complete"):
        install.install(layout, Request("2026.11.24"), say=lambda _: None)
    assert not layout.hub.is_symlink()


# Units


@pytest.mark.parametrize("hub_user", ["root", "hub"])
def test_units_are_rendered_whole_and_verified_by_systemd(layout: Layout, hub_user: str, tmp_path: Path) -> None:
    settings = replace(ME, name="site", hub_user=hub_user)
    units = systemd.rendered(layout, settings)
    assert list(units) == list(settings.units)
    for name, text in units.items():
        assert not re.search(r"@[A-Z_]+@", text)
        (tmp_path / name).write_text(text.replace(f"{layout.base}/hub/bin", "/usr/bin"))
    hub = units["site-hub.service"]
    # NoNewPrivileges, which these imply for a user that is not root, would break sudo.
    assert ("\nProtectKernelModules=yes" in hub) == (hub_user == "root")
    assert json.dumps(hub).count("site-proxy.service") >= 2
    if shutil.which("systemd-analyze"):
        for program in ("jupyterhub", "python"):
            (tmp_path / program).symlink_to("/bin/true")
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *(tmp_path / name for name in units)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        complaints = [line for line in done.stderr.splitlines() if "is not executable" not in line]
        assert not complaints


def test_a_placeholder_without_a_value_is_a_bug() -> None:
    with pytest.raises(KeyError):
        systemd.render("@MISSING@")


def test_writing_units_twice_changes_nothing(layout: Layout) -> None:
    layout.units.mkdir()
    assert systemd.write_units(layout, ME) == list(ME.units)
    install.switch(layout, layout.prefix.name)
    systemd.link_units(layout, ME)
    assert systemd.write_units(layout, ME) == []
    assert systemd.write_units(layout, replace(ME, hub_user="hub")) == ["barehub-hub.service"]


def test_units_of_another_installation_are_not_taken_over(layout: Layout) -> None:
    layout.system_units.mkdir(parents=True)
    place = layout.system_units / "barehub.target"
    place.symlink_to("/elsewhere/systemd/barehub.target")
    systemd.require_no_foreign_units(layout, ME)  # what it belonged to is gone
    place.unlink()
    place.symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="belongs to /etc/passwd"):
        systemd.require_no_foreign_units(layout, ME)
    place.unlink()
    place.write_text("[Unit]\n")
    with pytest.raises(UserError, match="belongs to somebody else"):
        systemd.require_no_foreign_units(layout, ME)
    place.write_text(systemd.rendered(layout, ME)["barehub.target"])
    systemd.require_no_foreign_units(layout, ME)


def test_root_gives_nothing_away_through_a_link(layout: Layout, tmp_path: Path) -> None:
    install.ensure_directories(layout, ME)
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (victim / "file").write_text("theirs")
    before = [(path.stat().st_uid, path.stat().st_gid, path.stat().st_mode) for path in (victim, victim / "file")]
    (layout.hub_state / "link").symlink_to(victim / "file")
    os.link(victim / "file", layout.hub_state / "hard")
    settings = replace(ME, hub_user="daemon")
    install.ensure_directories(layout, settings)
    layout.rules_staging.rmdir()
    layout.rules_staging.symlink_to(victim)
    with pytest.raises(UserError, match="is not a directory"):
        install.ensure_directories(layout, settings)
    assert [(p.stat().st_uid, p.stat().st_gid, p.stat().st_mode) for p in (victim, victim / "file")] == before


def test_a_failed_run_puts_settings_and_units_back(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(__file__).parents[2] / "post_install/data/share/barehub"
    old = replace(layout, prefix=layout.release("2026.10.24"))
    monkeypatch.setenv("BAREHUB_BASE", str(layout.base))
    for one in (old, layout):
        shutil.copytree(source, one.share, dirs_exist_ok=True)
        one.receipt(one.prefix.name).write_text('{"files": []}')
    monkeypatch.setattr("barehub.layout.sys.prefix", str(old.prefix))
    install.install(old, Request("2026.10.24", bind_url="http://:8080"), say=lambda _: None)
    (layout.units / "barehub-hub.service").write_text("old")
    before = {path: path.read_text() for path in (layout.record, layout.installer_config)}

    def interrupted(_: Layout) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "relabel", interrupted)
    monkeypatch.setattr("barehub.layout.sys.prefix", str(layout.prefix))
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        install.install(layout, Request("2026.11.24", bind_url="http://:9090", proxy_user="bin"), say=said.append)
    assert layout.active == "2026.10.24"
    assert {path: path.read_text() for path in before} == before
    assert (layout.units / "barehub-hub.service").read_text() == "old"
    assert "going back to 2026.10.24" in said


def test_a_barehub_keeps_its_name(layout: Layout) -> None:
    with pytest.raises(UserError, match="is named barehub"):
        install.choose_settings(ME, Request("2026.11.24", name="other"))
