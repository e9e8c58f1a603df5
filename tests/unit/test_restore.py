"""The installer's `--restore`: an empty BASE becomes what a backup holds, or stays as it was."""

import grp
import hashlib
import io
import json
import os
import pwd
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
from barehub.lifecycle import backup, database, restore
from barehub.lifecycle.archive import MANIFEST
from barehub.lifecycle.directories import ensure_directories
from barehub.lifecycle.install import install
from barehub.lifecycle.options import Request
from barehub.settings import Installation, Settings

from tests.unit.backups import COOKIE, hub_at_work
from tests.unit.installations import NEW, OLD, OLD_SCHEMA, belongs_to, make_release, users, worker

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other accounts")
Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machine")


@pytest.fixture(scope="module")
def made(place: Path) -> bytes:
    """A backup of a hub with JupyterHub 5's schema, whose machine is gone."""
    layout = Layout(place / "base", root=place / "root")
    with pytest.MonkeyPatch.context() as then:
        hub = hub_at_work(layout, OLD, place, then, OLD_SCHEMA)
        backup.back_up(hub, place / "made.tar", overwrite=False, say=lambda _: None)
    return (place / "made.tar").read_bytes()


@pytest.fixture
def saved(made: bytes, tmp_path: Path) -> Path:
    """The same, in a file of the test's own."""
    path = tmp_path / "hub.tar"
    path.write_bytes(made)
    path.chmod(0o600)
    return path


