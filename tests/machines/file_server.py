"""A directory as a file server shows it: python -m tests.machines.file_server DIRECTORY MOUNTPOINT

    locks            there are none: flock(2) and fcntl(2) fail with ENOLCK
    root             is nobody, and nobody gives files away (root_squash)
    hard links       are refused; there is no O_TMPFILE and there are no attributes
    open files       that are removed stay, and so do their directories: as NFS's .nfs..., here .fuse_hidden...
    another machine  sees a name as it was for up to a second

Each mount is one machine's. Needs root, libfuse 3, and mfusepy. It ends when it is unmounted.
"""

import errno
import os
import sys
from typing import Any

from mfusepy import FUSE, fuse_get_context

from tests.bench.slow_disk import Slow

NOBODY = 65534


class FileServer(Slow):
    """FUSE's operations, on the files of `root` as a server has them."""

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return self.give(path, super().create(path, mode, fi))

    def mkdir(self, path: str, mode: int) -> None:
        self.give(path, os.mkdir(path, mode))  # noqa: PTH102

    def symlink(self, target: str, source: str) -> None:
        self.give(target, os.symlink(source, target))  # noqa: PTH211

    def give(self, path: str, made: Any) -> Any:
        """Make a new file that of who has asked for it."""
        owner, group, _ = fuse_get_context()
        os.chown(path, *((owner, group) if owner else (NOBODY, NOBODY)), follow_symlinks=False)
        return made

    def chown(self, path: str, uid: int, gid: int) -> None:
        raise OSError(errno.EPERM, "root is nobody here")

    def link(self, target: str, source: str) -> None:
        raise OSError(errno.EPERM, "no hard links")

    def flock(self, path: str, fh: int, op: int) -> int:
        raise OSError(errno.ENOLCK, "no locks")

    def lock(self, path: str, fh: int, cmd: int, lock: Any) -> int:
        raise OSError(errno.ENOLCK, "no locks")


if __name__ == "__main__":
    os.umask(0)  # the kernel has applied that of who asks
    directory, mountpoint = sys.argv[1:]
    FUSE(FileServer(directory, 0), mountpoint, foreground=True, allow_other=True, default_permissions=True)
