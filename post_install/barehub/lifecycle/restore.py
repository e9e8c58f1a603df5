"""The installer's `--restore FILE`: state and configuration of a backup become those of a BASE that has none.

    .restoring/     the backup is unpacked here and checked; an interrupted run leaves it, and the next one removes it
    .restored/      the same, whole and on disk: each run of the installer puts in place what is still in it
    install.json    comes last, so that nothing takes BASE for an installation before
    .restored/      is removed, with the manifest in it, when the release is active

A dump of PostgreSQL goes into the database that the configuration names, once that is in place.

Root reads the backup as if somebody else had made it: names that lead elsewhere, links, and devices are refused.
"""

import contextlib
import grp
import hashlib
import os
import pwd
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from barehub import accounts
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.lifecycle.archive import DUMP, FILES, MANIFEST, TREES, UNITS, DamagedError, Manifest, belongs
from barehub.lifecycle.database import run_as_hub_user
from barehub.lifecycle.database_urls import why_no_restore, without_password
from barehub.lifecycle.options import Request
from barehub.process import sync_directory, write_atomically
from barehub.settings import Installation, Settings

BLOCK = 1 << 20
UNREADABLE = (ValueError, OverflowError, RecursionError, EOFError)  # what tarfile raises besides its own errors
Say = Callable[[str], None]


def restore(layout: Layout, request: Request, say: Say) -> None:
    """Put the backup that `request` names in place, or what an interrupted run has left of one.

    Raises UserError if this release cannot go on with it, if it is not whole, if BASE has state already, or if the
    machine lacks accounts or files that it needs; then nothing of it is in place.
    """
    shutil.rmtree(layout.restoring, ignore_errors=True)
    if request.restore:
        with opened_backup(Path(request.restore), say) as file, opened_tar(file) as tar:
            prepare(layout, request, tar, os.fstat(file.fileno()).st_size)
    if layout.restored.is_dir():
        manifest = Manifest.from_json((layout.restored / MANIFEST).read_bytes())
        manifest.require_fit(layout, request.release)
        put_in_place(layout)
        say(f"restored the backup of {manifest.distribution} {manifest.release} that was made at {manifest.made}")
        if manifest.added:
            say(f"  packages had been added there by hand, which this release may lack: {' '.join(manifest.added)}")
            say(f"  to add them: {layout.prefix}/bin/python -m pip install {' '.join(manifest.added)}")


def restore_dump(installation: Installation, url: str, say: Say) -> None:
    """Restore the dump of a backup that is being restored into the empty database at `url`, and remove the dump.

    Raises UserError if that cannot be done, or if the hub's role has tables there; then nothing has changed.
    """
    layout = installation.layout
    dump = layout.base / DUMP
    if not (layout.restored.is_dir() and os.path.lexists(dump)):
        return
    if why := why_no_restore(url):
        what = f"the dump in the backup cannot be restored to {without_password(url)}: {why[0]}"
        raise UserError(what, f"{why[1]}, then run this again; or begin without the data: rm {dump}", Exit.HOOK)
    run_as_hub_user(installation.settings, "fill", url=url, source=str(dump))
    dump.unlink()
    say(f"restored the database at {without_password(url)}")


def finish(layout: Layout) -> None:
    """End a restore, if there is one: the release is active. If this fails, the next run finds nothing left to move."""
    if layout.restored.is_dir():
        with contextlib.suppress(OSError):
            layout.restored.rename(layout.restoring)
        shutil.rmtree(layout.restoring, ignore_errors=True)


