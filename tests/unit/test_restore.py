"""The installer's `--restore`: an empty BASE becomes what a backup holds, or stays as it was."""

import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.lifecycle import database, restore
from barehub.lifecycle.archive import FILES
from barehub.lifecycle.directories import ensure_directories
from barehub.lifecycle.install import install
from barehub.lifecycle.options import Request
from barehub.settings import Installation, Settings
from barehub.signature import require_safe

from tests.unit.backups import COOKIE, Member, another_machine, edited, put_back, refused, with_file, with_manifest
from tests.unit.installations import NEW, OLD, OLD_SCHEMA, belongs_to, make_release, users

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other accounts")


def test_a_hub_goes_on_with_its_users_secrets_and_settings(bare: Layout, saved: Path) -> None:
    said = put_back(bare, saved)
    assert any(line.startswith(f"restored the backup of barehub {OLD} that was made at ") for line in said)
    assert f"migrated the database to schema {database.newest_revision()}" in said
    assert not any("log in" in line for line in said)
    assert f"  to add them: {bare.prefix}/bin/python -m pip install site-spawner==1.2" in said
    assert bare.active == NEW
    place = database.own_database(bare)
    assert (database.revision(place), users(place)) == (database.newest_revision(), ["alice"])
    assert bare.cookie_secret.read_text() == COOKIE
    assert bare.cookie_secret.stat().st_mode & 0o777 == 0o600
    assert (bare.config / "secrets/ldap").stat().st_mode & 0o777 == 0o640
    assert "http://:8080" in bare.installer_config.read_text()
    assert (bare.hub_state / "site/notes").read_text() == "kept"
    assert bare.announcement.read_text() == "Hello"
    require_safe(bare.allowed_signers, bare.base)  # as `verify` requires
    assert bare.allowed_signers.read_text() == "barehub ssh-ed25519 AAAA\n"
    drop_in = bare.system_units / "barehub-hub.service.d/site.conf"
    assert drop_in.read_text() == "[Service]\nEnvironment=SITE=ours\n"
    assert not bare.restored.exists()
    assert not bare.restoring.exists()
    # What it came from is kept as the upgrade keeps it.
    assert database.revision(bare.backup(f"before-{NEW}")) == OLD_SCHEMA


@NEEDS_ROOT
def test_owners_are_the_accounts_of_this_machine(bare: Layout, saved: Path) -> None:
    def change(members: list[Member]) -> list[Member]:
        for member, _ in members:
            member.uid = member.gid = 4711
            if member.name.endswith("secrets/ldap"):
                member.gname = "daemon"
        return members

    request = Request(NEW, restore=str(edited(saved, change)), hub_user="daemon")
    restore.restore(bare, request, say=lambda _: None)
    ensure_directories(Installation(bare, Settings(hub_user="daemon", proxy_user="bin")))
    for path, owner in (
        (bare.config / "secrets/ldap", "root:daemon"),
        (bare.hub_state / "site/notes", "daemon:daemon"),
        (bare.cookie_secret, "daemon:daemon"),
        (bare.acme_store, "bin:bin"),
        (bare.announcement, "root:root"),
        (bare.allowed_signers, "root:root"),
    ):
        assert f"{path.owner()}:{path.group()}" == owner, path


@NEEDS_ROOT
@pytest.mark.parametrize("what", ["uname", "gname"])
def test_an_account_that_is_missing_is_named(bare: Layout, saved: Path, what: str) -> None:
    def change(members: list[Member]) -> list[Member]:
        for member, _ in members:
            if member.name.startswith("jupyterhub_config.d/"):
                setattr(member, what, "carol")
        return members

    refused(bare, edited(saved, change), "carol.* which this machine does not know")
    refused(bare, saved, "there is no account nobody-here", hub_user="nobody-here")


def test_the_account_that_another_machine_created_is_not_ours_to_remove(bare: Layout, saved: Path) -> None:
    record = {"schema": 1, "name": "barehub", "proxy_user": "daemon", "created_account": "daemon"}
    with_file(saved, "install.json", json.dumps(record).encode())
    restore.restore(bare, Request(NEW, restore=str(saved)), say=lambda _: None)
    settings = Settings.load(bare)
    assert settings
    assert (settings.proxy_user, settings.created_account) == ("daemon", "")


def test_a_certificate_that_is_replaced_need_not_be_there(bare: Layout, saved: Path) -> None:
    with_manifest(saved, outside=["/nowhere/hub.key"])
    restore.restore(bare, Request(NEW, restore=str(saved), bind_url="http://:9090"), say=lambda _: None)
    assert bare.record.exists()


@pytest.mark.parametrize("name", [*FILES, "state/hub/x", "jupyterhub_config.d/50-site.py"])
def test_nothing_that_is_there_is_replaced(bare: Layout, saved: Path, name: str) -> None:
    (bare.base / name).parent.mkdir(parents=True, exist_ok=True)
    (bare.base / name).write_text("precious")
    assert refused(bare, saved, "is there already").code == Exit.BASE
    assert (bare.base / name).read_text() == "precious"


