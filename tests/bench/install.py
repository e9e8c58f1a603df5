"""What an installer costs, on this machine: python -m tests.bench.install [INSTALLER], of a hub or of an environment

    install     from `bash X.sh -b -s` to a complete release, against `zstd -dc | tar x` of the same tree; both end with
                the data on disk, as an installer must (a receipt without its files is worse than none)
    verify      `barehub verify` of that release
    size        the installer against a solid `zstd -19` tar of the tree, or of another --level
    build       with an empty package cache, and again (--build; takes some minutes)
    login page  from `bash X.sh -b` on a systemd machine to the page that answers, and the hub's part (--machine)

Times are medians of three rounds that take turns. Needs zstd. On a machine that has other work: chrt -r 1 python ...
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROUNDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("installer", nargs="?", type=Path, help="default: the newest in dist/")
    parser.add_argument(
        "--level", type=int, default=19, help="of zstd; 19, the default, takes minutes for a large tree"
    )
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--machine", action="store_true")
    arguments = parser.parse_args()
    installer = arguments.installer or max(ROOT.glob("dist/*.sh"), key=lambda path: path.stat().st_mtime)
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache", prefix="bench-") as directory:
        install_and_size(installer, Path(directory), arguments.level)
    if arguments.machine:
        login_page(installer)
    if arguments.build:
        build()
    return 0


def install_and_size(installer: Path, work: Path, level: int) -> None:
    solid, base, tree = work / "solid.tar.zst", work / "base", work / "tree"
    install = ["bash", installer, "-b", "-s", "-p", base]
    unpack = ["sh", "-euc", 'mkdir "$2"; zstd -dc "$1" | tar -xC "$2"; sync -f "$2"', "unpack", solid, tree]

    run(*install)
    release = next((base / "releases").iterdir())
    run("sh", "-euc", 'tar -C "$1" -c . | zstd -q "-$3" -T0 -o "$2"', "pack", release, solid, str(level))
    taken: dict[str, list[float]] = {"install": [], "unpack": []}
    for _ in range(ROUNDS):
        for name, command, leaves in (("unpack", unpack, tree), ("install", install, base)):
            shutil.rmtree(leaves, ignore_errors=True)
            os.sync()
            taken[name].append(seconds(lambda command=command: run(*command)))
    ours, theirs = (statistics.median(taken[name]) for name in ("install", "unpack"))
    print(f"install     {ours:6.1f} s     zstd -dc | tar x  {theirs:6.1f} s     ratio {ours / theirs:.2f}")
    if (release / "bin/barehub").exists():  # not in an environment for users
        verify = statistics.median(seconds(lambda: run(release / "bin/barehub", "verify")) for _ in range(ROUNDS))
        print(f"verify      {verify:6.1f} s")
    ours, theirs = (path.stat().st_size / 1e6 for path in (installer, solid))
    print(f"size        {ours:6.1f} MB    solid zstd {-level:<9} {theirs:6.1f} MB    ratio {ours / theirs:.2f}")


def build() -> None:
    """A cold build, with an empty package cache, against a warm one. Wheels are downloaded before."""
    command = (sys.executable, ROOT / "release.py", "build")
    packages = ROOT / ".cache/packages"
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache", prefix="bench-") as directory:
        output = f"--output={directory}"
        run(*command, output)
        packages.rename(Path(directory, "packages"))
        cold = seconds(lambda: run(*command, output))
        warm = seconds(lambda: run(*command, output))
    print(f"build       {cold:6.1f} s     again             {warm:6.1f} s     ratio {warm / cold:.2f}")


def login_page(installer: Path) -> None:
    """On a machine with no network: the whole, and from the hub unit's start."""
    from tests.machines.machine import booted
    from tests.machines.rootfs import cached_root

    with booted("bench", cached_root()) as machine:
        machine.copy_in(installer, "/mnt/barehub.sh")
        whole = seconds(lambda: machine.succeed("bash", "/mnt/barehub.sh", "-b"))
        script = (
            "systemctl stop barehub-hub; start=$(date +%s.%N); systemctl start barehub-hub; "
            "until python3 -c 'import urllib.request as r; r.urlopen(\"http://127.0.0.1:8000/hub/login\")'; do :; done "
            "2>/dev/null; echo $start $(date +%s.%N)"
        )
        begin, end = map(float, machine.shell(script).split())
    print(f"login page  {whole:6.1f} s     the hub's part    {end - begin:6.1f} s")


def seconds(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def run(*command: str | Path) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"error: {command[0]} exited with {done.returncode}: {done.stdout}")


if __name__ == "__main__":
    sys.exit(main())
