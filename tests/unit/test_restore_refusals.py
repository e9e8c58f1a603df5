"""Backups that are damaged, of another kind, or made to do harm: nothing of them gets into BASE."""

import grp
import os
import pwd
import tarfile
from pathlib import Path

import pytest
from barehub.errors import Exit
from barehub.layout import Layout
from barehub.lifecycle.archive import MANIFEST

from tests.unit.backups import Member, another_machine, edited, refused, with_manifest
from tests.unit.installations import NEW, OLD

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other accounts")


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
        ({"release": "2026.1.\u00b2"}, "its manifest cannot be read", "copy it here again"),
        ({"schema": []}, "its manifest has another form", "copy it here again"),
        ({"sha256": 3}, "its manifest cannot be read", "copy it here again"),
        ({"outside": ["/nowhere/hub.key"]}, "names /nowhere/hub.key, not in the backup", "copy that from the machine"),
    ],
)
def test_a_backup_for_somewhere_else_is_refused(
    bare: Layout, saved: Path, changes: dict[str, object], what: str, fix: str
) -> None:
    assert fix in refused(bare, with_manifest(saved, **changes), what).fix


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
def test_nothing_leads_out_of_base_or_was_not_there(bare: Layout, saved: Path, member: Member) -> None:
    for place in (0, -1):
        raw = saved.read_bytes()
        edited(saved, lambda members, at=place: [*members[:at], member, *members[at:]])  # type: ignore[misc]
        assert refused(bare, saved, "the backup is damaged").code == Exit.INTEGRITY
        saved.write_bytes(raw)


@pytest.mark.parametrize("name", ["install.json", "announcement.md", "jupyterhub_config.d/10-install.py", "state/hub"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_nothing_is_of_another_kind(bare: Layout, saved: Path, name: str, kind: bytes) -> None:
    def change(members: list[Member]) -> list[Member]:
        for member, _ in members:
            if member.name == name:
                member.type, member.linkname = tarfile.REGTYPE if member.isdir() else kind, MANIFEST
        return members

    refused(bare, edited(saved, change), "the backup is damaged")


def test_a_negative_size_ends(bare: Layout, saved: Path) -> None:
    """tarfile may read the same header again and again."""
    member = tarfile.TarInfo("state/hub/again")
    member.pax_headers = {"size": "-512"}
    with tarfile.open(saved, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member)
    refused(bare, saved, "the backup is damaged")


def test_names_of_names_end(bare: Layout, saved: Path) -> None:
    """tarfile reads a header for a long name with what follows it, one within the other."""
    name = tarfile.TarInfo("././@LongLink")
    name.type = tarfile.GNUTYPE_LONGNAME
    saved.write_bytes(name.tobuf(tarfile.GNU_FORMAT) * 3000)
    refused(bare, saved, "the backup is damaged")


def test_whatever_is_cut_off_or_changed_is_noticed(bare: Layout, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = saved.read_bytes()
    for size in (0, 1, 511, 512, 1000, *range(1536, len(whole) - 10240, 29 * 512)):
        saved.write_bytes(whole[:size])
        refused(bare, saved, "the backup is damaged")
    for at in range(0, whole.rindex(b"}"), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        saved.write_bytes(damaged)
        try:
            refused(bare, saved, "damaged|does not know|too new|is of|cannot be|not in the backup")
        except pytest.fail.Exception:
            # A byte that counts for nothing: the padding of a tar.
            assert whole[at] == 0, at
            another_machine(bare, monkeypatch)


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_change_is_refused(bare: Layout, saved: Path, mode: int) -> None:
    saved.chmod(mode)
    assert refused(bare, saved, "others can change").code == Exit.USAGE


@NEEDS_ROOT
def test_a_file_of_another_account_is_refused(bare: Layout, saved: Path) -> None:
    os.chown(saved, pwd.getpwnam("daemon").pw_uid, grp.getgrnam("daemon").gr_gid)
    refused(bare, saved, "others can change")


def test_what_is_no_file_is_refused(bare: Layout, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "fifo"):
        refused(bare, path, "cannot be read|is not a file")