def test_a_drop_in_of_this_machine_is_not_replaced(bare: Layout, saved: Path) -> None:
    place = bare.system_units / "barehub-hub.service.d/site.conf"
    place.parent.mkdir(parents=True)
    place.write_text("[Service]\n")
    with pytest.raises(UserError, match="is there already, and differs"):
        put_back(bare, saved)
    assert place.read_text() == "[Service]\n"
    assert not bare.state.exists()


def test_everybody_is_warned_of(bare: Layout, saved: Path) -> None:
    saved.chmod(0o644)
    said: list[str] = []
    restore.restore(bare, Request(NEW, restore=str(saved)), say=said.append)
    assert any(f"everybody can read {saved}" in line for line in said)


def test_a_full_disk_is_said_to_be_one(bare: Layout, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore.shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    assert refused(bare, saved, "no room").code == Exit.SPACE


def test_a_restore_that_was_not_finished_goes_on_with_what_an_administrator_has_changed(
    bare: Layout, saved: Path
) -> None:
    """The configuration does not fit the new release: an administrator edits the file and runs the same again."""
    with_file(saved, "jupyterhub_config.d/50-site.py", b"raise ValueError('not for 6')\n")
    with pytest.raises(UserError, match="not for 6"):
        put_back(bare, saved)
    assert bare.active is None
    other = saved.with_name("other.tar")
    shutil.copy(saved, other)
    with_manifest(other, made="2026-01-01T00:00:00Z")
    with pytest.raises(UserError, match="holds another backup"):
        put_back(bare, other)
    (bare.config / "50-site.py").write_text("# for 6\n")
    put_back(bare, saved)
    assert bare.active == NEW
    assert (bare.config / "50-site.py").read_text() == "# for 6\n"
    assert users(database.own_database(bare)) == ["alice"]
    with pytest.raises(UserError, match="is there already"):
        put_back(bare, saved)


def test_an_older_release_does_not_go_on_with_a_restore(
    bare: Layout, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(saved) as tar:
        restore.prepare(bare, Request(NEW, restore=str(saved)), tar, saved.stat().st_size)
    older = make_release(replace(bare), "2026.01.01")
    belongs_to(older, monkeypatch)
    with pytest.raises(UserError, match="too new"):
        install(older, Request("2026.01.01"), say=lambda _: None)
    assert not bare.record.exists()


def state_of(layout: Layout) -> set[str]:
    """What is there of the backup."""
    places = (layout.record, layout.state, layout.config, layout.announcement, layout.allowed_signers)
    return {path.name for path in places if path.exists()} | {path.name for path in layout.root.rglob("*.conf")}


def cut_off(work: Callable[[], None], step: int) -> bool:
    """Do something in a child process that dies before the change of this number; False if it needed fewer."""
    if (child := os.fork()) == 0:
        count = 0

        def die(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if written or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree"):
                count += 1
                if count == step:
                    os._exit(9)

        sys.addaudithook(die)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_whenever_the_power_goes_it_is_all_there_or_nothing_and_the_same_command_ends_it(
    bare: Layout, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, plain = Request(NEW, restore=str(saved)), Request(NEW)
    everything = {"install.json", "state", "jupyterhub_config.d", "announcement.md", "allowed_signers", "site.conf"}
    seen = []
    step = 0
    while cut_off(lambda: restore.restore(bare, again, say=lambda _: None), step := step + 1):
        assert bare.record.exists() <= (state_of(bare) == everything)
        kept = bare.base.with_name("kept")
        shutil.copytree(bare.base, kept)
        restore.restore(bare, plain, say=lambda _: None)  # what a run without the option goes on with
        seen.append(state_of(bare))
        assert seen[-1] in (set(), everything)
        shutil.rmtree(bare.base)
        kept.rename(bare.base)
        restore.restore(bare, again, say=lambda _: None)
        assert state_of(bare) == everything
        assert bare.cookie_secret.read_text() == COOKIE
        another_machine(bare, monkeypatch)
    assert seen.count(set()) > 20
    assert seen.count(everything) > 5


def test_whenever_the_power_goes_at_the_end_the_next_run_goes_on(bare: Layout, saved: Path) -> None:
    with tarfile.open(saved) as tar:
        restore.prepare(bare, Request(NEW, restore=str(saved)), tar, saved.stat().st_size)
    kept = bare.base.with_name("kept")
    shutil.copytree(bare.restored, kept)
    step = 0
    while cut_off(lambda: restore.finish(bare), step := step + 1):
        restore.restore(bare, Request(NEW), say=lambda _: None)
        assert not bare.restoring.exists()
        shutil.rmtree(bare.state, ignore_errors=True)
        shutil.rmtree(bare.config, ignore_errors=True)
        shutil.rmtree(bare.restored, ignore_errors=True)
        shutil.copytree(kept, bare.restored)
    assert step > 3
    assert not bare.restored.exists()
    assert not bare.restoring.exists()
