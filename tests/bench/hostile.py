"""Attempts to smuggle requests; what idle clients cost the proxy; how tightly its units and the hub's are closed.

    PYTHONPATH=post_install python -m tests.bench.hostile       with the hub environment's Python: barehub and traefik

It needs unshare. In a network namespace of its own it tries all of tests/unit/test_smuggling.py, and prints how many
attempts there were, and how many of them did nothing but what is expected. Then it opens 10,000 connections to traefik,
with barehub's static configuration, of which a third says nothing, a third half a header, and a third half a body. It
prints the proxy's memory before and with them, and whether somebody else is still served. On a machine with barehub it
also prints what `systemd-analyze security` says of each unit.
"""

import contextlib
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.routes import run_inside
from tests.systemd_versions import MOST, exposure
from tests.unit.behind import proxied_servers
from tests.unit.proxies import answers, barehub_config, free_port, get, make_base, running, traefik
from tests.unit.test_smuggling import HTTP_1, HTTP_2

CONNECTIONS = 10_000
SOURCES = 4  # addresses, since one has 28,000 ports
LIMIT = 400  # MB
HEADS = (
    b"",
    b"GET /hub/login HTTP/1.1\r\nHost: hub\r\nX-Slow: ",
    b"POST /hub/login HTTP/1.1\r\nHost: hub\r\nContent-Length: 1000000\r\n\r\nhalf",
)


def main() -> int:
    if not shutil.which("unshare"):
        print("error: this needs unshare", file=sys.stderr)
        return 1
    if "inside" not in sys.argv:
        return run_inside("tests.bench.hostile") or print_security()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 1000:
        print(f"error: this needs {CONNECTIONS + 1000} file descriptors, `ulimit -Hn` is {hard}", file=sys.stderr)
        return 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory:
        return smuggle(Path(directory) / "smuggle") or measure(Path(directory))


def smuggle(base: Path) -> int:
    """Try to make the proxy and what is behind it disagree; 1 if an attempt did."""
    failed = []
    with proxied_servers(make_base(base)) as proxied:
        for name, attempt in (HTTP_1 | HTTP_2).items():
            attempt.send(proxied.port)
            try:
                held = proxied.arrived() == list(attempt.arrives)
            except AssertionError:  # of a header or an address
                held = False
            failed += [] if held else [name]
    tried = len(HTTP_1) + len(HTTP_2)
    print(f"{tried} attempts to smuggle   {tried - len(failed)} held", *failed)
    return 1 if failed else 0


def measure(directory: Path) -> int:
    """Open the connections; 1 if they cost too much or keep others out."""
    port = free_port()
    path = barehub_config(make_base(directory / "base"), f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
    with running(traefik(), f"--configfile={path}") as proxy, contextlib.ExitStack() as stack:
        while not answers(port):
            time.sleep(0.01)
        before = memory(proxy.pid)
        for number in range(CONNECTIONS):
            source = (f"127.0.0.{2 + number % SOURCES}", 0)
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60, source_address=source))
            client.sendall(HEADS[number % len(HEADS)])
        status, _ = get(port)  # 404: there is no hub
        used = memory(proxy.pid)
    print(f"{CONNECTIONS} idle connections    {before} MB -> {used} MB, at most {LIMIT}; others get {status}")
    return 0 if used <= LIMIT and status == 404 else 1


def memory(pid: int) -> int:
    """A process's resident memory in MB."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) // 1024


def print_security() -> int:
    """Print the exposure of each of barehub's units, if this machine runs them; 1 if one is too high."""
    name = os.environ.get("BAREHUB_NAME", "barehub")
    code = 0
    for unit, most in MOST.items() if shutil.which("systemd-analyze") else ():
        words = ["systemd-analyze", "security", "--no-pager", f"{name}-{unit}.service"]
        if said := subprocess.run(words, capture_output=True, text=True, check=False).stdout:
            found = exposure(said)
            print(f"{name}-{unit:20} exposure {found}, at most {most}")
            code = code or int(float(found) > most)
    return code


if __name__ == "__main__":
    sys.exit(main())
