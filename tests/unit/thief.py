"""Another account of the machine, which wants the port of somebody's server."""

import contextlib
import itertools
import socket
from collections.abc import Sequence

from barehub.process import call_as

HOSTS = ("0.0.0.0", "127.0.0.1", "::ffff:127.0.0.1", "::", "::1")
OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    (socket.SOL_SOCKET, socket.SO_REUSEPORT),
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
)


def stolen(port: int, hosts: Sequence[str] = HOSTS) -> list[str]:
    """Return the ways to listen at a port that work at present for another account."""
    tried, *found = call_as("nobody", lambda: "\n".join(["tried", *ways(port, hosts)]), {}, 60).split("\n")
    assert tried == "tried"
    return found


def ways(port: int, hosts: Sequence[str]) -> list[str]:
    """Try every way to listen at a port, and return those that work."""
    found = []
    for host in hosts:
        for chosen in itertools.product((0, 1), repeat=3 if ":" in host else 2):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with contextlib.suppress(OSError), socket.socket(family) as thief:
                for (level, option), value in zip(OPTIONS, chosen, strict=False):
                    thief.setsockopt(level, option, value)
                thief.bind((host, port))
                thief.listen()
                found.append(f"{host} {chosen}")
    return found
