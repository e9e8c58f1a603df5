"""A portable interpreter for tests on a machine that cannot reach python-build-standalone's own place.

Google's Debian-format package `google-cloud-cli`, which some machines have, carries such an interpreter. Packed as an
archive with pins of its own, it is the mirror's content: what is tested reaches as far back as what is published.
Standard library only: release.py needs it before .venv exists.
"""

import hashlib
import os
import platform
import subprocess
from pathlib import Path

from recipe.standalone import UnavailableError, standalone_python

BUNDLED = Path("/usr/lib/google-cloud-sdk/platform/bundledpythonunix")


def offer_vendor_python(cache: Path, bundled: Path = BUNDLED) -> str:
    """Return the directory to use as --python-mirror; empty where none is needed, or none can be had.

    `cache` is where release.py keeps interpreters. Sets BAREHUB_PYTHON_PINS for this process and those it starts.
    """
    try:
        standalone_python(cache, "")
        return ""
    except UnavailableError:
        program = bundled / "bin/python3"
        if not program.is_file():
            return ""
    version = subprocess.run([program, "-IV"], capture_output=True, text=True, check=True).stdout.split()[1]
    mirror = cache / "vendor"
    os.environ["BAREHUB_PYTHON_PINS"] = str(publish(bundled, mirror, version, platform.machine()))
    return str(mirror)


def publish(tree: Path, mirror: Path, version: str, machine: str) -> Path:
    """Pack an interpreter as a pinned archive of `mirror`, if it is not there; return the pins that name it."""
    archive = mirror / f"cpython-{version}+0-{machine}-unknown-linux-gnu-install_only.tar.gz"
    if not archive.is_file():
        pack(tree, archive)
    pins = mirror / "python.txt"
    pins.write_text(f"{machine} {archive.name} {hashlib.sha256(archive.read_bytes()).hexdigest()}\n")
    return pins


def pack(bundled: Path, archive: Path) -> None:
    """Write the archive of an interpreter, with all of it below python/ and the same bytes each time."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    staged = archive.with_name(f".{archive.name}.new")
    same = ("--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner")
    moved = ("--exclude=__pycache__", f"--transform=flags=rSH;s,^{bundled.name},python,")
    packed = (*same, *moved, "--use-compress-program=gzip -1n", "-C", bundled.parent, bundled.name)
    subprocess.run(["tar", "-cf", staged, *packed], check=True)
    staged.replace(archive)
