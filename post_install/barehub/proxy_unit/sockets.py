"""The proxy's listening sockets. Root makes them before the proxy starts, systemd keeps them, traefik accepts on them.

systemd has a file descriptor store for each unit (sd_pid_notify_with_fds(3)): its content outlives the unit's processes
until the unit is stopped. So a client that connects while traefik restarts waits in the kernel's queue, and none is
refused.

A new traefik accepts connections some tenths of a second before it has read the hub's routes, and answers them 404.
Until it has loaded its certificates, it shows clients one of its own. No client may reach it in that time. So each
address has a `Door`: two sockets that share it by SO_REUSEPORT, one for traefik and one to wait at, and a packet filter
that tells the kernel which of them gets a new connection. The filter can let the supervisor's own checks through.
"""

import array
import asyncio
import contextlib
import errno
import json
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barehub.errors import UserError

BACKLOG = 1024  # connections that can wait on a socket; beyond that clients are slowed down, not refused (listen(2))
SO_ATTACH_REUSEPORT_CBPF = 51  # asm-generic/socket.h; socket(7)
# linux/bpf_common.h and linux/filter.h. Offsets from SKF_NET_OFF, as u32, count from the IP header.
BPF_LD_WORD, BPF_LD_HALF, BPF_LD_BYTE = 0x20, 0x28, 0x30  # BPF_LD | BPF_ABS | ...
BPF_JEQ = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
BPF_RET = 0x06  # BPF_RET | BPF_K
SKF_NET_OFF = 0x1_0000_0000 - 0x100000
# To traefik, clients who waited at a door come from here, and not from an address that others have too: it believes no
# X-Forwarded-For from here, whatever networks it trusts (`static.trusted`). By IPv4, nobody but the supervisor reaches
# it from here (`Door.connection`), so it believes what the PROXY protocol says: the client's own address.
RELAYED = {socket.AF_INET: "127.66.97.114", socket.AF_INET6: "::1"}
WAITING, SERVING = 0, 1  # the sockets of a door, by the kernel's numbers
FIRST_FD = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)

Address = tuple[str, int]  # of a socket
Instruction = tuple[int, int, int, int]
Addresses = dict[str, str]  # entrypoint -> `[host]:port`, as traefik writes it


@dataclass
class Door:
    """One address to listen on. The kernel numbers the sockets that share it in the order of their listen(2)."""

    waiting: socket.socket
    serving: socket.socket
    is_open: bool = field(default=False, init=False)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)  # of those who use `connection`

    @classmethod
    def make(cls, address: str) -> "Door":
        """Listen on an address. Raises OSError if that is not possible.

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

    @property
    def address(self) -> Address:
        """Where this machine itself reaches the door: for all addresses, over IPv4's loopback."""
        host, port = self.serving.getsockname()[:2]
        return ("127.0.0.1" if host in ("::", "0.0.0.0") else host), port  # noqa: S104 - compared with, not bound to

    @property
    def family(self) -> socket.AddressFamily:
        """That of `address`: where a door takes both, IPv4."""
        return socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET

    @contextlib.contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """A socket for a connection to traefik that is relayed; in the block, connect it to `address`.

        It comes from RELAYED, from where by IPv4 nothing else reaches traefik. One at a time: take your `turn`. It gets
        through a shut door too: who was accepted while it was open is still served.
        """
        relayed = socket.socket(self.family)
        relayed.setblocking(False)
        relayed.bind((RELAYED[self.family], 0))
        port = relayed.getsockname()[1]
        self._filter(self._all_but_relayed(port) if self.is_open else only_from((RELAYED[self.family], port)))
        try:
            yield relayed
        finally:
            if self.is_open:
                self.open()
            else:  # perhaps meanwhile
                self.shut()

    def shut(self, admit: Address | None = None) -> None:
        """Let new connections wait from now on, except one from `admit`, an address and port of this machine."""
        self.is_open = False
        self._filter(only_from(admit) if admit else [(BPF_RET, 0, 0, WAITING)])

    def open(self) -> None:
        """Give new connections to traefik from now on."""
        self.is_open = True
        self._filter(self._all_but_relayed(0))

    def _all_but_relayed(self, port: int) -> list[Instruction]:
        return all_but_from(RELAYED[self.family], port) if self.family == socket.AF_INET else [(BPF_RET, 0, 0, SERVING)]

    @contextlib.contextmanager
    def probe(self) -> Iterator[socket.socket]:
        """A socket that reaches traefik through the shut door if it connects to `address`; nobody else's does."""
        with socket.socket(self.family) as client:
            client.setblocking(False)
            # From the address that it goes to: a packet of another machine cannot have that one.
            client.bind((self.address[0], 0))
            self.shut(admit=client.getsockname()[:2])
            try:
                yield client
            finally:
                self.shut()

    def _filter(self, instructions: list[Instruction]) -> None:
        """Let the kernel choose the socket of a new connection by this program's result (socket(7))."""
        # struct sock_filter { u16 code; u8 jt, jf; u32 k; }, struct sock_fprog { u16 len; struct sock_filter *filter; }
        # (linux/filter.h). Not by ctypes, whose import wants memory that is writable and executable, and the unit
        # forbids that.
        program = array.array("B", b"".join(struct.pack("=HBBI", *one) for one in instructions))
        pointer, _ = program.buffer_info()
        packed = struct.pack("@HP", len(instructions), pointer)
        self.serving.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, packed)


