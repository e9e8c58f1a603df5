"""The proxy's listening sockets. Root makes them before the proxy starts, systemd keeps them, traefik accepts on them.

systemd has a file descriptor store for each unit (sd_pid_notify_with_fds(3)): what is in it outlives the unit's
processes until the unit is stopped. So a client that comes while traefik restarts waits in the kernel's queue, and
none is refused.

A new traefik accepts connections some tenths of a second before it has read the hub's routes, and answers them 404.
Nothing may reach it in that time. So each address has a `Door`: two sockets that share it by SO_REUSEPORT, one for
traefik and one to wait at, and a packet filter that tells the kernel which of them gets a new connection.
"""

import array
import contextlib
import errno
import json
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barehub.errors import UserError

BACKLOG = 1024  # connections that can wait on a socket; beyond that clients are slowed down, not refused (listen(2))
SO_ATTACH_REUSEPORT_CBPF = 51  # asm-generic/socket.h; socket(7)
BPF_RET = 0x06  # linux/bpf_common.h: BPF_RET | BPF_K
FIRST_FD = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)

Addresses = dict[str, str]  # entrypoint -> `[host]:port`, as traefik writes it


@dataclass(frozen=True)
class Door:
    """One address to listen on. The kernel numbers the sockets that share it in the order of their listen(2)."""

    waiting: socket.socket
    serving: socket.socket

    @classmethod
    def make(cls, address: str) -> "Door":
        """Listen on an address. Raises OSError if that cannot be done.

        Sockets can only join those of the same user: made by root, no other account's process can.
        """
        family, where = resolve(address)
        both = family == socket.AF_INET6 and where[0] == "::"  # as traefik does for `:8000`: IPv6 and IPv4
        # Alone first, or the sockets of another installation would be joined instead of being in the way.
        socket.create_server(where, family=family, dualstack_ipv6=both).close()
        return cls(
            *(
                socket.create_server(where, family=family, dualstack_ipv6=both, backlog=BACKLOG, reuse_port=True)
                for _ in range(2)
            )
        )

    def shut(self) -> None:
        """From now on connections wait."""
        self._turn(0)

    def open(self) -> None:
        """From now on connections are traefik's."""
        self._turn(1)

    def _turn(self, number: int) -> None:
        # A filter of one instruction, `return number`. struct sock_filter { u16 code; u8 jt, jf; u32 k; }, struct
        # sock_fprog { u16 len; struct sock_filter *filter; } (linux/filter.h). Not by ctypes, whose import wants
        # memory that is writable and executable, and the unit forbids that.
        program = array.array("B", struct.pack("=HBBI", BPF_RET, 0, 0, number))
        pointer, _ = program.buffer_info()
        self.serving.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", 1, pointer))


def read_addresses(path: Path) -> Addresses:
    """The entrypoints in traefik's static configuration. Raises UserError if that is missing or damaged."""
    try:
        return addresses_of(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not tell where to listen: {error}", "restart the proxy") from error


def addresses_of(config: dict[str, Any]) -> Addresses:
    """The entrypoints in a static configuration."""
    addresses = {name: entrypoint["address"] for name, entrypoint in config["entryPoints"].items()}
    # Sockets for UDP are traefik's own business; the hub has none.
    return {name: text.removesuffix("/tcp") for name, text in addresses.items() if not text.endswith("/udp")}


def resolve(address: str) -> tuple[int, tuple[str, int]]:
    """Family, host and port of an entrypoint's address. Raises OSError if its name or port is unknown."""
    host, _, port = address.rpartition(":")
    if not host:
        host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - what `:8000` means
    family, _, _, _, found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    return family, (str(found[0]), int(found[1]))


def make_doors(addresses: Addresses) -> dict[str, Door]:
    """A new door for each entrypoint. Raises UserError if an address cannot be had."""
    doors = {}
    for entrypoint, address in addresses.items():
        try:
            doors[entrypoint] = Door.make(address)
        except OSError as error:
            raise cannot_listen(entrypoint, address, error) from error
    return doors


def cannot_listen(entrypoint: str, address: str, error: OSError) -> UserError:
    # Not str(error): create_server() adds words of its own. A name that is not found has a negative number.
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    fix = "give it an address of this machine"
    if error.errno == errno.EADDRINUSE:
        fix = f"see who has it, `ss -ltnp sport = :{address.rpartition(':')[2]}`, or give it another one"
    return UserError(f"cannot listen on {address} (entrypoint {entrypoint}): {reason}", fix)


# systemd


def descriptor_names(addresses: Addresses) -> dict[str, tuple[str, str]]:
    """What systemd calls the two sockets of each entrypoint; a colon would separate names (sd_listen_fds(3))."""
    return {
        entrypoint: tuple(f"{entrypoint} {address} {which}".replace(":", "|") for which in ("waiting", "serving"))
        for entrypoint, address in addresses.items()
    }


def store_doors(addresses: Addresses, before: Addresses) -> None:
    """Have systemd keep a door for each entrypoint, and forget those of addresses that are no longer wanted.

    To be called by a process of the unit, before the one that `stored_doors` is for. Raises UserError if an address
    cannot be had. One that was wanted before and is taken is left alone: as a rule systemd keeps its door already.
    """
    names = descriptor_names(addresses)
    stale = set(descriptor_names(before).values()) - set(names.values())
    for name in (name for pair in stale for name in pair):
        notify(f"FDSTOREREMOVE=1\nFDNAME={name}")
    wait_for_systemd()
    for entrypoint, address in addresses.items():
        try:
            door = Door.make(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and before.get(entrypoint) == address:
                continue
            raise cannot_listen(entrypoint, address, error) from error
        for name, one in zip(names[entrypoint], (door.waiting, door.serving), strict=True):
            notify(f"FDSTORE=1\nFDNAME={name}", one)
    wait_for_systemd()


def stored_doors(addresses: Addresses) -> dict[str, Door]:
    """The doors that systemd kept. Raises UserError for one that it does not have: the address is someone else's."""
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    count = int(os.environ["LISTEN_FDS"]) if os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
    descriptors = {names[number]: FIRST_FD + number for number in range(count)}
    for descriptor in descriptors.values():
        os.set_inheritable(descriptor, False)
    doors = {}
    for entrypoint, pair in descriptor_names(addresses).items():
        if not set(pair) <= descriptors.keys():
            in_use = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            raise cannot_listen(entrypoint, addresses[entrypoint], in_use)
        doors[entrypoint] = Door(*(socket.socket(fileno=descriptors[name]) for name in pair))
    return doors


def notify(message: str, *sockets: socket.socket) -> None:
    """Tell systemd something (sd_notify(3)); nothing happens where it does not run us."""
    _send(message, [one.fileno() for one in sockets])


def wait_for_systemd() -> None:
    """Return when systemd has done what it was told so far; it does not listen to a process that is gone."""
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        _send("BARRIER=1", [writing])
        os.close(writing)
        pipe.read()


def _send(message: str, descriptors: list[int]) -> None:
    if address := os.environ.get("NOTIFY_SOCKET"):
        if address.startswith("@"):  # unix(7), abstract
            address = "\0" + address[1:]
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as channel:
            channel.connect(address)
            socket.send_fds(channel, [message.encode()], descriptors)
