"""Who listens at an address of this machine: what answers there is believed only if it is whom it must be.

Any account may listen at a port from 1024 on as soon as it is free, and then gets what was meant for the hub.
"""

import contextlib
import functools
import ipaddress
import os
import pwd
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from barehub.settings import Settings
from barehub.systemd import property_of

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTEN = "0A"  # TCP_LISTEN of net/tcp_states.h
UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@dataclass(frozen=True)
class Listener:
    """A listening socket: its account's id, and its inode, by which a process that holds it is known (proc(5))."""

    uid: int
    inode: int

    @property
    def account(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"user id {self.uid}"


class Socket(NamedTuple):
    """Where a socket listens, at a port that is known."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    listener: Listener


Ports = Mapping[int, list[Socket]]  # by port


@dataclass(frozen=True)
class Owner:
    """Who must listen: this account or root; where systemd runs the unit, its main process or what that started."""

    unit: str
    account: str

    @classmethod
    def of_hub(cls, settings: Settings) -> "Owner":
        return cls(settings.hub_unit, settings.hub_user)

    @classmethod
    def of_proxy(cls, settings: Settings) -> "Owner":
        """Root makes the proxy's sockets; in the foreground the account that runs all does."""
        return cls(settings.proxy_unit, settings.hub_user)

    def stranger(self, host: str, port: int) -> str | None:
        """Return the account of somebody else who listens there; None if nobody does."""
        for one in listeners(host, port):
            if not self.has(one):
                return one.account
        return None

    def listens(self, host: str, port: int) -> bool:
        """Return True if what listens there is this owner's, and nobody else's."""
        return any(True for _ in listeners(host, port)) and self.stranger(host, port) is None

    def has(self, listener: Listener) -> bool:
        """Return True if the socket is this owner's."""
        if listener.uid not in (0, user_id(self.account)):
            return False
        pid = property_of(self.unit, "MainPID")
        if pid in ("", "0") or os.geteuid() != 0:
            return True  # only root sees another account's files, so the account has to do
        # Not the unit's control group: users' servers may be in that. But the main process may be a site's wrapper.
        return any(descends(holder, pid) for holder in holders(listener.inode))


def holders(inode: int) -> Iterator[str]:
    """Yield the processes that hold a socket, as far as this account can see."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        if target_of(descriptor) == f"socket:[{inode}]":
            yield descriptor.parts[2]


def descends(process: str, ancestor: str) -> bool:
    """Return True if a process is `ancestor`, or was started by it or by one that it has started (proc(5))."""
    while process not in ("0", ""):
        if process == ancestor:
            return True
        try:
            process = fields_of(process)[1]
        except OSError:  # it has ended
            return False
    return False


def fields_of(process: str | int) -> list[str]:
    """Return what the kernel tells of a process, from its state on (proc(5), /proc/pid/stat). Raises OSError.

    Before that is its name, in parentheses, which is any bytes that it likes.
    """
    return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].decode().split()


def target_of(link: Path) -> str:
    """Return what a process's file descriptor is; nothing if it is closed meanwhile."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def user_id(account: str) -> int | None:
    """Return the id of an account, by name or number; None if there is none."""
    try:
        return pwd.getpwnam(account).pw_uid
    except KeyError:
        return int(account) if account.isdigit() else None


def listeners(host: str, port: int, ports: Ports | None = None) -> Iterator[Listener]:
    """Yield the sockets that a connection to this host and port may reach, of `ports` if that is given."""
    there = (listening() if ports is None else ports).get(port, ())
    wanted = {ipaddress.ip_address(str(found[4][0]).partition("%")[0]) for found in addresses_of(host, port)}
    found = [one for one in there if one.address.is_unspecified or one.address in wanted]
    # A dual-stack `::` cannot be there beside an IPv4 socket: so this one takes IPv6 alone.
    narrow = any(one.address.version == 4 for one in found)
    for one in found:
        if not (narrow and one.address.version == 6 and one.address.is_unspecified and ":" not in host):
            yield one.listener


def listening() -> Ports:
    """Return all sockets that listen for TCP on this machine.

    The kernel lists them before the connections, which a busy machine has thousands of
    (https://docs.kernel.org/networking/proc_net_tcp.html); so reading ends with them.
    """
    found: dict[int, list[Socket]] = {}
    for table in TABLES:
        with contextlib.suppress(FileNotFoundError), table.open() as lines:
            next(lines, "")  # the names of the fields
            for fields in map(str.split, lines):
                if fields[3] != LISTEN:
                    break
                address, _, port = fields[1].rpartition(":")
                one = Socket(parsed(address), Listener(int(fields[7]), int(fields[9])))
                found.setdefault(int(port, 16), []).append(one)
    return found


def addresses_of(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str | int, ...]]]:
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]
    except OSError:
        return []


@functools.lru_cache
def parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address as the kernel prints it: in words of four bytes, each a number of this machine's."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    return getattr(address, "ipv4_mapped", None) or address


def anyone_may_listen(port: int) -> bool:
    """Return True if it takes no privilege to listen at a port."""
    try:
        return port >= int(UNPRIVILEGED.read_text())
    except (OSError, ValueError):
        return port >= 1024
