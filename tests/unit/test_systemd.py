"""barehub.systemd: units are rendered whole, and only our own are replaced."""

import json
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from barehub import systemd
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle.releases import switch
from barehub.settings import Installation

from tests.unit.installations import ME, fake_command


def test_a_user_s_units_have_only_what_their_systemd_can_do(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd.os, "geteuid", lambda: 4001)
    units = systemd.rendered(Installation(layout, replace(ME, hub_user="alice", proxy_user="alice")))
    proxy = units["barehub-proxy.service"]
    assert "\nNoNewPrivileges=yes\n" in proxy
    assert "\nSystemCallFilter=@system-service\n" in proxy
    for text in units.values():
        assert not re.search(r"^(User|Protect\w+|Private\w+|CapabilityBoundingSet)=", text, re.MULTILINE)
    assert "WantedBy=default.target" in units["barehub.target"]


def test_whose_systemd_it_is(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    (layout.root / "run/systemd/system").mkdir(parents=True)
    assert (systemd.systemd_runs(layout), systemd.scope()) == (True, ())
    assert layout.system_units == layout.root / "etc/systemd/system"
    monkeypatch.setattr(systemd.os, "geteuid", lambda: 4001)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir="/home/ada"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HOME", "/")
    assert not systemd.systemd_runs(layout)
    assert os.environ.pop("XDG_RUNTIME_DIR") == "/run/user/4001"
    (layout.root / "run/user/4001/systemd").mkdir(parents=True)
    (layout.root / "run/user/4001/systemd/private").touch()
    assert systemd.systemd_runs(layout)
    assert systemd.advice("systemctl", "restart", "x") == "systemctl --user restart x"
    assert layout.system_units == layout.root / "home/ada/.config/systemd/user"
    os.environ.pop("XDG_RUNTIME_DIR")


def test_a_systemd_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "output", lambda *_: "systemd 219\n+PAM +AUDIT\n")
    systemd.require_version(219)
    with pytest.raises(UserError, match="has systemd 219, which is too old: 239 is needed"):
        systemd.require_version(239)


@pytest.mark.parametrize("hub_user", ["root", "hub"])
def test_units_are_rendered_whole_and_verified_by_systemd(layout: Layout, hub_user: str, tmp_path: Path) -> None:
    settings = replace(ME, name="site", hub_user=hub_user)
    units = systemd.rendered(Installation(layout, settings))
    assert list(units) == list(settings.units)
    for name, text in units.items():
        assert not re.search(r"@[A-Z_]+@", text)
        (tmp_path / name).write_text(text.replace(f"{layout.base}/hub/bin", "/usr/bin"))
    hub = units["site-hub.service"]
    # NoNewPrivileges, which these imply for a user that is not root, would break sudo.
    assert ("\nProtectKernelModules=yes" in hub) == (hub_user == "root")
    # A port below 1024 takes this capability, which root has.
    assert ("\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n" in hub) == (hub_user == "hub")
    assert re.search(r"^MemoryMax=\d+G$", units["site-proxy.service"], re.MULTILINE)
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
    assert systemd.write_units(Installation(layout, ME)) == list(ME.units)
    switch(layout, layout.prefix.name)
    systemd.link_units(Installation(layout, ME))
    assert systemd.write_units(Installation(layout, ME)) == []
    assert systemd.write_units(Installation(layout, replace(ME, hub_user="hub"))) == ["barehub-hub.service"]


def test_units_of_another_installation_are_not_taken_over(layout: Layout) -> None:
    layout.system_units.mkdir(parents=True)
    place = layout.system_units / "barehub.target"
    place.symlink_to("/elsewhere/systemd/barehub.target")
    systemd.require_no_foreign_units(Installation(layout, ME))  # what it belonged to is gone
    place.unlink()
    place.symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="belongs to /etc/passwd"):
        systemd.require_no_foreign_units(Installation(layout, ME))
    place.unlink()
    place.write_text("[Unit]\n")
    with pytest.raises(UserError, match="belongs to another program"):
        systemd.require_no_foreign_units(Installation(layout, ME))
    place.write_text(systemd.rendered(Installation(layout, ME))["barehub.target"])
    systemd.require_no_foreign_units(Installation(layout, ME))


def test_units_of_a_newer_release_are_stopped_and_removed(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_command(tmp_path / "bin", "systemctl", "", monkeypatch)
    layout.system_units.mkdir(parents=True)
    layout.units.mkdir()
    installation = Installation(layout, ME)
    systemd.write_units(installation)
    switch(layout, layout.prefix.name)
    systemd.link_units(installation)
    newer = layout.system_units / "barehub-newer.service"
    newer.symlink_to(layout.units / newer.name)
    theirs = layout.system_units / "barehub-theirs.service"
    theirs.symlink_to("/elsewhere/barehub-theirs.service")
    assert not systemd.enable_units(installation)
    assert not newer.is_symlink()
    assert theirs.is_symlink()
    assert (layout.system_units / ME.hub_unit).read_text() == systemd.rendered(installation)[ME.hub_unit]
    # By path: before 250 systemd refuses a linked unit that only Also= names.
    enable = " ".join(["enable", *(str(layout.units / name) for name in ME.units)])
    assert calls.read_text().splitlines() == ["stop barehub-newer.service", "daemon-reload", enable]
    systemd.unlink_units(installation)
    assert [path.name for path in layout.system_units.iterdir()] == [theirs.name]


def test_the_environment_of_a_unit_is_that_of_its_settings_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("# a comment\nSECRET='a b'\nPLAIN = x=y\n\nBROKEN=\"\n")
    script = f"""case "$*" in
    *EnvironmentFiles*) echo '{tmp_path}/file (ignore_errors=no)'; echo '/nowhere (ignore_errors=yes)' ;;
    *) printf '%s\\n' 'A=1 "B=two words" C=it' ;;
    esac"""
    fake_command(tmp_path / "bin", "systemctl", script, monkeypatch)
    assert systemd.environment_of("x.service") == {
        "A": "1",
        "B": "two words",
        "C": "it",
        "SECRET": "a b",
        "PLAIN": "x=y",
        "BROKEN": '"',
    }
    fake_command(tmp_path / "bin", "systemctl", """echo "A=it's B=2" """, monkeypatch)
    assert systemd.environment_of("x.service")["B"] == "2"
