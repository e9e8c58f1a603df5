"""An aarch64 Debian on this host of another kind: no machine that boots, but a root whose programs qemu-user runs.

The same root has the interpreter that stands in for the pinned one, where that cannot be had: Debian's, with the
libraries that it loads beside it.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from recipe.elf import GLIBC_LIBRARIES, is_elf, needed_libraries
from recipe.errors import UserError
from tests.machines import rootfs
from tests.machines.other_rootfs import cached_tree
from tests.machines.vendor_python import publish

MACHINE, PLATFORM, DEBIAN = "aarch64", "linux-aarch64", "arm64"
PACKAGES = ("qemu-user-static", "libc6-arm64-cross", "libgcc-s1-arm64-cross")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
# The root's own programs, without anything of the host's but the kernel; no network but a loopback device.
ENTER = """\
mount -t proc proc "$1/proc" && ip link set lo up 2>/dev/null
root=$1; shift
exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
"""
PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"


def install_emulator() -> None:
    """Install what runs the other machine's programs; does nothing where it is."""
    if not all(Path("/usr/share/doc", package).is_dir() for package in PACKAGES):
        rootfs.run("apt-get", "update", "-q")
        rootfs.run("apt-get", "install", "-q", "-y", "--no-install-recommends", *PACKAGES)


@contextlib.contextmanager
def emulated() -> Iterator[None]:
    """The host's kernel runs the other machine's programs. Raises UserError where it cannot."""
    if reason := rootfs.why_not_here():
        raise UserError(reason, fix="run the end-to-end tests as root on Debian, x86_64")
    place, wanted = BINFMT / f"qemu-{MACHINE}", Path(f"/usr/lib/binfmt.d/qemu-{MACHINE}.conf")
    if not wanted.is_file():
        raise UserError(f"the host lacks {' '.join(PACKAGES)}", fix="python3 release.py test")
    if not (BINFMT / "register").exists():
        rootfs.run("mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT)
    ours = not place.exists()
    if ours:
        [line] = [line for line in wanted.read_text().splitlines() if line.startswith(":")]
        (BINFMT / "register").write_text(line)
    try:
        yield
    finally:
        if ours:
            place.write_text("-1")


def cached_root() -> Path:
    """The root, built first if this recipe's is not there. Do not write to it."""
    return cached_tree(Path(__file__).read_bytes(), build)


def build(root: Path) -> None:
    """Unpack the packages of a small Debian, and configure none of them: that takes an emulator minutes."""
    first = ("debootstrap", "--foreign", f"--arch={DEBIAN}", "--variant=minbase", "--include=python3")
    rootfs.run("unshare", "--mount", *first, rootfs.SUITE, root, rootfs.debian_mirror())
    for deb in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as unpacked:
            subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", root], stdin=unpacked.stdout, check=True)
        deb.unlink()
    (root / "usr/bin/awk").symlink_to("mawk")
    if (root / "proc").is_symlink():  # what debootstrap makes of it in a container
        (root / "proc").unlink()
        (root / "proc").mkdir()
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text("root:x:0:\nwww-data:x:33:\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")


def inside(root: Path, *words: str) -> list[str | Path]:
    """The words that run a program of the root."""
    return ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", ENTER, "sh", root, *words]


def offer_stand_in(root: Path, mirror: Path) -> Path:
    """Pack the root's interpreter as the pinned archive; return the pins that name it."""
    program = (root / "usr/bin/python3").resolve()
    tree = mirror / "python"
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(program, tree / "bin")
    (tree / "bin/python3").symlink_to(program.name)
    shutil.copytree(root / "usr/lib" / program.name, tree / "lib" / program.name, symlinks=True)
    todo = [path for path in tree.rglob("*") if is_elf(path)]
    for path in todo:
        for name in needed_libraries(path):
            library, source = tree / "lib" / name, root / f"usr/lib/{MACHINE}-linux-gnu" / name
            if not GLIBC_LIBRARIES.fullmatch(name) and not library.exists() and source.exists():
                shutil.copyfile(source, library)
                todo.append(library)
    version = subprocess.run(inside(root, "python3", "-IV"), capture_output=True, text=True, check=True).stdout.split()
    return publish(tree, mirror, version[1], MACHINE)


def hosts_python(version: str) -> Path:
    """The host's interpreter of a minor version. Raises UserError if there is none."""
    found = shutil.which(f"python{version}", path=os.defpath)
    if found is None:
        raise UserError(f"the host has no python{version}", f"apt-get install python{version}")
    return Path(found)
