"""`barehub backup`: one private file, whole or not there, that holds what an installer does not bring."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from barehub import cli, process
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.lifecycle import backup, database
from barehub.lifecycle.archive import MANIFEST

from tests.unit.backups import hub_at_work, in_the_backup
from tests.unit.installations import NEW, add_user, belongs_to, users

PYTHON = sys.executable


@pytest.fixture
def hub(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    return hub_at_work(layout, NEW, tmp_path, monkeypatch)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "safe").mkdir()
    return tmp_path / "safe/hub.tar"


def back_up(hub: Layout, target: Path, *, overwrite: bool = False) -> list[str]:
    said: list[str] = []
    backup.back_up(hub, target, overwrite=overwrite, say=said.append)
    return said


def test_everything_that_an_installer_does_not_bring_is_in_it(hub: Layout, target: Path) -> None:
    said = back_up(hub, target)
    name = database.own_database(hub).name
    files = in_the_backup(target)
    assert set(files) == {
        *("install.json", "announcement.md", "allowed_signers"),
        *("jupyterhub_config.d/10-install.py", "jupyterhub_config.d/secrets/ldap"),
        *(f"state/hub/{one}" for one in (name, "jupyterhub_cookie_secret", "barehub-api-token", "site/notes")),
        *("state/acme/acme.json", "units/barehub-hub.service.d/site.conf", MANIFEST),
    }
    manifest = json.loads(files.pop(MANIFEST))
    assert manifest["sha256"] == {one: hashlib.sha256(content).hexdigest() for one, content in files.items()}
    assert (manifest["release"], manifest["distribution"], manifest["name"]) == (NEW, "barehub", "barehub")
    assert (manifest["base"], manifest["schema"]) == (str(hub.base), database.newest_revision())
    with tarfile.open(target) as tar:
        assert tar.getnames()[-1] == MANIFEST
        secret = tar.getmember("jupyterhub_config.d/secrets/ldap")
        assert (secret.mode, secret.uname) == (0o640, hub.base.owner())
    assert said == [
        f"backed up barehub {NEW} to {target}: 11 files, {target.stat().st_size / 1e6:.1f} MB",
        "  not in it: packages that were added by hand: site-spawner==1.2",
    ]
    assert os.listdir(hub.backups) == []  # noqa: PTH208
    assert time.time() - hub.last_backup.stat().st_mtime < 600


def test_nobody_else_can_read_it_at_any_moment(hub: Layout, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    add = backup.Backup.add

    def looking(self: backup.Backup, *words: object) -> None:
        modes.extend(stat.S_IMODE(one.stat().st_mode) for one in target.parent.iterdir())
        add(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(backup.Backup, "add", looking)
    old = os.umask(0)
    try:
        back_up(hub, target)
    finally:
        os.umask(old)
    assert set(modes) == {0o600}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_the_hub_may_write_meanwhile(hub: Layout, target: Path, tmp_path: Path) -> None:
    place = database.own_database(hub)
    with contextlib.closing(sqlite3.connect(place)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("insert into users (id, name, admin, cookie_id) values (2, 'bob', 0, 'y')")
        connection.commit()
        connection.execute("insert into users (id, name, admin, cookie_id) values (3, 'carol', 0, 'z')")
        assert Path(f"{place}-wal").stat().st_size > 0
        back_up(hub, target)
    files = in_the_backup(target)
    assert not [name for name in files if "-wal" in name or "-shm" in name]
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(files[f"state/hub/{place.name}"])
    assert users(copy) == ["alice", "bob"]


def test_what_is_there_is_replaced_only_if_told(hub: Layout, target: Path) -> None:
    target.write_text("precious")
    with pytest.raises(UserError, match="exists") as caught:
        back_up(hub, target)
    assert (caught.value.code, target.read_text()) == (Exit.USAGE, "precious")
    (target.parent / f".{target.name}.new").write_text("what an interrupted run has left")
    back_up(hub, target, overwrite=True)
    assert MANIFEST in in_the_backup(target)
    assert [one.name for one in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("why", ["inside", "nowhere", "directory", "device"])
def test_a_place_that_would_not_do_is_refused(hub: Layout, target: Path, why: str) -> None:
    places = {"inside": hub.hub_state / "hub.tar", "nowhere": target / "x/hub.tar", "directory": target.parent}
    wrong = places.get(why, Path("/dev/null"))
    (hub.base / ".lock").touch()
    before = sorted(hub.base.rglob("*"))
    with pytest.raises(UserError):
        back_up(hub, wrong, overwrite=True)
    assert sorted(hub.base.rglob("*")) == before


def test_a_file_system_without_modes_is_no_place_for_secrets(
    hub: Layout, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on FAT, where fchmod does nothing."""
    fchmod = os.fchmod
    monkeypatch.setattr(backup.os, "fchmod", lambda descriptor, _: fchmod(descriptor, 0o755))
    with pytest.raises(UserError, match="others could read a file in") as caught:
        back_up(hub, target)
    assert "gpg" in caught.value.fix
    assert list(target.parent.iterdir()) == []


