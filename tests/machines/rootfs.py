"""The root file system of the test machines: Debian 12 and, in /shared/jupyter, the environment `lab` for its users.

`cached_root()` builds it once, in some minutes, and keeps it in

    CACHE/root-KEY/tree/        the root; KEY is the hash of its recipe: this file and the locks of `lab`
    CACHE/root-KEY/machines/    what the machines that run on it write

A build happens in a directory of its own, renamed when it is complete: a half-built root is never used.

    python -m tests.machines.rootfs        build it now and print where it is
"""

import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from recipe.errors import UserError
from tests.machines import installers

# What the host needs, by Debian package.
HOST_PACKAGES = (
    "debootstrap",
    "systemd-container",  # systemd-nspawn
    "util-linux",  # nsenter, setpriv, unshare
    "e2fsprogs",  # mkfs.ext4, for small disks
    "chromium",
    "chromium-driver",
    "fonts-dejavu-core",  # or screenshots show no text
    "postgresql",  # for unit tests
    "fuse3",  # the same
)

# Whatever the host runs: systemd 257 of Debian 13 needs cgroup v2 alone, which not every host has.
SUITE = "bookworm"
ROOT_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "libpam-systemd", "libnss-systemd",
    "python3", "python3-venv", "procps", "iproute2",
    "pebble",  # an ACME server and its DNS; Debian starts neither
    "openssl",
    "slurmctld", "slurmd", "slurm-client", "munge", "sudo",  # not started at boot: a test makes a cluster of machines
    "slurmdbd", "mariadb-server",  # the same: Slurm's accounting
    "slapd", "ldap-utils", "sssd-ldap", "libnss-sss", "libpam-sss",  # the same: a test makes a directory
    "postgresql", "ansible-core",  # the same: a test manages a hub and its database
    "python3-cffi-backend",  # for ansible-core: debootstrap does not find what others call it
)  # fmt: skip

NOT_AT_BOOT = ("munge", "slapd", "slurmctld", "slurmd", "slurmdbd", "mariadb", "postgresql", "sssd")

# Nothing of the caller's environment gets into a machine, pip's settings and TMPDIR included.
CLEAN = ("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")

# The users' side of the hub.
LAB = Path(__file__).parents[2] / "construct/environments/lab"
USERS_BASE = "/shared/jupyter"
USERS_ENVIRONMENT = f"{USERS_BASE}/current"
USERS = {"alice": "wonderland", "bob": "builder"}  # the password of each, for these machines only


def cache_dir() -> Path:
    """Where everything is kept: on a file system that can be an overlay's upper layer (ext4, xfs, btrfs)."""
    return Path(os.environ.get("BAREHUB_TEST_CACHE") or Path.home() / ".cache/barehub-tests")


def missing_host_packages() -> list[str]:
    """The Debian packages to install before a machine can run here. Raises UserError where none ever can."""
    if reason := why_not_here():
        raise UserError(reason, fix="run the end-to-end tests as root on Debian, x86_64")
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *HOST_PACKAGES],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in HOST_PACKAGES if name not in installed]


def install_host_packages() -> None:
    """Install what `missing_host_packages` names; does nothing where nothing is missing."""
    if missing := missing_host_packages():
        run("apt-get", "update", "-q")
        run("apt-get", "install", "-q", "-y", "--no-install-recommends", *missing)


def why_not_here() -> str:
    """Why machines cannot run on this host, whatever is installed; empty if they can."""
    if os.geteuid() != 0:
        return "test machines need root (systemd-nspawn, overlay mounts)"
    if not Path("/etc/debian_version").exists():
        return "test machines are made with Debian's tools, and this host is not Debian"
    if platform.machine() != "x86_64":
        return f"test machines are x86_64, and this host is {platform.machine()}"
    return ""


def cached_root() -> Path:
    """The root, built first if this recipe's is not there. Do not write to it: machines share it."""
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    ours = cache / f"root-{recipe_hash()}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_left_overs(cache, keep=ours / "tree")
        if not ours.exists():
            print(f"building the test machines' root in {cache}: some minutes", file=sys.stderr)
            staging = cache / "building"
            build(staging / "tree")
            staging.rename(ours)
        fcntl.flock(os.open(ours, os.O_RDONLY), fcntl.LOCK_SH)  # says "in use" until this process ends
    return ours / "tree"


def remove_left_overs(cache: Path, keep: Path) -> None:
    """Remove what killed runs and older recipes left. Called under the lock, where nobody else builds."""
    shutil.rmtree(cache / "building", ignore_errors=True)
    for root in [*cache.glob("root-*"), *cache.glob("other-????????????????")]:
        fd = os.open(root, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # another run uses it
        else:
            for part in root.iterdir():
                if part != keep:
                    shutil.rmtree(part)
            if root != keep.parent:
                root.rmdir()
        finally:
            os.close(fd)


def recipe_hash() -> str:
    files = (Path(__file__), *sorted(path for path in LAB.rglob("*") if path.is_file()))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def build(root: Path) -> None:
    """Fill `root` with the whole machine."""
    debootstrap(SUITE, root, ROOT_PACKAGES)
    run("chroot", root, *CLEAN, "systemctl", "disable", *NOT_AT_BOOT)
    install_users_environment(root)


def debootstrap(suite: str, root: Path, packages: Sequence[str]) -> None:
    """Fill `root` with a suite of Debian, these packages, and the users."""
    include = f"--include={','.join(packages)}"
    # It mounts /proc and /sys inside, which must not be there any more when a half-built root is removed.
    run("unshare", "--mount", "debootstrap", "--variant=minbase", include, suite, root, debian_mirror())
    for deb in root.glob("var/cache/apt/archives/*.deb"):
        deb.unlink()
    for ours in ("etc/hostname", "etc/resolv.conf"):  # debootstrap copies the host's
        (root / ours).unlink()
    # These would fail some time after boot, there being no network, and tests end with "no failed units".
    run("chroot", root, *CLEAN, "systemctl", "mask", "apt-daily.timer", "apt-daily-upgrade.timer")
    for name, password in USERS.items():
        run("chroot", root, *CLEAN, "useradd", "--create-home", "--shell=/bin/bash", name)
        run("chroot", root, *CLEAN, "chpasswd", stdin=f"{name}:{password}\n")


def debian_mirror() -> str:
    """The URL of Debian as this host's apt is set up to reach it: apt-get(8), `indextargets`."""
    fields = "$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)"
    for line in run("apt-get", "indextargets", f"--format={fields}", "Created-By: Packages").splitlines():
        match line.split():
            case ["Debian", "Debian", "main", mirror]:
                return mirror
    raise UserError("apt knows no Debian mirror on this host", fix="apt-get update")


def install_users_environment(root: Path) -> None:
    """Install `lab` as a site does: by an account that is not root, without a network. The engine needs /proc."""
    shutil.copy(installers.environment(LAB.name), root / "mnt/lab.sh")
    run("chroot", root, *CLEAN, "install", "-d", "-o", "bob", USERS_BASE)
    alone = ("unshare", "--mount", "--net", "--pid", "--fork", f"--mount-proc={root}/proc")
    run(*alone, "chroot", "--userspec=bob", root, *CLEAN, "sh", "/mnt/lab.sh", "-b", "-p", USERS_BASE)
    (root / "mnt/lab.sh").unlink()


def run(*argv: str | Path, stdin: str = "") -> str:
    """Run a command and return its stdout; raise UserError with all that it said if it fails."""
    words = [os.fspath(word) for word in argv]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{shlex.join(words)} exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    install_host_packages()
    print(cached_root())
