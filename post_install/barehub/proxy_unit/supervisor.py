"""The proxy unit's main process: traefik, and the doors in front of it while it is not ready.

    doors shut  ->  traefik starts, loads routes and certificates  ->  doors open  ->  stop, or traefik dies: doors shut

It runs without any privilege. `sockets` explains doors, `readiness` what is checked before they open. A client that
waited at a door is relayed to traefik once it opens, for as long as the connection lasts, after a line that tells the
client's address (`proxy_line`). traefik accepts the connections of later clients itself.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

from barehub.errors import UserError, render
from barehub.layout import Layout
from barehub.proxy_unit.readiness import API, Readiness
from barehub.proxy_unit.sockets import FIRST_FD, Door, make_doors, notify, read_addresses, stored_doors

LOADING = 10.0  # seconds until the doors open for a traefik that is not ready


def main() -> int:
    layout = Layout.from_environment()
    try:
        addresses = read_addresses(layout.static_config)
        # In the foreground, without systemd, the sockets are as short-lived as we are.
        doors = stored_doors(addresses) if "NOTIFY_SOCKET" in os.environ else make_doors(addresses)
        if API not in doors:
            raise UserError(f"{layout.static_config} has no entrypoint {API!r}", "restart the proxy")
    except UserError as error:
        print(render(error), file=sys.stderr)
        return 1
    api = doors.pop(API)
    api.open()  # traefik's API tells when the others may open
    for door in doors.values():
        door.shut()
    # A connection that a traefik left unaccepted when it died must not reach this one too early.
    left = [(door, connection) for door in doors.values() for connection in accept_all(door.serving)]
    config = json.loads(layout.static_config.read_text())
    readiness = Readiness(layout, config, api, doors)
    traefik = start_traefik(layout.hub / "bin/traefik", layout.static_config, {API: api, **doors})
    # Not where the last valid configuration is another release's, and traefik would take that line for a request.
    told = [door for name, door in doors.items() if "proxyProtocol" in config["entryPoints"][name]]
    return asyncio.run(Supervisor(traefik, list(doors.values()), readiness, told).run(left))


def environment_of_traefik(static_config: str) -> dict[str, str]:
    """Return what traefik gets of the unit's environment, which systemd's DefaultEnvironment= is part of.

    Not the site's web proxy: traefik would ask it for the hub and for servers on other machines. These are reached over
    HTTP; only an ACME server and a DNS provider are asked over HTTPS.
    """
    dropped = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "HTTP_PROXY"]
    if "certificatesResolvers" not in static_config:
        dropped += ["HTTPS_PROXY"]
    return {key: value for key, value in os.environ.items() if key.upper() not in dropped}


def start_traefik(program: Path, static_config: Path, doors: dict[str, Door]) -> int:
    """Start traefik with the serving sockets for its entrypoints (sd_listen_fds(3)). Returns its process id."""
    if child := os.fork():
        return child
    try:
        # First out of each other's way, then into place; all else is closed on exec.
        moved = [fcntl.fcntl(door.serving, fcntl.F_DUPFD_CLOEXEC, FIRST_FD + len(doors)) for door in doors.values()]
        for number, descriptor in enumerate(moved, FIRST_FD):
            os.dup2(descriptor, number)
        environment = environment_of_traefik(static_config.read_text()) | {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(doors)),
            "LISTEN_FDNAMES": ":".join(doors),
        }
        os.execve(program, [str(program), f"--configfile={static_config}"], environment)
    except BaseException as error:
        print(f"error: cannot start {program}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(1)


class Supervisor:
    """One life of traefik."""

    def __init__(self, traefik: int, doors: list[Door], readiness: Readiness, told: list[Door]) -> None:
        self.traefik = traefik
        self.doors = doors
        self.readiness = readiness
        self.told = told  # doors where traefik expects to be told the addresses of relayed clients
        self.serving: asyncio.Task[None] | None = None
        self.reloadable = False  # traefik has read its rules
        self.reload_due = False
        self.stopping = False
        self.relays: set[asyncio.Task[None]] = set()

    async def run(self, left: list[tuple[Door, socket.socket]]) -> int:
        """Serve until traefik ends. Returns the exit status: 0 after a stop that was requested."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()

        def reap() -> None:
            if not ended.done():
                pid, status = os.waitpid(self.traefik, os.WNOHANG)
                if pid:
                    ended.set_result(os.waitstatus_to_exitcode(status))

        loop.add_signal_handler(signal.SIGCHLD, reap)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        reap()  # it may have ended before there was a handler
        self.serving, watching = asyncio.create_task(self.serve(left)), asyncio.create_task(self.watch())
        status = await ended
        watching.cancel()
        self.shut()
        if self.relays:  # traefik's last answers are still on their way
            await asyncio.wait(self.relays, timeout=1)
        if not self.stopping:
            print(f"error: traefik ended by itself, with status {status}", file=sys.stderr)
        return 0 if self.stopping else 1

    def stop(self) -> None:
        """Let traefik finish its requests, while new connections wait for the next one."""
        self.stopping = True
        notify("STOPPING=1")
        self.shut()
        self.kill(signal.SIGTERM)

    def reload(self) -> None:
        """Let traefik read its rules, and the certificate that they name, again.

        SIGHUP would end a traefik that still starts: it gets it later.
        """
        self.reload_due = not self.reloadable
        if self.reloadable:
            self.kill(signal.SIGHUP)

    def kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.traefik, number)

    async def serve(self, left: list[tuple[Door, socket.socket]]) -> None:
        """Open the doors when traefik is ready, or when that takes too long."""
        try:
            async with asyncio.timeout(LOADING):
                has_rules = await self.readiness.wait_for_routes()
                self.reloadable = True
                if self.reload_due and has_rules:
                    self.reload()
                if self.readiness.needs_hub:
                    notify("READY=1")  # the hub starts after this unit has
                await self.readiness.wait_for_doors()
        except TimeoutError:
            print(f"{self.readiness.problem()} after {LOADING:.0f} s; the doors open nevertheless", file=sys.stderr)
        except Exception:
            traceback.print_exc()  # a check that is broken must not keep users out
        self.reloadable = True
        for door in self.doors:
            door.open()
            # Not only now: the handshakes that have begun end up here as well.
            asyncio.get_running_loop().add_reader(door.waiting, self.relay_all, door)
        for door, client in left:
            self.relay(door, client)
        notify("READY=1")

    def shut(self) -> None:
        """Leave new connections where they wait, also for the next supervisor. The doors do not open any more."""
        if self.serving:
            self.serving.cancel()
        for door in self.doors:
            door.shut()
            asyncio.get_running_loop().remove_reader(door.waiting)

    async def watch(self) -> None:
        """Tell systemd that traefik answers, twice in each WatchdogSec= (sd_watchdog_enabled(3))."""
        if interval := int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6:
            while True:
                started = time.monotonic()
                if await self.readiness.ask() is not None:
                    notify("WATCHDOG=1")
                await asyncio.sleep(max(0.0, interval - (time.monotonic() - started)))

    def relay_all(self, door: Door) -> None:
        for client in accept_all(door.waiting):
            self.relay(door, client)

    def relay(self, door: Door, client: socket.socket) -> None:
        task = asyncio.create_task(relay(door, client, tell=door in self.told))
        self.relays.add(task)
        task.add_done_callback(self.relays.discard)


