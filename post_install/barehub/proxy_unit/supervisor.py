"""The proxy unit's main process: traefik, and the doors in front of it while it is not ready.

    doors shut  ->  traefik starts and reads the hub's routes  ->  doors open  ->  stop, or traefik dies: doors shut

It runs without any privilege. `sockets` says what a door is. Whoever waited at one is relayed to traefik when
it opens, for as long as the connection lasts; for traefik such a client has an address of this machine. Everyone who
comes later is served by traefik itself.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from pathlib import Path

from barehub.errors import UserError
from barehub.layout import Layout
from barehub.proxy_unit.sockets import FIRST_FD, Door, make_doors, notify, read_addresses, stored_doors

API = "api"  # the entrypoint of traefik's API; BarehubProxy calls it so
LOADING = 10.0  # seconds until the doors open for a traefik that does not load the routes


def main() -> int:
    layout = Layout.from_environment()
    try:
        addresses = read_addresses(layout.static_config)
        # In the foreground, without systemd, the sockets are as short-lived as we are.
        doors = stored_doors(addresses) if "NOTIFY_SOCKET" in os.environ else make_doors(addresses)
        if API not in doors:
            raise UserError(f"{layout.static_config} has no entrypoint {API!r}", "restart the proxy")
    except UserError as error:
        print(f"error: {error}" + (f"\n  fix: {error.fix}" if error.fix else ""), file=sys.stderr)
        return 1
    api = doors.pop(API)
    api.open()  # traefik's API tells when the others may be
    for door in doors.values():
        door.shut()
    # What a traefik that died had not accepted yet must not reach this one too early.
    left = [connection for door in doors.values() for connection in accept_all(door.serving)]
    program = layout.hub / "bin/traefik"
    traefik = start_traefik(program, layout.static_config, {API: api, **doors})
    host = addresses[API].rpartition(":")[0]
    return asyncio.run(Supervisor(traefik, list(doors.values()), api, host, layout.rules_file).run(left))


def start_traefik(program: Path, static_config: Path, doors: dict[str, Door]) -> int:
    """Start traefik with the serving sockets as its entrypoints' (sd_listen_fds(3)). Returns its process id."""
    if child := os.fork():
        return child
    try:
        # First out of each other's way, then into place; all else is closed on exec.
        moved = [fcntl.fcntl(door.serving, fcntl.F_DUPFD_CLOEXEC, FIRST_FD + len(doors)) for door in doors.values()]
        for number, descriptor in enumerate(moved, FIRST_FD):
            os.dup2(descriptor, number)
        ours = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
        environment = {key: value for key, value in os.environ.items() if key not in ours} | {
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
    """One life of traefik. `host` is what its API must be asked for, the host of its address."""

    def __init__(self, traefik: int, doors: list[Door], api: Door, host: str, rules: Path) -> None:
        self.traefik = traefik
        self.doors = doors
        self.api = api
        self.host = host
        self.rules = rules
        self.serves = False  # traefik has the routes
        self.stopping = False
        self.relays: set[asyncio.Task[None]] = set()

    async def run(self, left: list[socket.socket]) -> int:
        """Serve until traefik ends. Returns the exit status: 0 if that was asked for."""
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
        serving, watching = asyncio.create_task(self.serve(left)), asyncio.create_task(self.watch())
        status = await ended
        serving.cancel()
        watching.cancel()
        self.shut()
        if self.relays:  # traefik's last words are still on their way
            await asyncio.wait(self.relays, timeout=1)
        if not self.stopping:
            print(f"error: traefik ended by itself, with status {status}", file=sys.stderr)
        return 0 if self.stopping else 1

    def stop(self) -> None:
        """Have traefik finish what it does, while new connections wait for the next one."""
        self.stopping = True
        notify("STOPPING=1")
        self.shut()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.traefik, signal.SIGTERM)

    def reload(self) -> None:
        """Have traefik read its rules again, and the certificate that they name. It ends on SIGHUP while it starts."""
        if self.serves:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.traefik, signal.SIGHUP)

    async def serve(self, left: list[socket.socket]) -> None:
        """Open the doors when traefik has the routes."""
        try:
            await asyncio.wait_for(self.loaded(), LOADING)
        except TimeoutError:
            print(f"error: traefik has not loaded {self.rules} in {LOADING:.0f} s and serves without", file=sys.stderr)
        self.serves = True
        for door in self.doors:
            door.open()
            # Not only now: the handshakes that have begun end up here as well.
            asyncio.get_running_loop().add_reader(door.waiting, self.relay_all, door.waiting)
        for client in left:
            self.relay(client)
        notify("READY=1")

    def shut(self) -> None:
        """Leave new connections where they wait, also for whoever comes after us."""
        for door in self.doors:
            door.shut()
            asyncio.get_running_loop().remove_reader(door.waiting)

    async def loaded(self) -> None:
        """Return when traefik has read the rules: its API asks for a password then, by a router that is in them.

        Before the hub has ever run there are none to wait for.
        """
        while (status := await self.ask()) is None or (status == 404 and self.rules.exists()):
            await asyncio.sleep(0.005)

    async def ask(self) -> int | None:
        """The status of traefik's API for a request without a password; None if it does not answer."""
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection(*self.api.serving.getsockname()[:2])
                with contextlib.closing(writer):
                    writer.write(f"GET /api/version HTTP/1.0\r\nHost: {self.host}\r\n\r\n".encode())
                    return int((await reader.readline()).split()[1])
        except (OSError, IndexError, ValueError):
            return None

    async def watch(self) -> None:
        """Tell systemd that traefik answers, twice in each WatchdogSec= (sd_watchdog_enabled(3))."""
        if interval := int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6:
            while True:
                started = time.monotonic()
                if await self.ask() is not None:
                    notify("WATCHDOG=1")
                await asyncio.sleep(max(0.0, interval - (time.monotonic() - started)))

    def relay_all(self, waiting: socket.socket) -> None:
        for client in accept_all(waiting):
            self.relay(client)

    def relay(self, client: socket.socket) -> None:
        task = asyncio.create_task(relay(client))
        self.relays.add(task)
        task.add_done_callback(self.relays.discard)


def accept_all(listener: socket.socket) -> list[socket.socket]:
    """The connections that wait on a listening socket."""
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


async def relay(client: socket.socket) -> None:
    """Be the wire between a client and traefik until both have ended."""
    from_client, to_client = await asyncio.open_connection(sock=client)
    with contextlib.closing(to_client), contextlib.suppress(OSError):
        server = socket.socket(client.family)
        server.setblocking(False)
        # To the address that the client has reached: the door is there, whatever it is bound to.
        await asyncio.get_running_loop().sock_connect(server, client.getsockname())
        from_traefik, to_traefik = await asyncio.open_connection(sock=server)
        with contextlib.closing(to_traefik):
            await asyncio.gather(copy(from_client, to_traefik), copy(from_traefik, to_client))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


if __name__ == "__main__":
    sys.exit(main())