@contextlib.contextmanager
def opened_backup(path: Path, say: Say) -> Iterator[BinaryIO]:
    """Open a backup. Raises UserError if it is not there, or if another account than root, or ours, can change it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", "name a backup", Exit.USAGE) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is not a file", "name a backup", Exit.USAGE)
    with open(descriptor, "rb") as file:
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022 or accounts.has_acl(path):
            fix = f"chown root {path}; chmod 600 {path}, if you know where it comes from"
            raise UserError(f"others can change {path}", fix, Exit.USAGE)
        if found.st_mode & 0o004:
            say(f"warning: everybody can read {path}, which holds secrets: chmod 600 {path}")
        yield file


@contextlib.contextmanager
def opened_tar(file: BinaryIO) -> Iterator[tarfile.TarFile]:
    """Read a file as a tar. Raises DamagedError if it is none, or ends early."""
    try:
        tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - not compressed, so no larger than it is
    except (tarfile.TarError, *UNREADABLE) as error:  # it reads the first header
        raise DamagedError(str(error)) from None
    with tar:
        try:
            yield tar
        except tarfile.TarError as error:
            raise DamagedError(str(error)) from None


def prepare(layout: Layout, request: Request, tar: tarfile.TarFile, size: int) -> None:
    """Unpack a backup of `size` bytes to layout.restored, unless it is there; raises as `restore`."""
    members = members_of(tar, size)
    text = content_of(tar, members, MANIFEST)
    if layout.restored.is_dir():
        if (layout.restored / MANIFEST).read_bytes() != text:
            fix = f"leave out --restore to go on with that one, or begin again: rm -r {layout.base}"
            raise UserError(f"{layout.base} holds another backup, whose restore was interrupted", fix, Exit.BASE)
        return
    manifest = Manifest.from_json(text)
    manifest.require_fit(layout, request.release)
    require_names(members, manifest)
    require_empty(layout)
    if not request.bind_url:  # which replaces the certificate
        require_there(manifest)
    if shutil.disk_usage(layout.base).free < 2 * size:
        raise UserError(f"no room in {layout.base} for the backup", "make room", Exit.SPACE)
    try:
        layout.restoring.mkdir(mode=0o700)
        unpack(layout, tar, members, manifest)
        keep_record(layout, manifest)
        require_no_other_drop_ins(layout)
        give_away(layout, members, request)
        layout.restoring.rename(layout.restored)
    finally:
        shutil.rmtree(layout.restoring, ignore_errors=True)
    sync_directory(layout.base)


def members_of(tar: tarfile.TarFile, size: int) -> dict[str, tarfile.TarInfo]:
    """Return what is in a tar of `size` bytes, by name. Raises DamagedError for what no program has written."""
    found: dict[str, tarfile.TarInfo] = {}
    try:
        for member in tar:
            # With a negative size, tarfile would read the same member for ever.
            if member.name in found or not 0 <= member.size <= size:
                raise DamagedError(f"{member.name} is in it twice, or has a wrong size")
            found[member.name] = member
    except UNREADABLE as error:
        raise DamagedError(str(error)) from None
    return found


def content_of(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str) -> bytes:
    """Return a file of the backup. Raises DamagedError if it is not there."""
    file = tar.extractfile(members[name]) if name in members and is_plain(members[name]) else None
    if file is None:
        raise DamagedError(f"it has no {name}: it is no backup, or was cut off")
    return file.read()


def is_plain(member: tarfile.TarInfo) -> bool:
    """Return True for a file, not for a link, a device, or a file with holes."""
    return member.type == tarfile.REGTYPE and member.sparse is None


def require_names(members: dict[str, tarfile.TarInfo], manifest: Manifest) -> None:
    """Check that a backup has files and directories alone, where they may be, and those of its manifest."""
    units = Settings(name=manifest.name).units
    for name, member in members.items():
        fits = (is_plain(member) and name not in TREES) or (member.isdir() and name not in FILES)
        if not fits or not belongs(name, units):
            raise DamagedError(f"{name} does not belong into one")
    if differing := {name for name in members if not members[name].isdir()} ^ {*manifest.sha256, MANIFEST}:
        raise DamagedError(f"its manifest is wrong about {min(differing)}")


def require_empty(layout: Layout) -> None:
    """Check that nothing would be replaced. Raises UserError if BASE has what a backup could have."""
    for path in (layout.state, layout.config, *(layout.base / name for name in FILES)):
        empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
        if os.path.lexists(path) and not empty:
            fix = "leave out --restore to go on with it; or uninstall it, or move it away, first"
            raise UserError(f"{path} is there already, and a restore replaces nothing", fix, Exit.BASE)


def require_there(manifest: Manifest) -> None:
    """Check that files outside of BASE are there. Raises UserError if the configuration would miss one."""
    if missing := [path for path in manifest.outside if not Path(path).exists()]:
        what = f"the configuration names {' and '.join(missing)}, not in the backup and not on this machine"
        raise UserError(what, "copy that from the machine that the backup is of", Exit.USAGE)


def unpack(layout: Layout, tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], manifest: Manifest) -> None:
    """Write all files to layout.restoring, which is private. Raises DamagedError for a wrong sum."""
    for name, member in members.items():
        place = layout.restoring / name
        if member.isdir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        source, sha256 = tar.extractfile(member), hashlib.sha256()
        with place.open("xb") as file:
            while source and (block := source.read(BLOCK)):
                sha256.update(block)
                file.write(block)
        if name != MANIFEST and sha256.hexdigest() != manifest.sha256[name]:
            raise DamagedError(f"{name} has another checksum than its manifest says")
    for directory in (layout.restoring, *(path for path in layout.restoring.rglob("*") if path.is_dir())):
        sync_directory(directory)


def keep_record(layout: Layout, manifest: Manifest) -> None:
    """Check the record of the backup. The proxy's account was not created on this machine, so far."""
    unpacked = Layout(layout.restoring)
    settings = Settings.load(unpacked)
    if settings is None or settings.name != manifest.name:
        raise DamagedError(f"its {layout.record.name} does not belong to its manifest")
    replace(settings, created_account="").save(unpacked)