def accept_all(listener: socket.socket) -> list[socket.socket]:
    """Accept and return the connections that wait on a listening socket."""
    listener.setblocking(False)
    accepted = []
    with contextlib.suppress(BlockingIOError):
        while True:
            with contextlib.suppress(ConnectionAbortedError):
                client, _ = listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # as traefik does
                accepted.append(client)
    return accepted


async def relay(door: Door, client: socket.socket, *, tell: bool) -> None:
    """Copy data between a client and traefik in both directions until both have ended; `tell` traefik its address."""
    from_client, to_client = await asyncio.open_connection(sock=client)
    with contextlib.closing(to_client), contextlib.suppress(OSError):
        line = proxy_line(client) if tell else b""
        async with door.turn:
            with door.connection() as server:
                await asyncio.get_running_loop().sock_connect(server, door.address)
        from_traefik, to_traefik = await asyncio.open_connection(sock=server)
        with contextlib.closing(to_traefik):
            to_traefik.write(line)
            await asyncio.gather(copy(from_client, to_traefik), copy(from_traefik, to_client))


def proxy_line(client: socket.socket) -> bytes:
    """Return what the PROXY protocol, version 1, says of a connection before its first byte. Raises OSError.

    https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt
    """
    ends = client.getpeername(), client.getsockname()
    hosts = [str(end[0]).partition("%")[0].removeprefix("::ffff:") for end in ends]
    family = "TCP6" if ":" in hosts[0] else "TCP4"
    return f"PROXY {family} {' '.join(hosts)} {ends[0][1]} {ends[1][1]}\r\n".encode()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


if __name__ == "__main__":
    sys.exit(main())
