"""barehub.lifecycle.directories: owners and modes, and no link that root would follow."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle.directories import ensure_directories
from barehub.settings import Installation

from tests.unit.installations import ME


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
    assert modes == {"hub": 0o700, "rules": 0o2750, "proxy": 0o750, "acme": 0o700}


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
    assert elsewhere.stat().st_mode & 0o777 == 0o755
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
