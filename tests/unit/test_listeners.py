"""barehub.listeners: who has a port, and who is believed."""

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub import health, listeners
from barehub.accounts import current_user
from barehub.lifecycle.servers import Api
from barehub.listeners import Listener, Owner

from tests.unit.installations import answering, fake_command

US = Owner("barehub-hub.service", current_user())
NOBODY = 65534


@contextlib.contextmanager
def thief(host: str) -> Iterator[tuple[int, list[bytes]]]:
    """A listener of another account, which answers as the hub would; its port, and what it is sent."""
    got: list[bytes] = []

    def serve() -> None:
        while b"last" not in got:
            client, _ = server.accept()
            with client:
                got.append(client.recv(4096))
                client.sendall(b"HTTP/1.0 200 OK\r\n\r\n{}")

    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        if os.geteuid() == 0:
            os.fchown(server.fileno(), NOBODY, NOBODY)  # to the kernel it is that account's from now on
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], got
        finally:
            with socket.create_connection(server.getsockname()[:2]) as last:
                last.sendall(b"last")
            thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_thief_gets_no_token_and_is_not_believed(host: str) -> None:
    owner = US if os.geteuid() == 0 else Owner(US.unit, "root")  # without root the thief is of our account
    with thief(host) as (port, got):
        url = f"http://[{host}]:{port}/hub/" if ":" in host else f"http://{host}:{port}/hub/"
        assert health.answer(f"{url}health", owner) is None
        assert Api(f"{url}api/", "secret", owner).version() is None
        assert health.stranger_at(url, owner)
    assert got == [b"last"]


def test_the_hub_is_believed_whatever_it_listens_at() -> None:
    for family, host, ask in (
        (socket.AF_INET, "127.0.0.1", "localhost"), (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
        (socket.AF_INET6, "::", "127.0.0.1"), (socket.AF_INET6, "::1", "::1"),
    ):  # fmt: skip
        with socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::") as server:
            port = server.getsockname()[1]
            assert US.listens(ask, port), host
    assert not US.listens(ask, port)  # nobody does
    assert US.stranger(ask, port) is None


def test_another_address_of_the_port_is_another_listeners() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        assert list(listeners.listeners("127.0.0.1", server.getsockname()[1])) == []
        assert [one.uid for one in listeners.listeners("127.0.0.2", server.getsockname()[1])] == [os.geteuid()]


def test_another_service_of_the_same_account_is_not_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        fake_command(tmp_path / "bin", "systemctl", f"echo {other.pid}", monkeypatch)
        with answering({"/hub/health": {}}) as port:
            assert health.answer(f"http://127.0.0.1:{port}/hub/health", US) is None
            assert health.stranger_at(f"http://127.0.0.1:{port}/", US) == current_user()
            fake_command(tmp_path / "bin", "systemctl", f"echo {os.getpid()}", monkeypatch)
            assert health.answer(f"http://127.0.0.1:{port}/hub/health", US) == 200
            fake_command(tmp_path / "bin", "systemctl", f"echo {os.getppid()}", monkeypatch)  # a site's wrapper
            assert health.answer(f"http://127.0.0.1:{port}/hub/health", US) == 200
        other.kill()


def test_a_socket_for_ipv6_alone_is_nobody_in_the_place_of_an_ipv4_hub() -> None:
    """Anybody may listen so at a port that the hub has at 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as hub, socket.socket(socket.AF_INET6) as other:
        port = hub.getsockname()[1]
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::", port))
        other.listen()
        assert len(list(listeners.listeners("127.0.0.1", port))) == 1
        assert len(list(listeners.listeners("::1", port))) == 1


def test_one_that_came_between_the_look_and_the_connection_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([True, False])
    monkeypatch.setattr(Owner, "listens", lambda *_: next(looks))
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepting = threading.Thread(target=lambda: got.append(server.accept()[0].recv(100)))
        accepting.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert health.ask(url, US, {"Authorization": "token secret"}) == (None, b"")
        accepting.join()
    assert got == [b""]


def test_accounts_and_ports_that_are_not_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Listener(4294967294, 0).account == "user id 4294967294"
    assert listeners.user_id("4294967294") == 4294967294  # a container with an arbitrary user id
    assert listeners.user_id("no such account") is None
    assert list(listeners.listeners("no.such.host.invalid", 80)) == []
    monkeypatch.setattr(listeners, "UNPRIVILEGED", tmp_path / "start")
    assert [listeners.anyone_may_listen(port) for port in (334, 1023, 1024, 8081)] == [False, False, True, True]
    (tmp_path / "start").write_text("0\n")  # as in a container
    assert listeners.anyone_may_listen(334)
