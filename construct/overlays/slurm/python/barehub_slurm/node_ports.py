"""Ports of a compute node: who listens at one, and how to hold one. A part of launch.py, so for Python 3.6, too."""

# ruff: noqa: UP006, UP035 - to Python 3.6, list[int] is an error

import contextlib
import errno
import random
import socket
from typing import List, Sequence, Set, Tuple

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
LISTEN = "0A"  # TCP_LISTEN of net/tcp_states.h


def accounts_at(port: int, tables: Sequence[str] = TABLES) -> Set[int]:
    """Return the ids of the accounts that listen at a port, at whatever address."""
    found = set()
    for table in tables:
        try:
            with open(table) as file:
                lines = [line.split() for line in file][1:]
        except OSError:  # no IPv6
            continue
        found |= {int(one[7]) for one in lines if one[3] == LISTEN and int(one[1].rpartition(":")[2], 16) == port}
    return found


def free_port(ports: str = "") -> Tuple[int, List[socket.socket]]:
    """Return a port that nobody on the node listens at, and the sockets that hold it, against our other jobs, too.

    `ports` is a range, FIRST-LAST, or empty: then the kernel chooses. Raises OSError if there is none.
    """
    choice = [0] * 10
    if ports:
        first, last = map(int, ports.split("-"))
        choice = list(range(first, last + 1))
        random.shuffle(choice)  # or jobs that start at the same time would all try the first ones
    for one in choice:
        with contextlib.suppress(OSError):
            held = hold(one)
            port = held[0].getsockname()[1]
            return port, [*held, claimed(port)]
    raise OSError("all ports are in use")


def hold(port: int) -> List[socket.socket]:
    """Bind a port, or one that the kernel chooses for 0, of IPv4 and IPv6. Raises OSError if it is in use.

    With SO_REUSEADDR, which servers set as well, a socket does not keep others from listening until one does.
    """
    held = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            one = socket.socket(family)
            held.append(one)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Then a port on which connections have just ended is free.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if port else 0)
            one.bind(("", port))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError as error:
            if family == socket.AF_INET or error.errno == errno.EADDRINUSE:
                for taken in held:
                    taken.close()
                raise
        port = port or held[0].getsockname()[1]
    return held


def claimed(port: int) -> socket.socket:
    """Claim a port in the node's abstract namespace (unix(7)) until it is listened at. Raises OSError if it is in use.

    A server takes some seconds until it listens. Jobs that start meanwhile would choose the same port of a small range.
    """
    if accounts_at(port):  # of another family, which did not keep us from binding it
        raise OSError(f"{port} is in use")
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind("\0barehub/" + str(port))
    except OSError:
        claim.close()
        raise
    return claim
