"""A directory that answers as slowly as another machine's: python -m tests.bench.slow_disk DIRECTORY MOUNTPOINT SECONDS

It ends when it is unmounted.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from mfusepy import FUSE, Operations  # type: ignore[import-not-found]  # only who runs this benchmark has it

AT_ONCE = {"read", "write", "statfs"}  # a client reads ahead, and writes later


class Slow(Operations):  # type: ignore[misc]  # as above
    """FUSE's operations, as libfuse names them, on the files below `root`."""

    use_ns = True
    open, readlink, chmod, mkdir, rmdir, unlink = os.open, os.readlink, os.chmod, os.mkdir, os.rmdir, os.unlink

    def __init__(self, root: str, latency: float) -> None:
        self.root, self.latency = root, latency
        for name in vars(Slow):
            if not name.startswith("_") and callable(operation := getattr(self, name)):
                setattr(self, name, partial(self._later, operation))

    def _later(self, operation: Callable[..., Any], path: str | None, *arguments: Any) -> Any:
        """Do what is asked after the time that another machine would take."""
        if operation.__name__ not in AT_ONCE:
            time.sleep(self.latency)
        return operation(self.root + (path or ""), *arguments)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.lstat(path)
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")
        times = {f"st_{one}time": getattr(found, f"st_{one}time_ns") for one in "amc"}
        return {name: getattr(found, name) for name in names} | times

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(path)]

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(path)
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(path, length)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(path, ns=times, follow_symlinks=False)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(path, uid, gid, follow_symlinks=False)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, self.root + new)

    def link(self, target: str, source: str) -> None:
        os.link(self.root + source, target)

    def symlink(self, target: str, source: str) -> None:
        os.symlink(source, target)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)


if __name__ == "__main__":
    directory, mountpoint, seconds = sys.argv[1:]
    FUSE(Slow(directory, float(seconds)), mountpoint, foreground=True, allow_other=True, default_permissions=True)
