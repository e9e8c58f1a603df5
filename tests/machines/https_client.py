"""What browsers and their people say to a proxy that speaks HTTPS, without a browser."""

import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection

from cryptography import x509

from tests.machines.machine import Machine

NAME = "hub.example.org"  # what people call the machine


def connect(machine: Machine, context: ssl.SSLContext, name: str = NAME) -> ssl.SSLSocket:
    """A TLS connection to the proxy. It belongs to this thread, which must have been on the machine's network."""
    with machine.network():
        return context.wrap_socket(socket.create_connection(("127.0.0.1", 443), timeout=120), server_hostname=name)


def served(machine: Machine, name: str = NAME) -> x509.Certificate:
    """The certificate that the proxy shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connect(machine, context, name) as one:
        return x509.load_der_x509_certificate(one.getpeercert(binary_form=True))


@contextmanager
def visitors(machine: Machine, context: ssl.SSLContext) -> Iterator[Counter[str]]:
    """People who ask again and again meanwhile, over new connections and over one that lasts; what came of it."""
    seen, gone = Counter[str](), threading.Event()

    def visit(*, reconnect: bool) -> None:
        with machine.network():
            connection = HTTPSConnection(NAME, timeout=30, context=context)
            connection._create_connection = lambda *_, **__: socket.create_connection(("127.0.0.1", 443), timeout=120)
            while not gone.wait(0.005):
                try:
                    connection.request("GET", "/hub/health")
                    response = connection.getresponse()
                    response.read()
                    seen[str(response.status)] += 1
                except OSError as e:
                    seen[repr(e)] += 1
                if reconnect:
                    connection.close()

    threads = [threading.Thread(target=visit, kwargs={"reconnect": reconnect}) for reconnect in (True, True, False)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        gone.set()
        for thread in threads:
            thread.join()
