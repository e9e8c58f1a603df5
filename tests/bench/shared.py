"""What an environment for users costs on a shared file system: python -m tests.bench.shared LAB.sh [--latency 2]

    install     the installer, on this disk and on one where each operation takes LATENCY ms longer
    start       `jupyterhub-singleuser --help-all`, which imports what a server imports, from both; cold: mounted just
                before; warm: once more

The slow one is a directory behind FUSE. As NFS does, it answers each operation on a name, and each open file's first
and last, after LATENCY; it does not make a writer wait. Several operations at a time are as slow as one. Needs root and
the package fuse3.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.install import ROOT, run, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("installer", type=Path)
    parser.add_argument("--latency", type=float, default=2, metavar="MS", help="of each operation; default: 2 ms")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache", prefix="bench-") as directory:
        compare(arguments.installer, arguments.latency / 1000, Path(directory))
    return 0


def compare(installer: Path, latency: float, work: Path) -> None:
    local, remote, mounted = work / "local", work / "remote", work / "mounted"
    for directory in (local, remote, mounted):
        directory.mkdir()
    here = seconds(lambda: install(installer, local))
    with shared(remote, mounted, latency):
        there = seconds(lambda: install(installer, mounted))
    files = sum(1 for _ in local.rglob("*"))
    show("install", here, there, f"{files} files and directories: {there / files * 1000:.1f} ms each")
    drop_caches()
    here_twice = [seconds(lambda: start(local)) for _ in range(2)]
    with shared(remote, mounted, latency):
        there_twice = [seconds(lambda: start(mounted)) for _ in range(2)]
    for name, here, there in zip(("cold", "warm"), here_twice, there_twice, strict=True):
        show(f"start, {name}", here, there)


def install(installer: Path, base: Path) -> None:
    run("sh", installer, "-b", "-p", base)


def start(base: Path) -> None:
    run(base / "current/bin/jupyterhub-singleuser", "--help-all")


def show(what: str, here: float, there: float, more: str = "") -> None:
    print(f"{what:12} {here:6.1f} s     shared  {there:6.1f} s     ratio {there / here:.2f}     {more}".rstrip())


def drop_caches() -> None:
    run("sync")
    Path("/proc/sys/vm/drop_caches").write_text("3")


@contextlib.contextmanager
def shared(directory: Path, mountpoint: Path, latency: float) -> Iterator[None]:
    """Within it, `mountpoint` shows `directory` as another machine's."""
    words = [sys.executable, "-m", "tests.bench.slow_disk", directory, mountpoint, str(latency)]
    with subprocess.Popen(words) as server:
        while not mountpoint.is_mount():
            if server.poll() is not None:
                sys.exit("error: nothing was mounted")
            time.sleep(0.1)
        try:
            yield
        finally:
            run("umount", mountpoint)


if __name__ == "__main__":
    sys.exit(main())
