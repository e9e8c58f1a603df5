"""The hub keeps the port of a server that it has started on this machine until no route leads there.

A server that ends frees its port, and any account can have it before the hub has noticed. A socket of the hub's that is
bound to it, and does not listen, keeps others from listening. A hub that has been restarted since has none.
"""

import socket
from contextlib import suppress
from typing import Any

from traitlets import HasTraits, observe


class HoldsPort(HasTraits):
    """Part of a spawner whose servers run on this machine, at the address `ip`, and take their port from its `port`."""

    ip: Any
    _held: socket.socket | None = None

    @observe("port")
    def _hold_port(self, change: Any) -> None:
        self.free_port()
        if change.new:
            with suppress(OSError):  # the proxy looks who listens all the same: own_servers.py
                self._held = hold(self.ip or "127.0.0.1", change.new)

    def keep_port(self) -> None:
        """Let nobody else listen at the port: the server listens now, as servers do with SO_REUSEADDR."""
        if self._held:
            self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)

    def free_port(self) -> None:
        """Let anybody have the port."""
        if self._held:
            self._held.close()
            self._held = None


def hold(ip: str, port: int) -> socket.socket:
    """Bind a port so that a server still can. Raises OSError."""
    held = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((ip, port))
    except OSError:
        held.close()
        raise
    return held
