"""barehub.lifecycle.rollback: the older release's own hooks, in a process of their own, switch back to it."""

import re
from pathlib import Path

import pytest
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.lifecycle import database, safe_ports
from barehub.lifecycle.migration import Migration
from barehub.lifecycle.rollback import choose, losses, plan_data, rollback
from barehub.settings import Installation

from tests.unit.installations import (
    ME,
    NEW,
    OLD,
    OLD_SCHEMA,
    add_user,
    fake_command,
    make_database,
    make_release,
    make_upgraded,
    users,
)


@pytest.fixture
def upgraded(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An installation after an upgrade to another schema: alice was there before it, bob came after it."""
    new = make_upgraded(layout, tmp_path, monkeypatch)
    layout.backups.mkdir()
    make_database(layout.backup(OLD))
    add_user(make_database(database.own_database(new), None), 2, "bob")
    return new


def test_the_older_release_gets_the_data_it_had(upgraded: Layout) -> None:
    said: list[str] = []
    rollback(upgraded, None, sure=True, wait=60, ask=pytest.fail, say=said.append)
    assert upgraded.active == OLD
    assert users(database.own_database(upgraded, OLD_SCHEMA)) == ["alice"]
    assert not database.own_database(upgraded).exists()
    assert users(upgraded.backup(NEW)) == ["alice", "bob"]
    assert "  lost: users: bob" in said


def test_a_release_that_does_not_come_up_changes_nothing(upgraded: Layout) -> None:
    (upgraded.release(OLD) / "bin/python").write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(UserError, match=f"{OLD} did not come up") as caught:
        rollback(upgraded, OLD, sure=False, wait=60, ask=lambda _: "yes", say=lambda _: None)
    assert caught.value.code == 7
    assert upgraded.active == NEW
    assert users(database.own_database(upgraded)) == ["alice", "bob"]
    assert not database.own_database(upgraded, OLD_SCHEMA).exists()


def test_a_port_that_the_older_release_cannot_have_is_given_up_with_it(
    upgraded: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_ports, "must_go_back", lambda *_: True)
    with upgraded.installer_config.open("a") as file:
        file.write("c.JupyterHub.hub_port = 334\n")
    before, python = upgraded.installer_config.read_text(), upgraded.release(OLD) / "bin/python"
    works = python.read_text()
    python.write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(UserError, match="did not come up"):
        rollback(upgraded, OLD, sure=True, wait=60, ask=pytest.fail, say=lambda _: None)
    assert upgraded.installer_config.read_text() == before
    python.write_text(works)
    said: list[str] = []
    rollback(upgraded, OLD, sure=True, wait=60, ask=pytest.fail, say=said.append)
    assert "hub_port" not in upgraded.installer_config.read_text()
    assert "  lost: the hub's port, and with it the servers that run now; stop them first" in said


def test_without_a_yes_nothing_changes(upgraded: Layout) -> None:
    with pytest.raises(UserError, match="nothing was changed") as caught:
        rollback(upgraded, OLD, sure=False, wait=60, ask=lambda _: "", say=lambda _: None)
    assert caught.value.code == Exit.USAGE
    assert not database.own_database(upgraded, OLD_SCHEMA).exists()


def test_without_its_backup_a_release_is_not_gone_back_to(upgraded: Layout) -> None:
    upgraded.backup(OLD).unlink()
    with pytest.raises(UserError, match="there is no backup of the database") as caught:
        rollback(upgraded, OLD, sure=True, wait=60, ask=pytest.fail, say=lambda _: None)
    assert str(upgraded.backup(OLD)) in caught.value.fix


@pytest.mark.parametrize("written", ["sqlite:///site.sqlite", "site.sqlite"])
def test_a_file_of_the_administrators_choice_becomes_its_own_backup(upgraded: Layout, written: str) -> None:
    site = upgraded.hub_state / "site.sqlite"
    add_user(make_database(site, None), 2, "bob")
    (upgraded.config / "50-site.py").write_text(f"c.JupyterHub.db_url = {written!r}\n")
    works = (upgraded.release(OLD) / "bin/python").read_text()
    (upgraded.release(OLD) / "bin/python").write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(UserError, match=f"{OLD} did not come up"):
        rollback(upgraded, OLD, sure=True, wait=60, ask=pytest.fail, say=lambda _: None)
    assert (users(site), database.revision(site)) == (["alice", "bob"], database.newest_revision())
    (upgraded.release(OLD) / "bin/python").write_text(works)
    rollback(upgraded, OLD, sure=True, wait=60, ask=pytest.fail, say=lambda _: None)
    assert (upgraded.active, users(site), database.revision(site)) == (OLD, ["alice"], OLD_SCHEMA)
    assert users(upgraded.backups / f"jupyterhub-{NEW}-rolled-back.sqlite") == ["alice", "bob"]


def test_the_hub_starts_again_if_its_data_cannot_be_kept(
    upgraded: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_database(upgraded.hub_state / "site.sqlite", None)
    (upgraded.config / "50-site.py").write_text("c.JupyterHub.db_url = 'sqlite:///site.sqlite'\n")
    (upgraded.backups / f"jupyterhub-{NEW}-rolled-back.sqlite").mkdir()  # in the way
    (upgraded.root / "run/systemd/system").mkdir(parents=True)
    calls = fake_command(tmp_path / "bin", "systemctl", "", monkeypatch)
    before = site.read_bytes()
    with pytest.raises(UserError, match="the database cannot be copied"):
        rollback(upgraded, OLD, sure=True, wait=60, ask=pytest.fail, say=lambda _: None)
    done = [line for line in calls.read_text().splitlines() if not line.startswith("show ")]
    assert done[-1] == "start barehub-hub.service"
    assert "stop barehub-hub.service" in done
    assert site.read_bytes() == before


def test_a_database_that_is_no_file_is_the_administrators_to_restore(layout: Layout) -> None:
    make_release(layout, OLD, OLD_SCHEMA)
    newest = database.newest_revision()
    url = "postgresql://hub:secret@db.example.org/hub"
    migration = Migration(Installation(layout, ME), url, url, newest, needed=False)
    with pytest.raises(UserError, match=f"db.example.org/hub has schema {newest}, {OLD} needs") as caught:
        plan_data(Installation(layout, ME), migration, OLD)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("label", "complaint"),
    [
        (NEW, f"{NEW} is the active release"),
        ("2026.12.01", "2026.12.01 is newer than"),
        ("2026.01.01", "there is no release 2026.01.01"),
    ],
)
def test_only_an_older_release_can_be_chosen(layout: Layout, label: str, complaint: str) -> None:
    for one in ("2026.09.24", OLD, NEW, "2026.12.01"):
        make_release(layout, one)
    layout.hub.symlink_to(f"releases/{NEW}")
    with pytest.raises(UserError, match=re.escape(complaint)) as caught:
        choose(layout, label)
    assert caught.value.code == Exit.USAGE
    assert choose(layout, None) == OLD
    assert choose(layout, "2026.09.24") == "2026.09.24"


def test_there_must_be_an_older_release(layout: Layout) -> None:
    make_release(layout, NEW)
    layout.hub.symlink_to(f"releases/{NEW}")
    with pytest.raises(UserError, match=f"there is no release before {NEW}"):
        choose(layout, None)


def test_equal_databases_lose_nothing(tmp_path: Path) -> None:
    now, then = make_database(tmp_path / "now", None), make_database(tmp_path / "then")
    assert losses(now, then) == []
    add_user(now, 2, "bob")
    assert losses(now, then) == ["users: bob"]
