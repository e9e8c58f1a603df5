"""A stand-in for traefik, which does what files say. It is started as traefik is: by the supervisor, with sockets.

    BASE/NAME    the status that it answers at the entrypoint NAME; without the file it does not answer

It writes down the requests at each entrypoint in BASE/NAME.asked, and creates BASE/reloaded on SIGHUP. On SIGTERM it
ends once BASE/end exists.
"""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

BASE = Path(sys.argv[1].removeprefix("--configfile=")).parents[2]


def serve(name: str, listener: socket.socket) -> None:
    listener.setblocking(True)
    while True:
        client, _ = listener.accept()
        with client, (BASE / f"{name}.asked").open("a") as asked:
            asked.write(client.recv(4096).decode(errors="replace").partition("\r\n")[0] + "\n")
            asked.flush()
            if (BASE / name).exists():
                client.sendall(f"HTTP/1.0 {(BASE / name).read_text()} X\r\n\r\n".encode())


def end(*_: object) -> None:
    while not (BASE / "end").exists():
        time.sleep(0.01)
    os._exit(0)


signal.signal(signal.SIGHUP, lambda *_: (BASE / "reloaded").touch())
signal.signal(signal.SIGTERM, end)
for number, entrypoint in enumerate(os.environ["LISTEN_FDNAMES"].split(":"), 3):
    threading.Thread(target=serve, args=(entrypoint, socket.socket(fileno=number)), daemon=True).start()
while True:
    signal.pause()
