"""barehub.lifecycle.install: the post-install hooks on a temporary directory, without systemd."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle.install import install
from barehub.lifecycle.options import Request

from tests.unit.installations import NEW, OLD, belongs_to, fake_command, make_active, make_release


def test_an_incomplete_release_is_not_activated(layout: Layout) -> None:
    with pytest.raises(UserError, match="is not complete"):
        install(layout, Request("2026.11.24"), say=lambda _: None)
    assert not layout.hub.is_symlink()


def test_a_failed_run_puts_settings_and_units_back(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_release(layout, NEW)
    old = make_release(layout, OLD)
    make_active(old, monkeypatch)
    (layout.units / "barehub-hub.service").write_text("old")
    before = {path: path.read_text() for path in (layout.record, layout.installer_config)}
    # Ctrl-C, after the switch. A signal may go to another thread, which cuts no wait short: the command ends soon.
    enforce = layout.root / "sys/fs/selinux/enforce"
    enforce.parent.mkdir(parents=True)
    enforce.write_text("0")
    fake_command(tmp_path / "bin", "restorecon", "kill -INT $PPID; exec sleep 1", monkeypatch)
    belongs_to(layout, monkeypatch)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        install(layout, Request(NEW, bind_url="http://:9090", proxy_user="bin"), say=said.append)
    assert layout.active == OLD
    assert {path: path.read_text() for path in before} == before
    assert (layout.units / "barehub-hub.service").read_text() == "old"
    assert f"going back to {OLD}" in said


def test_the_first_install_says_how_to_start_and_the_next_how_to_go_back(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for label in (OLD, NEW):
        release = make_release(layout, label)
        belongs_to(release, monkeypatch)
        said.clear()
        install(release, Request(label), say=said.append)
        assert layout.active == label
        assert any(f"barehub {label} is installed" in line for line in said)
        assert any("bin/barehub run" in line for line in said)
        assert any("log in" in line for line in said) == (label == OLD)
        assert any(line.endswith(f"rollback      to {OLD}") for line in said) == (label == NEW)
        assert said[-1].startswith("changed: release")
    before = {path: path.stat().st_mtime_ns for path in layout.base.rglob("*") if path.is_file()}
    install(release, Request(NEW), say=said.append)
    after = {path: path.stat().st_mtime_ns for path in layout.base.rglob("*") if path.is_file()}
    assert before == after  # safe to run twice
    assert said[-1] == "nothing changed"


@pytest.mark.parametrize(
    ("change", "options", "line"),
    [
        ("chmod 755 state/hub", {}, "changed: directories"),
        ("rm systemd/barehub.target", {}, "changed: units"),
        ("true", {"bind_url": "http://:8081"}, "changed: configuration"),
        ("true", {"proxy_user": "bin"}, "changed: settings, units, directories"),
        ("true", {"restart": True}, "changed: files"),
        ("true", {"kept_channel": True}, "changed: channel"),
        ("touch state/hub/jupyterhub.log", {}, "nothing changed"),
    ],
)
def test_the_last_line_says_what_has_changed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, change: str, options: dict[str, Any], line: str
) -> None:
    release = make_release(layout, NEW)
    make_active(release, monkeypatch)
    subprocess.run(["sh", "-c", change], cwd=layout.base, check=True)
    said: list[str] = []
    install(release, Request(NEW, **options), say=said.append)
    assert said[-1] == line


@pytest.mark.parametrize(("path", "told"), [("", True), ("/dev/", False)])
def test_a_second_hub_without_a_path_is_told_that_cookies_know_no_port(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, path: str, told: bool
) -> None:
    release = make_release(layout, NEW)
    belongs_to(release, monkeypatch)
    release.system_units.mkdir(parents=True)
    unit = release.system_units / "barehub-proxy.service"
    unit.write_text("# Part of barehub\nRequiresMountsFor=/opt/barehub\n")
    said: list[str] = []
    install(release, Request(NEW, name="dev", bind_url=f"http://:8100{path}"), say=said.append)
    assert any("cookies do not know ports" in line and "/opt/barehub" in line for line in said) == told
    assert any(line.endswith("--bind-url http://:8100/dev/") for line in said) == told


def test_a_certificate_that_cannot_be_served_is_refused_before_anything_is_written(
    layout: Layout, tmp_path: Path
) -> None:
    make_release(layout, NEW)
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("none")
    files = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}
    with pytest.raises(UserError, match="ssl_cert holds no PEM certificate"):
        install(layout, Request(NEW, bind_url="https://h.example", **files), say=lambda _: None)
    assert not layout.record.exists()
    assert not layout.state.exists()
