"""Another account of the machine, which wants the port of somebody's server."""

import os
import subprocess
import sys
from collections.abc import Sequence

# Tries every way to listen at a port, and prints those that work.
STEAL = """
import itertools, socket, sys

options = [(socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.SOL_SOCKET, socket.SO_REUSEPORT)]
options += [(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)]
for host in sys.argv[2:]:
    for chosen in itertools.product((0, 1), repeat=3 if ":" in host else 2):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as thief:
            try:
                for option, value in zip(options, chosen):
                    thief.setsockopt(*option, value)
                thief.bind((host, int(sys.argv[1])))
                thief.listen()
                print(host, chosen)
            except OSError:
                pass
"""


HOSTS = ("0.0.0.0", "127.0.0.1", "::ffff:127.0.0.1", "::", "::1")


def stolen(port: int, hosts: Sequence[str] = HOSTS) -> list[str]:
    """Return the ways to listen at a port that work at present for another account."""
    words = [f"{sys.base_prefix}/bin/python3", "-c", STEAL, str(port), *hosts]
    nobody = 65534 if os.geteuid() == 0 else None
    return subprocess.run(words, user=nobody, capture_output=True, text=True, check=True).stdout.splitlines()
