"""The root file systems of an older and a newer machine than the usual one: Debian 11 and Debian 13.

Smaller than the usual root: no environment for the users, whose servers are a stand-in of a few lines. Kept like that
one, in CACHE/other-KEY/tree/, where KEY is the hash of this file, rootfs.py, and the suite.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.machines import rootfs
from tests.machines.rootfs import USERS_ENVIRONMENT, cache_dir, debootstrap


@dataclass(frozen=True)
class System:
    """What a suite of Debian has."""

    suite: str
    glibc: tuple[int, int]
    systemd: int


DEBIAN_11 = System("bullseye", (2, 31), 247)
DEBIAN_13 = System("trixie", (2, 41), 257)
# For a host with cgroup v1, which systemd 257 accepts only on demand (its NEWS, 256); other versions ignore the word.
KERNEL_ARGUMENTS = ("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "systemd.unified_cgroup_hierarchy=0")
PACKAGES = ("systemd", "systemd-sysv", "dbus", "libpam-systemd", "libnss-systemd", "python3", "procps", "iproute2")

# To the hub, the same as jupyterhub-singleuser: it answers below its prefix, and asks nobody who they are.
SERVER = """\
#!/usr/bin/python3
import http.server, os, urllib.parse

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.getpid()} {os.environ['JUPYTERHUB_USER']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

url = urllib.parse.urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
http.server.ThreadingHTTPServer((url.hostname, url.port), Handler).serve_forever()
"""


def cached_other_root(system: System) -> Path:
    """The root, built first if this recipe's is not there. Do not write to it: machines share it."""
    return cached_tree(system.suite.encode(), lambda root: build(system.suite, root))


def cached_tree(name: bytes, build: Callable[[Path], None]) -> Path:
    """What `build` puts into an empty directory, once for this `name` and recipe."""
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    recipe = Path(__file__).read_bytes() + Path(rootfs.__file__).read_bytes()
    key = hashlib.sha256(recipe + name).hexdigest()[:16]
    ours = cache / f"other-{key}"
    with (cache / "other-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ours.exists():
            staging = cache / "other-building"
            shutil.rmtree(staging, ignore_errors=True)
            build(staging / "tree")
            staging.rename(ours)
        fcntl.flock(os.open(ours, os.O_RDONLY), fcntl.LOCK_SH)  # says "in use" until this process ends
    return ours / "tree"


def build(suite: str, root: Path) -> None:
    """Fill `root` with the whole machine."""
    debootstrap(suite, root, PACKAGES)
    program = root / USERS_ENVIRONMENT[1:] / "bin/jupyterhub-singleuser"
    program.parent.mkdir(parents=True)
    program.write_text(SERVER)
    program.chmod(0o755)
