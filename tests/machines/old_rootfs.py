"""The root file system of an old machine: Debian 11, which has glibc 2.31 and systemd 247.

Smaller than the usual root: no environment for the users, whose servers are a stand-in of a few lines. Kept like that
one, in CACHE/old-KEY/tree/, where KEY is the hash of this file.
"""

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from tests.machines.rootfs import CLEAN, USERS, cache_dir, debian_mirror, run

SUITE = "bullseye"
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


def cached_old_root() -> Path:
    """The root, built first if this recipe's is not there. Do not write to it: machines share it."""
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    ours = cache / f"old-{key}"
    with (cache / "old-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ours.exists():
            staging = cache / "old-building"
            shutil.rmtree(staging, ignore_errors=True)
            build(staging / "tree")
            staging.rename(ours)
        fcntl.flock(os.open(ours, os.O_RDONLY), fcntl.LOCK_SH)  # says "in use" until this process ends
    return ours / "tree"


def build(root: Path) -> None:
    """Fill `root` with the whole machine."""
    include = f"--include={','.join(PACKAGES)}"
    run("unshare", "--mount", "debootstrap", "--variant=minbase", include, SUITE, root, debian_mirror())
    for deb in root.glob("var/cache/apt/archives/*.deb"):
        deb.unlink()
    for ours in ("etc/hostname", "etc/resolv.conf"):  # debootstrap copies the host's
        (root / ours).unlink()
    run("chroot", root, *CLEAN, "systemctl", "mask", "apt-daily.timer", "apt-daily-upgrade.timer")
    for name, password in USERS.items():
        run("chroot", root, *CLEAN, "useradd", "--create-home", "--shell=/bin/bash", name)
        run("chroot", root, *CLEAN, "chpasswd", stdin=f"{name}:{password}\n")
    program = root / "opt/users/bin/jupyterhub-singleuser"
    program.parent.mkdir(parents=True)
    program.write_text(SERVER)
    program.chmod(0o755)