def test_a_failure_leaves_what_was_there(hub: Layout, target: Path) -> None:
    """A database that is damaged, while an earlier backup is to be replaced."""
    back_up(hub, target)
    os.utime(hub.last_backup, (7, 7))
    before = target.read_bytes()
    with database.own_database(hub).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    with pytest.raises(UserError, match=r"cannot be (copied|read)"):
        back_up(hub, target, overwrite=True)
    assert target.read_bytes() == before
    assert [one.name for one in target.parent.iterdir()] == [target.name]
    assert hub.last_backup.stat().st_mtime == 7


def test_a_database_of_the_sites_that_is_damaged_is_named(hub: Layout, target: Path) -> None:
    damaged = hub.hub_state / "site/courses.sqlite"
    damaged.write_bytes(backup.MAGIC + b"x" * 5000)
    with pytest.raises(UserError, match=rf"{damaged}: the database cannot be copied"):
        back_up(hub, target)


def test_what_another_account_has_put_there_is_named_and_not_read(hub: Layout, target: Path, tmp_path: Path) -> None:
    (tmp_path / "shadow").write_text("root's secret")
    (hub.hub_state / "link").symlink_to(tmp_path / "shadow")
    os.link(tmp_path / "shadow", hub.hub_state / "name")
    os.mkfifo(hub.hub_state / "fifo")
    (hub.hub_state / "directory").symlink_to(tmp_path)
    hub.maintenance.mkdir()
    said = back_up(hub, target)
    assert f"  not in it: {hub.maintenance} is not a plain file" in said
    for name in ("link", "name", "fifo", "directory"):
        assert any(line.startswith(f"  not in it: {hub.hub_state}/{name} ") for line in said), name
    assert b"root's secret" not in target.read_bytes()


