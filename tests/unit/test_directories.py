"""barehub.lifecycle.directories: owners and modes, and no link that root would follow."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from barehub import accounts
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle.directories import ensure_directories
from barehub.process import write_atomically
from barehub.settings import Installation

from tests.unit.installations import ME
from tests.unit.installers import give_by_acl


def test_directories_get_their_modes_whatever_the_umask(layout: Layout) -> None:
    old = os.umask(0o077)
    try:
        settings = replace(ME, hub_user="root", proxy_user="daemon") if os.geteuid() == 0 else ME
        ensure_directories(Installation(layout, settings))
        layout.hub_state.chmod(0o777)
        ensure_directories(Installation(layout, settings))
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in layout.state.iterdir()}
    assert modes == {"hub": 0o700, "rules": 0o2750, "proxy": 0o750, "acme": 0o700, "environments": 0o755}
    told = layout.in_use.stat()
    assert (told.st_mode & 0o777, told.st_uid, told.st_size) == (0o644, os.geteuid(), 0)


def test_root_gives_nothing_away_through_a_link(layout: Layout, tmp_path: Path) -> None:
    ensure_directories(Installation(layout, ME))
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (victim / "file").write_text("theirs")
    before = [(path.stat().st_uid, path.stat().st_gid, path.stat().st_mode) for path in (victim, victim / "file")]
    (layout.hub_state / "link").symlink_to(victim / "file")
    os.link(victim / "file", layout.hub_state / "hard")
    settings = replace(ME, hub_user="daemon")
    ensure_directories(Installation(layout, settings))
    layout.rules_staging.rmdir()
    layout.rules_staging.symlink_to(victim)
    with pytest.raises(UserError, match="leads to"):
        ensure_directories(Installation(layout, settings))
    assert [(p.stat().st_uid, p.stat().st_gid, p.stat().st_mode) for p in (victim, victim / "file")] == before


def test_a_link_of_roots_is_followed_and_one_that_leads_nowhere_loses_nothing(layout: Layout, tmp_path: Path) -> None:
    ensure_directories(Installation(layout, ME))
    elsewhere = tmp_path / "elsewhere"
    layout.state.rename(elsewhere)
    layout.state.symlink_to(elsewhere)
    elsewhere.chmod(0o700)
    ensure_directories(Installation(layout, ME))
    assert layout.state.is_symlink()
    assert elsewhere.stat().st_mode & 0o777 == 0o711  # it was 0700
    layout.state.unlink()
    layout.state.symlink_to(tmp_path / "unmounted")
    with pytest.raises(UserError, match="which is not there") as caught:
        ensure_directories(Installation(layout, ME))
    assert "mount it" in caught.value.fix
    layout.state.unlink()
    layout.state.write_text("a file")
    with pytest.raises(UserError, match="is not a directory") as caught:
        ensure_directories(Installation(layout, ME))
    assert "away" not in caught.value.fix


def test_only_the_hub_can_read_its_token_and_it_stays_the_same(layout: Layout) -> None:
    installation = Installation(layout, ME)
    ensure_directories(installation)
    token = layout.api_token.read_text()
    assert layout.api_token.stat().st_mode & 0o777 == 0o600
    ensure_directories(installation)
    assert layout.api_token.read_text() == token


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_follow_when_accounts_change(layout: Layout) -> None:
    ensure_directories(Installation(layout, ME))
    database, rules = layout.hub_state / "jupyterhub.sqlite", layout.rules_file
    for path in (database, rules, layout.acme_store):
        path.touch()
    ensure_directories(Installation(layout, replace(ME, hub_user="daemon", proxy_user="bin")))
    assert (database.owner(), layout.api_token.owner()) == ("daemon", "daemon")
    assert (rules.owner(), rules.group()) == ("daemon", "bin")
    assert layout.acme_store.owner() == "bin"
    assert layout.proxy_state.owner() == "root"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("hub_user", ["root", "daemon"])
def test_a_new_configuration_is_for_root_and_the_hub(layout: Layout, hub_user: str) -> None:
    layout.config.rmdir()
    ensure_directories(Installation(layout, replace(ME, hub_user=hub_user)))
    found = layout.config.stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o750, 0, accounts.ids(hub_user)[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("mode", [0o700, 0o750, 0o711, 0o755, 0o777])
def test_what_an_administrator_has_tightened_stays_so(layout: Layout, mode: int) -> None:
    layout.config.chmod(mode)
    os.chown(layout.config, 0, 7)
    layout.state.mkdir(mode=0o711)
    ensure_directories(Installation(layout, ME))
    found = layout.config.stat()
    assert (found.st_mode & 0o777, found.st_gid) == (mode & 0o755, 7)
    assert layout.state.stat().st_mode & 0o777 == 0o711
    ensure_directories(Installation(layout, replace(ME, hub_user="daemon")))  # which has to get in
    found = layout.config.stat()
    if mode & 0o005 == 0o005:
        assert (found.st_mode & 0o777, found.st_gid) == (0o755, 7)
    else:
        assert (found.st_mode & 0o757, found.st_gid) == (mode & 0o705 | 0o050, accounts.ids("daemon")[1])


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400])
def test_a_file_that_is_written_again_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    (tmp_path / "10-install.py").write_text("before")
    (tmp_path / "10-install.py").chmod(mode)
    write_atomically(tmp_path / "10-install.py", "after")
    assert (tmp_path / "10-install.py").stat().st_mode & 0o777 == mode
    write_atomically(tmp_path / "new", "text")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o644


def test_a_way_through_anothers_link_is_not_roots(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / "real").mkdir()
    (tmp_path / "theirs").symlink_to(tmp_path / "real")
    (tmp_path / "ours").symlink_to("theirs")
    assert accounts.is_roots(tmp_path / "ours")
    os.chown(tmp_path / "theirs", 65534, 65534, follow_symlinks=False)
    assert not accounts.is_roots(tmp_path / "ours")
    (tmp_path / "loop").symlink_to("loop")
    assert not accounts.is_roots(tmp_path / "loop")


def test_a_directory_that_an_acl_gives_to_another_account_is_not_roots(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root's directories are looked at")
    way = tmp_path / "way"
    way.mkdir()
    way.chmod(0o775)
    assert accounts.is_roots(way / "file")  # root's group is root
    give_by_acl(way, 65534)
    assert not accounts.is_roots(way / "file")