@pytest.fixture
def empty(place: Path, made: bytes, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """The same BASE on another machine, where an installer has filled the prefix of this release."""
    monkeypatch.setattr(sys, "executable", worker(place / "worker"))
    return another_machine(Layout(place / "base", root=place / "root"), monkeypatch)


def another_machine(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    shutil.rmtree(layout.base)
    shutil.rmtree(layout.root, ignore_errors=True)
    release = make_release(layout, NEW)
    belongs_to(release, monkeypatch)
    return release


def put_back(layout: Layout, saved: Path, **options: object) -> list[str]:
    said: list[str] = []
    request = Request(layout.prefix.name, restore=str(saved), **options)  # type: ignore[arg-type]
    install(layout, request, say=said.append)
    return said


def refused(layout: Layout, saved: Path, what: str, **options: object) -> UserError:
    """Nothing of the backup is there after the refusal."""
    before = sorted(layout.base.rglob("*"))
    with pytest.raises(UserError, match=what) as caught:
        put_back(layout, saved, **options)
    assert sorted(layout.base.rglob("*")) == before
    assert not list(layout.root.rglob("*.conf"))
    assert caught.value.fix
    return caught.value


def edited(saved: Path, change: Callable[[list[Member]], list[Member]]) -> Path:
    """The backup with other members."""
    with tarfile.open(saved) as tar:
        members = [(member, file.read() if (file := tar.extractfile(member)) else b"") for member in tar]
    with tarfile.open(saved, "w") as tar:
        for member, content in change(members):
            tar.addfile(member, io.BytesIO(content))
    return saved


def with_manifest(saved: Path, **changes: object) -> Path:
    """The backup with another manifest."""

    def change(members: list[Member]) -> list[Member]:
        member, text = members[-1]
        text = json.dumps({**json.loads(text), **changes}, indent=1).encode()
        member.size = len(text)
        return [*members[:-1], (member, text)]

    return edited(saved, change)


def test_a_hub_goes_on_with_its_users_secrets_and_settings(empty: Layout, saved: Path) -> None:
    said = put_back(empty, saved)
    assert any(line.startswith(f"restored the backup of barehub {OLD} that was made at ") for line in said)
    assert f"migrated the database to schema {database.newest_revision()}" in said
    assert not any("log in" in line for line in said)
    assert f"  to add them: {empty.prefix}/bin/python -m pip install site-spawner==1.2" in said
    assert empty.active == NEW
    place = database.own_database(empty)
    assert (database.revision(place), users(place)) == (database.newest_revision(), ["alice"])
    assert empty.cookie_secret.read_text() == COOKIE
    assert empty.cookie_secret.stat().st_mode & 0o777 == 0o600
    assert (empty.config / "secrets/ldap").stat().st_mode & 0o777 == 0o640
    assert "http://:8080" in empty.installer_config.read_text()
    assert (empty.hub_state / "site/notes").read_text() == "kept"
    assert empty.announcement.read_text() == "Hello"
    drop_in = empty.system_units / "barehub-hub.service.d/site.conf"
    assert drop_in.read_text() == "[Service]\nEnvironment=SITE=ours\n"
    assert not empty.restored.exists()
    assert not empty.restoring.exists()
    # What it came from is kept as the upgrade keeps it.
    assert database.revision(empty.backup(f"before-{NEW}")) == OLD_SCHEMA


@NEEDS_ROOT
def test_owners_are_the_accounts_of_this_machine(empty: Layout, saved: Path) -> None:
    def change(members: list[Member]) -> list[Member]:
        for member, _ in members:
            member.uid = member.gid = 4711
            if member.name.endswith("secrets/ldap"):
                member.gname = "daemon"
        return members

    request = Request(NEW, restore=str(edited(saved, change)), hub_user="daemon")
    restore.restore(empty, request, say=lambda _: None)
    ensure_directories(Installation(empty, Settings(hub_user="daemon", proxy_user="bin")))
    for path, owner in (
        (empty.config / "secrets/ldap", "root:daemon"),
        (empty.hub_state / "site/notes", "daemon:daemon"),
        (empty.cookie_secret, "daemon:daemon"),
        (empty.acme_store, "bin:bin"),
        (empty.announcement, "root:root"),
    ):
        assert f"{path.owner()}:{path.group()}" == owner, path


@NEEDS_ROOT
@pytest.mark.parametrize("what", ["uname", "gname"])
def test_an_account_that_is_missing_is_named(empty: Layout, saved: Path, what: str) -> None:
    def change(members: list[Member]) -> list[Member]:
        for member, _ in members:
            if member.name.startswith("jupyterhub_config.d/"):
                setattr(member, what, "carol")
        return members

    refused(empty, edited(saved, change), "carol.* which this machine does not know")
    refused(empty, saved, "there is no account nobody-here", hub_user="nobody-here")


def with_file(saved: Path, name: str, content: bytes) -> Path:
    """The backup with another file, or with another content of it."""

    def change(members: list[Member]) -> list[Member]:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        return [(member, content), *(one for one in members if one[0].name != name)]

    with tarfile.open(edited(saved, change)) as tar:
        files = {member.name: file.read() for member in tar if (file := tar.extractfile(member))}
    sums = {name: hashlib.sha256(text).hexdigest() for name, text in files.items() if name != MANIFEST}
    return with_manifest(saved, sha256=sums)


def test_the_account_that_another_machine_created_is_not_ours_to_remove(empty: Layout, saved: Path) -> None:
    record = {"schema": 1, "name": "barehub", "proxy_user": "daemon", "created_account": "daemon"}
    with_file(saved, "install.json", json.dumps(record).encode())
    restore.restore(empty, Request(NEW, restore=str(saved)), say=lambda _: None)
    settings = Settings.load(empty)
    assert settings
    assert (settings.proxy_user, settings.created_account) == ("daemon", "")


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"release": "2027.01.01"}, "too new: it is of 2027.01.01", "the installer of 2027.01.01, or a newer one"),
        ({"schema": "beef"}, f"has schema beef, which {NEW} does not know", f"the installer of {OLD}, or"),
        ({"format": 9, "more": 1}, "too new: it has format 9", f"the installer of {OLD}, or"),
        ({"base": "/srv/hub"}, "is of /srv/hub, not of", "give -p /srv/hub"),
        ({"distribution": "slurm"}, "is of slurm, not of barehub", "use an installer of slurm"),
        ({"name": "dev"}, "does not belong", "copy it here again"),
        ({"name": "../../x"}, "is damaged", "copy it here again"),
        ({"sha256": {}}, "its manifest is wrong about", "copy it here again"),
        ({"schema": []}, "its manifest has another form", "copy it here again"),
        ({"sha256": 3}, "its manifest cannot be read", "copy it here again"),
        ({"outside": ["/nowhere/hub.key"]}, "names /nowhere/hub.key, not in the backup", "copy that from the machine"),
    ],
)
def test_a_backup_for_somewhere_else_is_refused(
    empty: Layout, saved: Path, changes: dict[str, object], what: str, fix: str
) -> None:
    assert fix in refused(empty, with_manifest(saved, **changes), what).fix


