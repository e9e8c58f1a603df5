"""A fresh Debian as containers have it: no more than what is essential, and apt.

It boots nothing. Commands run in it as root, with processes of their own and the host's network, to which packages of
Debian and of Python come in the way that the host's apt and pip are set up for.
"""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.machines.other_rootfs import cached_tree
from tests.machines.rootfs import SUITE, debian_mirror, run
from tests.machines.vendor_python import offer_vendor_python

ROOT = Path(__file__).parents[2]
# As in the official image: https://github.com/debuerreotype/debuerreotype, scripts/debuerreotype-minimizing-config.
AS_IN_CONTAINERS = {
    "etc/dpkg/dpkg.cfg.d/docker-apt-speedup": "force-unsafe-io\n",
    "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST = "/host"  # where the system has what it needs of the host's files
# $1 the root, then directories to show below HOST until --; a command.
ENTER = """
root=$1; shift
mount -t proc proc "$root/proc"
while [ "$1" != -- ]; do mount --bind "$1" "$root/host$1"; shift; done; shift
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class FreshDebian:
    """One such system."""

    root: Path
    shown: tuple[str, ...]  # the host's directories that are in it, below HOST
    settings: Mapping[str, str]  # the environment that leads to packages

    @classmethod
    def unpack(cls, root: Path) -> "FreshDebian":
        """Make one in a directory that is not there yet."""
        run("cp", "--archive", cached_fresh_root(), root)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        shown: list[str] = []
        settings: dict[str, str] = {}
        for name, value in settings_of_host().items():
            settings[name] = " ".join(show(word, root, shown) for word in value.split())
        return cls(root, tuple(dict.fromkeys(shown)), settings)

    def run(self, *words: str, at: str, environment: Mapping[str, str]) -> None:
        """Run a command in a directory of the system. It has to succeed."""
        enter = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", ENTER, "enter", self.root)
        subprocess.run(
            [*enter, *self.shown, "--", "env", f"--chdir={at}", *words],
            env={"HOME": "/root", "PATH": PATH, **self.settings, **environment},
            stdin=subprocess.DEVNULL, check=True,
        )  # fmt: skip


def cached_fresh_root() -> Path:
    """The root, built first if this recipe's is not there. Do not write to it."""
    return cached_tree(b"fresh", build)


def build(root: Path) -> None:
    run("unshare", "--mount", "debootstrap", "--variant=minbase", SUITE, root, debian_mirror())
    for name, text in AS_IN_CONTAINERS.items():
        (root / name).write_text(text)
        (root / name).chmod(0o755)


def settings_of_host() -> dict[str, str]:
    """The environment in which pip and release.py find on another system what they find on this one."""
    lines = sorted(pip("config", "list").splitlines(), key=lambda line: line.startswith(":env:"))  # counts for more
    found = {key.partition(".")[2]: ast.literal_eval(value) for key, _, value in (one.partition("=") for one in lines)}
    settings = {f"PIP_{name.upper().replace('-', '_')}": str(value) for name, value in found.items()}
    settings["PIP_CACHE_DIR"] = pip("cache", "dir").strip()
    settings["BAREHUB_PYTHON_MIRROR"] = os.environ.get("BAREHUB_PYTHON_MIRROR") or offer_vendor_python(
        ROOT / ".cache/python"
    )
    settings["BAREHUB_PYTHON_PINS"] = os.environ.get("BAREHUB_PYTHON_PINS", "")
    settings |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {name: value for name, value in settings.items() if value}


def pip(*words: str) -> str:
    """What a command of pip prints; nothing if it fails, as `pip cache` does where the cache is switched off."""
    argv = [sys.executable, "-m", "pip", *words]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False).stdout


def show(word: str, root: Path, shown: list[str]) -> str:
    """Let a system have what a word leads to on this host, if it is a path; return the word that leads to it there."""
    prefix = "file://" if word.startswith("file:///") else ""
    path = Path(word.removeprefix(prefix))
    if not path.is_absolute() or not path.exists():
        return word
    if path.is_dir():
        top = path.parent if prefix else path  # an index has its files beside it
        Path(f"{root}{HOST}{top}").mkdir(parents=True, exist_ok=True)
        shown.append(os.fspath(top))
    else:
        there = Path(f"{root}{HOST}{path}")
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)
    return f"{prefix}{HOST}{path}"
