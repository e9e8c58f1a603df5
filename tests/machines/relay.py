"""A server that falls silent: a relay to a real one, which passes on some of its answers and no more."""

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def relay(address: str, port: int, target: tuple[str, int], answers: int) -> Iterator[int]:
    """Listen at `address` and `port`, 0 for any; the port. The first `answers` pieces of all that `target` says go on.

    Everything happens on the network that the calling thread is on.
    """
    with socket.create_server((address, port)) as listening, contextlib.ExitStack() as connections:
        left = iter(range(answers))
        threading.Thread(target=accept, args=(listening, target, left, connections), daemon=True).start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)


def accept(
    listening: socket.socket, target: tuple[str, int], left: Iterator[int], connections: contextlib.ExitStack
) -> None:
    """Connect whoever comes, until `listening` is closed; what stays open is for `connections` to close."""
    with contextlib.suppress(OSError):
        while True:
            here, there = listening.accept()[0], socket.create_connection(target)
            for one in (here, there):
                connections.callback(one.close)
            threading.Thread(target=copy, args=(here, there, None), daemon=True).start()
            threading.Thread(target=copy, args=(there, here, left), daemon=True).start()


def copy(source: socket.socket, sink: socket.socket, left: Iterator[int] | None) -> None:
    """Pass on what `source` says; with `left`, as long as that has elements."""
    with contextlib.suppress(OSError):
        while (piece := source.recv(65536)) and (left is None or next(left, None) is not None):
            sink.sendall(piece)
