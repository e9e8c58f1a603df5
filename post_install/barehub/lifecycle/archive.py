"""The file that `barehub backup` writes and the installer's `--restore` reads: a plain tar, its manifest at the end.

    install.json announcement.md allowed_signers ... files of BASE
    state/hub/ state/acme/ jupyterhub_config.d/      directories of BASE
    units/barehub-hub.service.d/site.conf            from /etc/systemd/system
    state/hub/backups/barehub-backup.dump            of PostgreSQL, where that is the hub's database and can be dumped
    barehub-backup.json                              the manifest

The manifest comes last, since the sums are known then. So a file that was cut off has none.
"""

import contextlib
import errno
import grp
import hashlib
import json
import os
import pwd
import re
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from barehub.errors import Exit, UserError
from barehub.layout import Layout, release_key
from barehub.lifecycle.database import known_revisions

FORMAT = 1
MANIFEST = "barehub-backup.json"
NOTICES = ("announcement.md", "maintenance.md", "maintenance.html")
FILES = ("install.json", *NOTICES, "allowed_signers", "allowed_signers.gpg")
DUMP = "state/hub/backups/barehub-backup.dump"
TREES = ("state/hub", "state/acme", "jupyterhub_config.d")
UNITS = "units"
NAME = re.compile("[a-z][a-z0-9-]*")  # check_options in preflight.sh


class DamagedError(UserError):
    """A backup that is not what `barehub backup` has written."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the backup is damaged: {why}", "copy it here again, or use another one", Exit.INTEGRITY)


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself. The installer's preflight.sh reads some of it, too.

    `made` is a time in UTC; `schema` is that of the database, None if it is not in it; `outside` are files that the
    configuration names elsewhere on the machine; `added` are packages that were added by hand, as pip names them;
    `sha256` has the sum of each file, by its name in the tar.
    """

    distribution: str
    release: str
    made: str
    name: str
    base: str
    schema: str | None
    outside: tuple[str, ...]
    added: tuple[str, ...]
    sha256: dict[str, str]
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Return the manifest, with a line for each value."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Manifest":
        """Return the manifest that `to_json` wrote. Raises UserError for one that is damaged, or of a later format."""
        try:
            told: dict[str, Any] = json.loads(text)
            release_key(str(told["release"]))  # ValueError for a number that is none
            if told["format"] > FORMAT:
                raise newer(f"it has format {told['format']}", str(told["release"]))
            told["sha256"] = {str(name): str(sha256) for name, sha256 in told["sha256"].items()}
            told |= {name: tuple(str(one) for one in told[name]) for name in ("outside", "added")}
            texts = [told[key] for key in ("distribution", "release", "made", "base", "name")]
            texts[:0] = [told["schema"]] if told["schema"] is not None else []
            if not all(isinstance(text, str) for text in texts) or not NAME.fullmatch(texts[-1]):
                raise DamagedError("its manifest has another form")
            return cls(**told)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedError(f"its manifest cannot be read: {error}") from None

    def require_fit(self, layout: Layout, release: str) -> None:
        """Check that this release, in this BASE, can go on with the backup. Raises UserError if not."""
        ours = layout.distribution(release)
        if self.distribution != ours:
            fix = f"use an installer of {self.distribution}"
            raise UserError(f"the backup is of {self.distribution}, not of {ours}", fix, Exit.BASE)
        if self.base != str(layout.base):
            raise UserError(f"the backup is of {self.base}, not of {layout.base}", f"give -p {self.base}", Exit.BASE)
        if release_key(self.release) > release_key(release):
            raise newer(f"it is of {self.release}", self.release)
        if self.schema is not None and self.schema not in known_revisions():
            raise newer(f"its database has schema {self.schema}, which {release} does not know", self.release)


def newer(why: str, release: str) -> UserError:
    """Return the error for a backup of a newer release."""
    return UserError(f"the backup is too new: {why}", f"use the installer of {release}, or a newer one", Exit.BASE)


def belongs(name: str, units: Iterable[str]) -> bool:
    """Return True if a backup may hold a file or directory of this name; `units` are those that may have drop-ins.

    No such name leads out of the directory that the backup is unpacked to.
    """
    parts = PurePosixPath(name).parts
    if "\0" in name or ".." in parts or name != "/".join(parts):  # an absolute one has a slash for its first part
        return False
    if parts[:1] == (UNITS,):
        return len(parts) == 3 and parts[1] in {f"{unit}.d" for unit in units} and name.endswith(".conf")
    return name in (*FILES, MANIFEST) or any(f"{name}/".startswith(f"{tree}/") for tree in TREES)


def member_of(name: str, descriptor: int) -> tarfile.TarInfo:
    """Return what a tar says of an open file or directory."""
    found = os.fstat(descriptor)
    member = tarfile.TarInfo(name)
    member.mode, member.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
    member.uid, member.gid = found.st_uid, found.st_gid
    with contextlib.suppress(KeyError):
        member.uname = pwd.getpwuid(found.st_uid).pw_name
    with contextlib.suppress(KeyError):
        member.gname = grp.getgrgid(found.st_gid).gr_name
    if stat.S_ISDIR(found.st_mode):
        member.type = tarfile.DIRTYPE
    else:
        member.size = found.st_size
    return member


class Output:
    """An open file, or a pipe, as tarfile writes to it; `tell` says how many bytes it has got."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.size = descriptor, 0

    def write(self, content: bytes) -> int:
        """Write all of it. Raises UserError if that fails."""
        done = 0
        try:
            while done < len(content):
                done += os.write(self.descriptor, content[done:])
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = f"the backup cannot be written: {error.strerror}"
            raise UserError(what, "make room, or choose another place", Exit.SPACE if full else Exit.ERROR) from None
        self.size += done
        return done

    def tell(self) -> int:
        return self.size


class Summed:
    """A file that is read once; `sha256` is the sum of what was read."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path, self.sha256 = file, path, hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Read as a file does. Raises UserError at its end, which tarfile does not expect to meet."""
        content = self.file.read(size)
        if len(content) < size:
            raise UserError(f"{self.path} was cut off while it was read", "run this again")
        self.sha256.update(content)
        return content
