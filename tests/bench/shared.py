"""What an environment for users costs on a shared file system: python -m tests.bench.shared LAB.sh [--latency 2]

    install     the installer, on this disk and on one where each operation takes LATENCY ms longer
    start       `jupyterhub-singleuser --help-all`, which imports what a server imports, from both; cold: mounted just
                before; warm: once more

The slow one is sshfs to this machine's own sftp-server, over a relay that holds what it gets for half of LATENCY in
each direction. As NFS does, it waits for an answer to each open, mkdir, rename and stat, and not to each write. Needs
root and the packages sshfs and openssh-sftp-server.
"""

import argparse
import contextlib
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.install import ROOT, run, seconds

SFTP_SERVER = "/usr/lib/openssh/sftp-server"


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
    started = {"cold": (lambda: drop_caches(local), shared), "warm": (lambda: start(local), warmed)}
    for name, (before, mount) in started.items():
        before()
        here = seconds(lambda: start(local))
        with mount(remote, mounted, latency):
            there = seconds(lambda: start(mounted))
        show(f"start, {name}", here, there)


def install(installer: Path, base: Path) -> None:
    run("sh", installer, "-b", "-p", base)


def start(base: Path) -> None:
    run(base / "current/bin/jupyterhub-singleuser", "--help-all")


def show(what: str, here: float, there: float, more: str = "") -> None:
    print(f"{what:12} {here:6.1f} s     shared  {there:6.1f} s     ratio {there / here:.2f}     {more}".rstrip())


def drop_caches(_: Path) -> None:
    run("sync")
    Path("/proc/sys/vm/drop_caches").write_text("3")


@contextlib.contextmanager
def warmed(directory: Path, mountpoint: Path, latency: float) -> Iterator[None]:
    with shared(directory, mountpoint, latency):
        start(mountpoint)
        yield


@contextlib.contextmanager
def shared(directory: Path, mountpoint: Path, latency: float) -> Iterator[None]:
    """Within it, `mountpoint` shows `directory` as another machine's."""
    with relay(latency) as port:
        run("sshfs", "-o", f"directport={port},allow_other", f"127.0.0.1:{directory}", mountpoint)
        try:
            yield
        finally:
            run("umount", mountpoint)


@contextlib.contextmanager
def relay(latency: float) -> Iterator[int]:
    """The port of an sftp-server for one client, which gets and gives each byte half of `latency` seconds later."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server, latency / 2), daemon=True).start()
        yield server.getsockname()[1]


def serve(server: socket.socket, delay: float) -> None:
    client, _ = server.accept()
    with client, subprocess.Popen(SFTP_SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as sftp:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert sftp.stdin
        assert sftp.stdout
        answers = sftp.stdout
        threads = [
            threading.Thread(target=forward, args=(lambda: client.recv(1 << 16), sftp.stdin.write, delay)),
            threading.Thread(target=forward, args=(lambda: answers.read(1 << 16), client.sendall, delay)),
        ]
        for thread in threads:
            thread.start()
        threads[0].join()
        sftp.stdin.close()
        threads[1].join()


def forward(receive: Callable[[], bytes], send: Callable[[bytes], object], delay: float) -> None:
    """Send what `receive` returns `delay` seconds after it came, until it returns nothing."""
    waiting: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def deliver() -> None:
        while (entry := waiting.get())[1]:
            time.sleep(max(0.0, entry[0] - time.monotonic()))
            send(entry[1])

    sender = threading.Thread(target=deliver)
    sender.start()
    while data := receive():
        waiting.put((time.monotonic() + delay, data))
    waiting.put((0, b""))
    sender.join()


if __name__ == "__main__":
    sys.exit(main())