def test_a_link_of_the_administrators_becomes_a_file(hub: Layout, target: Path, tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text("# the site's\n")
    (hub.config / "50-site.py").symlink_to(tmp_path / "site.py")
    (hub.config / "60-gone.py.off").symlink_to("/nowhere")
    back_up(hub, target)
    assert in_the_backup(target)["jupyterhub_config.d/50-site.py"] == b"# the site's\n"


def test_what_is_elsewhere_is_named_with_what_to_do(
    hub: Layout, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "defpath", "")  # where PostgreSQL's programs are looked for
    (tmp_path / "secret").write_text("s\n")
    (hub.config / "50-site.py").write_text(
        "from barehub.secret import read_secret\n"
        f"c.JupyterHub.db_url = 'postgresql://hub:' + read_secret({str(tmp_path / 'secret')!r}) + '@db/hub'\n"
    )
    said = "\n".join(back_up(hub, target))
    assert f"not in it: {tmp_path}/secret, which the configuration names" in said
    assert "not in it: the database at postgresql://db/hub: pg_dump --format=custom" in said
    assert "hub; or install PostgreSQL's client programs, and run this again" in said
    manifest = json.loads(in_the_backup(target)[MANIFEST])
    assert (manifest["schema"], manifest["outside"]) == (None, [str(tmp_path / "secret")])
    (hub.config / "50-site.py").write_text(f"c.JupyterHub.db_url = 'sqlite:///{tmp_path}/hub.sqlite'\n")
    assert f'not in it: the database {tmp_path}/hub.sqlite: sqlite3 {tmp_path}/hub.sqlite ".backup COPY"' in "\n".join(
        back_up(hub, target, overwrite=True)
    )
    assert json.loads(in_the_backup(target)[MANIFEST])["outside"] == [f"{tmp_path}/hub.sqlite"]  # or it begins empty


def test_a_configuration_that_does_not_load_is_backed_up_all_the_more(hub: Layout, target: Path) -> None:
    """Nothing tells which database the hub uses, so each one counts."""
    (hub.hub_state / "jupyterhub-unused.sqlite").unlink()  # which is none
    shutil.copy(database.own_database(hub), hub.hub_state / "jupyterhub-site.sqlite")
    (hub.config / "90-new.py").write_text("raise ValueError('oops')\n")
    assert any(line.startswith("warning: ") and "oops" in line for line in back_up(hub, target))
    names = {f"state/hub/{one}" for one in (database.own_database(hub).name, "jupyterhub-site.sqlite")}
    assert names | {"jupyterhub_config.d/90-new.py"} <= {*in_the_backup(target)}


def test_a_directory_that_cannot_be_listed_is_named(hub: Layout, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a share that keeps root out."""
    real = os.open

    def refusing(path: str | Path, *words: int, **options: int) -> int:
        if path == "site":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, *words, **options)

    monkeypatch.setattr(os, "open", refusing)
    said = back_up(hub, target)
    assert f"  not in it: a directory site in {hub.hub_state} cannot be read: Permission denied" in said


def test_an_installer_at_work_and_a_release_that_is_not_active_are_refused(
    hub: Layout, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with process.locked(hub.base), pytest.raises(UserError, match="is at work"):
        back_up(hub, target)
    other = Layout(hub.base, root=hub.root, prefix=hub.release("2026.12.24"))
    belongs_to(other, monkeypatch)
    with pytest.raises(UserError, match="is not the active release"):
        back_up(other, target)
    assert not target.exists()


@pytest.mark.parametrize("receipt", ["", "[]"])
def test_a_release_whose_receipt_is_damaged_is_to_be_repaired_first(hub: Layout, target: Path, receipt: str) -> None:
    hub.receipt(NEW).write_text(receipt)
    with pytest.raises(UserError, match="is damaged") as caught:
        back_up(hub, target)
    assert (caught.value.code, list(target.parent.iterdir())) == (Exit.INTEGRITY, [])


@pytest.fixture
def command(hub: Layout, tmp_path: Path) -> list[str]:
    """The command in a process of its own, as the release's."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom functools import partial\nfrom pathlib import Path\nfrom barehub import cli\n"
        f"sys.prefix, sys.executable = {str(hub.prefix)!r}, {sys.executable!r}\n"
        f"cli.Layout.from_environment = partial(cli.Layout, Path({str(hub.base)!r}), root=Path({str(hub.root)!r}))\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    return [PYTHON, str(program), "backup", "-"]


def test_it_goes_through_a_pipe(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(command, capture_output=True, check=True)
    (tmp_path / "piped.tar").write_bytes(done.stdout)
    assert MANIFEST in in_the_backup(tmp_path / "piped.tar")
    assert done.stderr.startswith(f"backed up barehub {NEW} to standard output".encode())


def test_a_full_disk_is_said_to_be_one(command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == Exit.SPACE
    assert done.stderr.startswith("error: the backup cannot be written: No space left on device\n  fix: ")


def test_a_pipe_that_nobody_reads_is_an_error_for_people(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == Exit.ERROR
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_terminal_is_refused(
    hub: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = os.openpty()
    with open(ours, "rb"), open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert cli.main(["backup", "-"]) == Exit.USAGE
    add_user(database.own_database(hub), 2, "bob")  # nothing holds the database
