"""The unprivileged account of the proxy, and who owns what."""

import contextlib
import os
import pwd
import shutil
import stat
from collections.abc import Collection
from pathlib import Path

from barehub.errors import Exit, UserError
from barehub.process import attempt, output
from barehub.untrusted import UntrustedError, opened

# Debian's and its relatives' account for web servers. Each of them could read the proxy's TLS key.
SHARED_ACCOUNT = "www-data"

MOST_LINKS = 40  # as the kernel has it: path_resolution(7)


def exists(user: str) -> bool:
    """Return True if there is an account of this name."""
    try:
        pwd.getpwnam(user)
    except (KeyError, ValueError):  # ValueError: a NUL, or what is no text
        return False
    return True


def own_account(name: str) -> str:
    """Return the account that the installer creates for the proxy."""
    return f"{name}-proxy"


def current_user() -> str:
    """Return the account this process runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container with an arbitrary user id
        return str(os.geteuid())


def owner(path: Path) -> str:
    """Return the account that a file belongs to."""
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def create_account(user: str) -> bool:
    """Create the system account `user`. Return False if it exists already. Raises UserError if that fails."""
    if exists(user):
        return False
    if not shutil.which("useradd"):
        raise UserError(
            f"there is no account {user} and no useradd to create it",
            "name an existing account with --proxy-user",
            Exit.USAGE,
        )
    output(
        "useradd",
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir=/nonexistent",
        "--shell=/usr/sbin/nologin",
        "--comment=barehub proxy",
        user,
    )
    return True


def remove_account(user: str) -> None:
    """Remove an account that `create_account` made; do nothing if it is gone."""
    if exists(user):
        attempt("userdel", user)


def ids(user: str) -> tuple[int, int]:
    """Return the user id and the primary group id of an account. Raises UserError if it does not exist."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise UserError(
            f"there is no account {user}", f"useradd --system {user}, or name another account with --*-user", Exit.USAGE
        ) from None
    return entry.pw_uid, entry.pw_gid


def ensure_directory(path: Path, mode: int, uid: int, gid: int, least: int | None = None) -> None:
    """Make a directory with this owner and mode, whatever the umask; fix one that exists.

    With `least`, what an administrator has tightened stays so: of the bits in `mode`, a directory that exists keeps
    those that it has, and gets those in `least`. Only root can change owners; any other account keeps what it creates.
    A link is followed if only root can change where it leads. Raises UserError for another one: its owner could make
    root give away what it leads to.
    """
    real = path
    if path.is_symlink():
        real = Path(os.path.realpath(path))  # for a loop of links, pathlib raises RuntimeError before 3.13
        if not is_roots(path):
            what = f"{path} leads to {real}, by a way that not only root can change"
            raise UserError(what, "make root the owner of the link and of the directories on the way (namei -l)")
        if not real.exists():
            raise UserError(f"{path} leads to {real}, which is not there", "mount it, or put it there again")
    try:
        made = not path.exists()
        if made:
            path.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise UserError(f"{path} is not a directory: {error.strerror}", "put the directory there again") from error
    try:
        if os.geteuid() == 0:
            os.fchown(descriptor, uid, gid)
        if least is not None and not made:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode) & mode | least
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def is_roots(path: Path) -> bool:
    """Return True if no other account than root, or ours, can make a path lead elsewhere."""
    return unsafe_hop(path, (0, os.geteuid())) is None


def unsafe_hop(path: Path, owners: Collection[int]) -> Path | None:
    """Return a directory or link on the way of a path that others than `owners` can change; None without one."""
    here, links = Path("/"), 0
    todo = list(path.absolute().parts[1:])
    while todo:
        try:
            found = here.stat()
        except OSError:
            return None  # it leads nowhere
        if found.st_uid not in owners or (others_can_write(here, found) and not found.st_mode & stat.S_ISVTX):
            return here
        there = here.parent if todo[0] == ".." else here / todo[0]
        todo.pop(0)
        if there.is_symlink():
            links += 1
            if links > MOST_LINKS or there.lstat().st_uid not in owners:
                return there
            target = there.readlink()
            todo = [*target.parts[target.is_absolute() :], *todo]
            there = Path("/") if target.is_absolute() else here
        here = there
    return None


def others_can_write(path: Path, found: os.stat_result) -> bool:
    """Return True if a file or directory of this status can be changed by everybody, by a group, or through an ACL.

    Root's group does not count.
    """
    return bool(found.st_mode & 0o002 or (found.st_mode & 0o020 and (found.st_gid != 0 or has_acl(path))))


def has_acl(path: Path) -> bool:
    """Return True if an ACL names accounts: what they may do at most are then the group's bits of the mode (acl(5))."""
    return has_attribute(path, "system.posix_acl_access")


def has_capabilities(path: Path) -> bool:
    """Return True if whoever runs a file gets some of root's rights by it: capabilities(7), "File capabilities"."""
    return has_attribute(path, "security.capability")


def has_attribute(path: Path, name: str) -> bool:
    """Return True if a file has an extended attribute, xattr(7)."""
    try:
        return bool(os.getxattr(path, name))
    except OSError:
        return False


def chown_file(path: Path, uid: int, gid: int) -> None:
    """Change the owner of a file, if run as root; never the target of a link, nor a file that has other names."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(FileNotFoundError, UntrustedError), opened(path) as descriptor:
        os.fchown(descriptor, uid, gid)