def drop_ins(layout: Layout, directory: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the drop-ins of units in an unpacked backup, each with its place in systemd's directory."""
    for path in sorted((directory / UNITS).glob("*/*.conf")):
        yield path, layout.system_units / path.parent.name / path.name


def require_no_other_drop_ins(layout: Layout) -> None:
    """Check that no drop-in of this machine would be replaced. Raises UserError if one would."""
    for path, place in drop_ins(layout, layout.restoring):
        try:
            text = path.read_text()
        except ValueError:
            raise DamagedError(f"{path.name} is no text") from None
        if os.path.lexists(place) and place.read_bytes() != text.encode():
            raise UserError(f"{place} is there already, and differs from the backup's", "move it away", Exit.BASE)


def give_away(layout: Layout, members: dict[str, tarfile.TarInfo], request: Request) -> None:
    """Give each file its owner and mode, and bring it to the disk. Raises UserError if there is no such account."""
    settings = Settings.load(Layout(layout.restoring)) or Settings()
    hub = accounts.ids(request.hub_user or settings.hub_user) if os.geteuid() == 0 else (-1, -1)
    for name, member in reversed(members.items()):
        descriptor = os.open(layout.restoring / name, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if os.geteuid() == 0:
                os.fchown(descriptor, *owner_of(member, hub))
            os.fchmod(descriptor, member.mode & (0o2777 if member.isdir() else 0o777))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def owner_of(member: tarfile.TarInfo, hub: tuple[int, int]) -> tuple[int, int]:
    """Return the ids that this machine has for an owner. Raises UserError if it does not know the account or group.

    State is its account's, whoever that is here: the hub's, or the proxy's, which is created later
    (directories.ensure_directories).
    """
    if member.name.startswith("state/"):
        return hub if member.name.startswith("state/hub") else (0, 0)
    try:
        return pwd.getpwnam(member.uname or "root").pw_uid, grp.getgrnam(member.gname or "root").gr_gid
    except (KeyError, ValueError):
        what = f"{member.name} in the backup is {member.uname}:{member.gname}'s, which this machine does not know"
        raise UserError(what, "create the account and the group (useradd, groupadd)", Exit.USAGE) from None


def put_in_place(layout: Layout) -> None:
    """Move what is in layout.restored to its place, the record last. An interrupted run is continued by the next."""
    for path, place in drop_ins(layout, layout.restored):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, path.read_text(), path.stat().st_mode & 0o777)
    shutil.rmtree(layout.restored / UNITS, ignore_errors=True)
    for name in (layout.state.name, layout.config.name, *reversed(FILES)):
        if (layout.restored / name).exists():
            (layout.restored / name).rename(layout.base / name)
            sync_directory(layout.base)
