"""A small installer: the real header and scripts, an engine that is a shell script, and a channel of one archive."""

import os
import shutil
import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from construct.installer import ENVIRONMENT, SCRIPTS, write_installer, write_sums

MOMENT = datetime(2026, 11, 24, tzinfo=UTC)
SHELLS = [shell for shell in ("sh", "dash", "bash", "zsh", "busybox") if shutil.which(shell)]
NUMBERS = {
    "KIND": "hub",
    "NAME": "barehub",
    "RELEASE": "2026.11.24",
    "MACHINE": "x86_64",
    "GLIBC": "2.17",
    "SYSTEMS": "EL 8+, Debian 10+",
    "SYSTEMD": 239,
    "INSTALLED_KB": 10,
    "NEEDED_KB": 100,
    "NEEDED_INODES": 10,
}
# Stands in for an engine: makes a prefix whose python prints how it was called, and keeps the words as they are.
FILL = """#!/bin/sh
set -eu
mkdir -p "$2/bin" "$2/share/barehub"
cat >"$2/bin/python" <<END
#!/bin/sh
echo "hooks: \\$*"
env >$2/environment
printf '%s\\\\0' "\\$@" >$2/words
END
chmod 755 "$2/bin/python"
"""
EMPTY_INDEX = """{
 "info": {"subdir": "noarch"},
 "packages": {
 },
 "packages.conda": {
 },
 "removed": [],
 "repodata_version": 1
}
"""


def write(directory: Path, fill: str = FILL, release: str = "{}\n", advisories: str = "", **numbers: object) -> Path:
    """Write the installer and its payload into `directory`; `numbers` are values of the header's placeholders."""
    payload = directory / "payload"
    for name, text in (
        ("packages.txt", "one 1.0\n"),
        ("release.json", release),
        ("engine/fill", fill),
        ("environment.lock.yml", "channels:\n  - ./channel\n"),
        ("sbom.cdx.json", "{}\n"),
        ("manifest.gz", ""),
        ("channel/noarch/repodata.json", EMPTY_INDEX),
        ("channel/linux-64/repodata.json", EMPTY_INDEX.replace("noarch", "linux-64")),
        *((script.name, script.read_text()) for script in (*SCRIPTS, ENVIRONMENT)),
        *([("advisories.json", advisories)] if advisories else []),
    ):
        (payload / name).parent.mkdir(parents=True, exist_ok=True)
        (payload / name).write_text(text)
    (payload / "channel/linux-64/random.conda").write_bytes(os.urandom(20_000))
    write_sums(payload)
    values = {**NUMBERS, **numbers}
    path = directory / "{NAME}-{RELEASE}-Linux-{MACHINE}.sh".format(**values)
    write_installer(path, payload, values, MOMENT)
    return path


def run(installer: Path, *options: str, shell: str = "sh", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an installer with nothing on its standard input and nothing but PATH in its environment."""
    return subprocess.run(
        [shell, *(["sh"] if shell == "busybox" else []), installer, *options],
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], code: int, what: str) -> None:
    """One line that says what is wrong and one that says what to do, on stderr, and nothing on stdout."""
    assert (done.returncode, done.stdout) == (code, ""), done
    wrong, fix = done.stderr.splitlines()
    assert wrong.startswith("error: ")
    assert what in wrong
    assert fix.startswith("  fix: ")


def give_by_acl(path: Path, uid: int) -> None:
    """Let another account write, as `setfacl --modify user:UID:rwx` does (linux/posix_acl_xattr.h, acl(5))."""
    own, user, group, mask, other, nobody = 0x01, 0x02, 0x04, 0x10, 0x20, 0xFFFFFFFF
    entries = ((own, 7, nobody), (user, 7, uid), (group, 5, nobody), (mask, 7, nobody), (other, 5, nobody))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, "system.posix_acl_access", acl)