def only_from(address: Address) -> list[Instruction]:
    """Return a filter that gives a connection from this address and port to traefik and lets all others wait.

    It compares what the IP header says, then the TCP header's first field. A packet that is too short, or has options
    between the two, as none of this machine's has, is not that connection's.
    """
    host, port = address
    if ":" in host:
        (*source,) = struct.unpack("!4I", socket.inet_pton(socket.AF_INET6, host))
        begins, at, tcp = 0x60, 8, 40  # version 6 (RFC 8200, section 3)
    else:
        (*source,) = struct.unpack("!I", socket.inet_pton(socket.AF_INET, host))
        begins, at, tcp = 0x45, 12, 20  # version 4, a header of five words (RFC 791, section 3.1)
    expected = [(BPF_LD_BYTE, 0, begins), *((BPF_LD_WORD, at + 4 * n, word) for n, word in enumerate(source))]
    expected += [(BPF_LD_HALF, tcp, port)]
    instructions: list[Instruction] = []
    for number, (load, offset, value) in enumerate(expected):
        # If it differs: over all that is left and the other result.
        skip = 2 * (len(expected) - number - 1) + 1
        instructions += [(load, 0, 0, SKF_NET_OFF + offset), (BPF_JEQ, 0, skip, value)]
    return [*instructions, (BPF_RET, 0, 0, SERVING), (BPF_RET, 0, 0, WAITING)]


def all_but_from(host: str, port: int) -> list[Instruction]:
    """Return a filter that lets connections from an IPv4 address wait, but for one from this port; others pass.

    Options between the headers do not move the address; with them, it is not ours.
    """
    (source,) = struct.unpack("!I", socket.inet_pton(socket.AF_INET, host))
    return [
        (BPF_LD_WORD, 0, 0, SKF_NET_OFF + 12),
        (BPF_JEQ, 0, 4, source),
        (BPF_LD_BYTE, 0, 0, SKF_NET_OFF),
        (BPF_JEQ, 0, 3, 0x45),
        (BPF_LD_HALF, 0, 0, SKF_NET_OFF + 20),
        (BPF_JEQ, 0, 1, port),
        (BPF_RET, 0, 0, SERVING),
        (BPF_RET, 0, 0, WAITING),
    ]


def read_addresses(path: Path) -> Addresses:
    """Return the entrypoints in traefik's static configuration. Raises UserError if it is missing or damaged."""
    try:
        return addresses_of(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not tell where to listen: {error}", "restart the proxy") from error


def addresses_of(config: dict[str, Any]) -> Addresses:
    """Return the entrypoints in a static configuration."""
    addresses = {name: entrypoint["address"] for name, entrypoint in config["entryPoints"].items()}
    # Sockets for UDP are traefik's own business; the hub has none.
    return {name: text.removesuffix("/tcp") for name, text in addresses.items() if not text.endswith("/udp")}


def resolve(address: str) -> tuple[int, tuple[str, int]]:
    """Return family, host and port of an entrypoint's address. Raises OSError if its name or port is unknown."""
    host, _, port = address.rpartition(":")
    if not host:
        host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - what `:8000` means
    family, _, _, _, found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    return family, (str(found[0]), int(found[1]))


def make_doors(addresses: Addresses) -> dict[str, Door]:
    """Return a new door for each entrypoint. Raises UserError if an address cannot be had."""
    doors = {}
    for entrypoint, address in addresses.items():
        try:
            doors[entrypoint] = Door.make(address)
        except OSError as error:
            raise cannot_listen(entrypoint, address, error) from error
    return doors


def cannot_listen(entrypoint: str, address: str, error: OSError) -> UserError:
    # Not str(error): create_server() adds words of its own. A name that is not found has a negative errno.
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    fix = "give it an address of this machine"
    if error.errno == errno.EADDRINUSE:
        fix = f"see who has it, `ss -ltnp sport = :{address.rpartition(':')[2]}`, or choose another port"
    return UserError(f"cannot listen on {address} (entrypoint {entrypoint}): {reason}", fix)


# systemd


def descriptor_names(addresses: Addresses) -> dict[str, tuple[str, str]]:
    """Return systemd's names for an entrypoint's two sockets. A colon would separate names (sd_listen_fds(3))."""

    def name(which: str, entrypoint: str, address: str) -> str:
        return f"{entrypoint} {address} {which}".replace(":", "|")

    return {one: (name("waiting", one, where), name("serving", one, where)) for one, where in addresses.items()}


def store_doors(addresses: Addresses, before: Addresses) -> None:
    """Let systemd keep a door for each entrypoint, and forget those of addresses that are no longer wanted.

    For a process of the unit that runs before the one that calls `stored_doors`. Raises UserError if an address cannot
    be had. One that was wanted before and is in use is left alone: as a rule systemd keeps its door already.
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
    """Return the doors that systemd kept. Raises UserError for one that it does not have: its address is in use."""
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
    """Send systemd a message (sd_notify(3)); without systemd, do nothing."""
    _send(message, [one.fileno() for one in sockets])


def wait_for_systemd() -> None:
    """Return when systemd has processed all messages so far; it ignores those of a process that has ended."""
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
