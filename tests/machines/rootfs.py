"""The root file system of the test machines: Debian 12 and, in /opt/users, what the users' servers need.

`cached_root()` builds it once, in a minute or two, and keeps it in

    CACHE/root-KEY/tree/        the root; KEY is the hash of its recipe: this file and users-requirements.txt
    CACHE/root-KEY/machines/    what the machines that run on it write

A build happens in a directory of its own, renamed when it is complete: a half-built root is never used.

    python -m tests.machines.rootfs build        build it now and print where it is
    python -m tests.machines.rootfs lock         write users-requirements.txt again
"""

import argparse
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from recipe.errors import UserError

# What the host needs, by Debian package.
HOST_PACKAGES = (
    "debootstrap",
    "systemd-container",  # systemd-nspawn
    "util-linux",  # nsenter, setpriv, unshare
    "e2fsprogs",  # mkfs.ext4, for small disks
    "chromium",
    "chromium-driver",
    "fonts-dejavu-core",  # or screenshots show no text
)

# Bookworm whatever the host runs: systemd 257 of Debian 13 needs cgroup v2 alone, which not every host has,
# and the users' wheels are for one Python.
SUITE, PYTHON, GLIBC_MINOR = "bookworm", "3.11", 36
ROOT_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "libpam-systemd", "libnss-systemd",
    "python3", "python3-venv", "procps", "iproute2",
    "pebble",  # an ACME server and its DNS; Debian starts neither
    "openssl",
    "slurmctld", "slurmd", "slurm-client", "munge", "sudo",  # not started at boot: a test makes a cluster of machines
    "slapd", "ldap-utils",  # the same: a test makes a directory
)  # fmt: skip

# Nothing of the caller's environment gets into a machine, pip's settings and TMPDIR included.
CLEAN = ("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")

# The users' side of the hub. Its JupyterHub is the hub's own version.
USERS_WANT = ("jupyterhub==6.1.1", "jupyterlab", "ipykernel")
USERS_REQUIREMENTS = Path(__file__).with_name("users-requirements.txt")
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
            print(f"building the test machines' root in {cache}: a minute or two", file=sys.stderr)
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
    return hashlib.sha256(Path(__file__).read_bytes() + USERS_REQUIREMENTS.read_bytes()).hexdigest()[:16]


def build(root: Path) -> None:
    """Fill `root` with the whole machine."""
    debootstrap(SUITE, root, ROOT_PACKAGES)
    run("chroot", root, *CLEAN, "systemctl", "disable", "munge", "slapd", "slurmctld", "slurmd")
    make_users_environment(root)


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


def make_users_environment(root: Path) -> None:
    """Make the venv /opt/users: the host's pip downloads, as it is set up to; the root's installs offline."""
    wheels = root / "opt/wheels"
    run(*pip_download(wheels), "--no-deps", "--require-hashes", f"--requirement={USERS_REQUIREMENTS}")
    run("chroot", root, *CLEAN, "python3", "-m", "venv", "/opt/users")
    pip = ("chroot", root, *CLEAN, "/opt/users/bin/python", "-m", "pip", "--disable-pip-version-check")
    names = [f"/opt/wheels/{wheel.name}" for wheel in wheels.iterdir()]
    run(*pip, "install", "--no-index", "--no-deps", "--no-compile", *names)
    run(*pip, "check")
    run("chroot", root, *CLEAN, "/opt/users/bin/python", "-m", "compileall", "-q", "-j0", "/opt/users/lib")
    shutil.rmtree(wheels)


def pip_download(into: Path) -> list[str | Path]:
    """The words with which this host's pip fetches wheels for the root's Python and glibc (PEP 600)."""
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINOR, 4, -1)]
    target = [f"--python-version={PYTHON}", *platforms, "--platform=manylinux2014_x86_64"]
    return [sys.executable, "-m", "pip", "download", f"--dest={into}", "--only-binary=:all:", *target]


def lock_users_requirements() -> None:
    """Resolve USERS_WANT again and write users-requirements.txt, one wheel a line."""
    if not platform.python_version().startswith(f"{PYTHON}."):
        raise UserError("pip evaluates markers for the Python that runs it", fix=f"use Python {PYTHON}")
    with tempfile.TemporaryDirectory() as tmp:
        run(*pip_download(Path(tmp)), *USERS_WANT)
        pins = sorted(pin(wheel) for wheel in Path(tmp).iterdir())
    head = (
        "# What the users' servers of a test machine run from: jupyterhub-singleuser, JupyterLab, kernel.\n"
        "# One wheel a line, for x86_64. Written from USERS_WANT of rootfs.py by\n"
        f"#     python{PYTHON} -m tests.machines.rootfs lock\n"
    )
    USERS_REQUIREMENTS.write_text(head + "".join(pins))


def pin(wheel: Path) -> str:
    """A line of pip's requirements file that admits `wheel` and nothing else."""
    name, version, *_ = wheel.name.split("-")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{name.lower().replace('_', '-')}=={version} --hash=sha256:{digest}\n"


def run(*argv: str | Path, stdin: str = "") -> str:
    """Run a command and return its stdout; raise UserError with all that it said if it fails."""
    words = [os.fspath(word) for word in argv]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{shlex.join(words)} exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.machines.rootfs")
    parser.add_argument("what", choices=["build", "lock"])
    try:
        if parser.parse_args(argv).what == "lock":
            lock_users_requirements()
        else:
            install_host_packages()
            print(cached_root())
    except UserError as e:
        print(f"error: {e}" + (f"\n  fix: {e.fix}" if e.fix else ""), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