def test_a_certificate_that_is_replaced_need_not_be_there(empty: Layout, saved: Path) -> None:
    with_manifest(saved, outside=["/nowhere/hub.key"])
    restore.restore(empty, Request(NEW, restore=str(saved), bind_url="http://:9090"), say=lambda _: None)
    assert empty.record.exists()


def hostile(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> Member:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    return member, b"x" * size


@pytest.mark.parametrize(
    "member",
    [
        hostile(""),
        hostile("../outside"),
        hostile("/etc/outside"),
        hostile("state/hub/../../../outside"),
        hostile("state/hub/./x"),
        hostile("state/rules/rules.yaml"),
        hostile("releases/2026.11.24/bin/python"),
        hostile("hub"),
        hostile("state/hubbub"),
        hostile("units/ssh.service.d/x.conf"),
        hostile("units/barehub-hub.service.d/../../x.conf"),
        hostile("units/barehub-hub.service.d/x"),
        hostile("state/hub/link", tarfile.SYMTYPE, "/etc"),
        hostile("state", tarfile.SYMTYPE, "/etc"),
        hostile("state/hub/hard", tarfile.LNKTYPE, "install.json"),
        hostile("state/hub/tty", tarfile.CHRTYPE),
        hostile("state/hub/disk", tarfile.BLKTYPE),
        hostile("state/hub/fifo", tarfile.FIFOTYPE),
        hostile("state/hub/cont", tarfile.CONTTYPE),
        hostile("install.json"),
        hostile("state/hub/more"),
        hostile(MANIFEST),
    ],
    ids=lambda member: f"{member[0].name}-{member[0].type.decode()}",
)
def test_nothing_leads_out_of_base_or_was_not_there(empty: Layout, saved: Path, member: Member) -> None:
    for place in (0, -1):
        raw = saved.read_bytes()
        edited(saved, lambda members, at=place: [*members[:at], member, *members[at:]])  # type: ignore[misc]
        assert refused(empty, saved, "the backup is damaged").code == Exit.INTEGRITY
        saved.write_bytes(raw)


@pytest.mark.parametrize("name", ["install.json", "announcement.md", "jupyterhub_config.d/10-install.py", "state/hub"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_nothing_is_of_another_kind(empty: Layout, saved: Path, name: str, kind: bytes) -> None:
    def change(members: list[Member]) -> list[Member]:
        for member, _ in members:
            if member.name == name:
                member.type, member.linkname = tarfile.REGTYPE if member.isdir() else kind, MANIFEST
        return members

    refused(empty, edited(saved, change), "the backup is damaged")


def test_a_negative_size_ends(empty: Layout, saved: Path) -> None:
    """tarfile may read the same header again and again."""
    member = tarfile.TarInfo("state/hub/again")
    member.pax_headers = {"size": "-512"}
    with tarfile.open(saved, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member)
    refused(empty, saved, "the backup is damaged")


def test_whatever_is_cut_off_or_changed_is_noticed(empty: Layout, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = saved.read_bytes()
    for size in (0, 1, 511, 512, 1000, *range(1536, len(whole) - 10240, 29 * 512)):
        saved.write_bytes(whole[:size])
        refused(empty, saved, "the backup is damaged")
    for at in range(0, whole.rindex(b"}"), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        saved.write_bytes(damaged)
        try:
            refused(empty, saved, "damaged|does not know|too new|is of|cannot be|not in the backup")
        except pytest.fail.Exception:
            # A byte that counts for nothing: the padding of a tar.
            assert whole[at] == 0, at
            another_machine(empty, monkeypatch)


@pytest.mark.parametrize("name", ["install.json", "state/hub/x", "jupyterhub_config.d/50-site.py", "announcement.md"])
def test_nothing_that_is_there_is_replaced(empty: Layout, saved: Path, name: str) -> None:
    (empty.base / name).parent.mkdir(parents=True, exist_ok=True)
    (empty.base / name).write_text("precious")
    assert refused(empty, saved, "is there already").code == Exit.BASE
    assert (empty.base / name).read_text() == "precious"


def test_a_drop_in_of_this_machine_is_not_replaced(empty: Layout, saved: Path) -> None:
    place = empty.system_units / "barehub-hub.service.d/site.conf"
    place.parent.mkdir(parents=True)
    place.write_text("[Service]\n")
    with pytest.raises(UserError, match="is there already, and differs"):
        put_back(empty, saved)
    assert place.read_text() == "[Service]\n"
    assert not empty.state.exists()


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_change_is_refused(empty: Layout, saved: Path, mode: int) -> None:
    saved.chmod(mode)
    assert refused(empty, saved, "others can change").code == Exit.USAGE


@NEEDS_ROOT
def test_a_file_of_another_account_is_refused(empty: Layout, saved: Path) -> None:
    os.chown(saved, pwd.getpwnam("daemon").pw_uid, grp.getgrnam("daemon").gr_gid)
    refused(empty, saved, "others can change")


def test_what_is_no_file_is_refused(empty: Layout, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "fifo"):
        refused(empty, path, "cannot be read|is not a file")


def test_everybody_is_warned_of(empty: Layout, saved: Path) -> None:
    saved.chmod(0o644)
    said: list[str] = []
    restore.restore(empty, Request(NEW, restore=str(saved)), say=said.append)
    assert any(f"everybody can read {saved}" in line for line in said)


def test_a_full_disk_is_said_to_be_one(empty: Layout, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore.shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    assert refused(empty, saved, "no room").code == Exit.SPACE


def test_a_restore_that_was_not_finished_goes_on_with_what_an_administrator_has_changed(
    empty: Layout, saved: Path
) -> None:
    """The configuration does not fit the new release: an administrator edits the file and runs the same again."""
    with_file(saved, "jupyterhub_config.d/50-site.py", b"raise ValueError('not for 6')\n")
    with pytest.raises(UserError, match="not for 6"):
        put_back(empty, saved)
    assert empty.active is None
    other = saved.with_name("other.tar")
    shutil.copy(saved, other)
    with_manifest(other, made="2026-01-01T00:00:00Z")
    with pytest.raises(UserError, match="holds another backup"):
        put_back(empty, other)
    (empty.config / "50-site.py").write_text("# for 6\n")
    put_back(empty, saved)
    assert empty.active == NEW
    assert (empty.config / "50-site.py").read_text() == "# for 6\n"
    assert users(database.own_database(empty)) == ["alice"]
    with pytest.raises(UserError, match="is there already"):
        put_back(empty, saved)


def test_an_older_release_does_not_go_on_with_a_restore(
    empty: Layout, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(saved) as tar:
        restore.prepare(empty, Request(NEW, restore=str(saved)), tar, saved.stat().st_size)
    older = make_release(replace(empty), "2026.01.01")
    belongs_to(older, monkeypatch)
    with pytest.raises(UserError, match="too new"):
        install(older, Request("2026.01.01"), say=lambda _: None)
    assert not empty.record.exists()


def state_of(layout: Layout) -> set[str]:
    """What is there of the backup."""
    places = (layout.record, layout.state, layout.config, layout.announcement)
    return {path.name for path in places if path.exists()} | {path.name for path in layout.root.rglob("*.conf")}


def cut_off(layout: Layout, request: Request, step: int) -> bool:
    """Restore in a child process that dies before the change of this number; False if it needed fewer."""
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
        restore.restore(layout, request, say=lambda _: None)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_whenever_the_power_goes_it_is_all_there_or_nothing_and_the_same_command_ends_it(
    empty: Layout, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, plain = Request(NEW, restore=str(saved)), Request(NEW)
    everything = {"install.json", "state", "jupyterhub_config.d", "announcement.md", "site.conf"}
    seen = []
    step = 0
    while cut_off(empty, again, step := step + 1):
        assert empty.record.exists() <= (state_of(empty) == everything)
        kept = empty.base.with_name("kept")
        shutil.copytree(empty.base, kept)
        restore.restore(empty, plain, say=lambda _: None)  # what a run without the option goes on with
        seen.append(state_of(empty))
        assert seen[-1] in (set(), everything)
        shutil.rmtree(empty.base)
        kept.rename(empty.base)
        restore.restore(empty, again, say=lambda _: None)
        assert state_of(empty) == everything
        assert empty.cookie_secret.read_text() == COOKIE
        another_machine(empty, monkeypatch)
    assert seen.count(set()) > 20
    assert seen.count(everything) > 5
