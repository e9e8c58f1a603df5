"""barehub.listeners: who has a port. Other accounts are child processes, which only root can start."""

import contextlib
import os
import socket
import subprocess
import sys
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
# Takes a port of 127.0.0.1 or ::1, says which, and writes down all that it is sent.
THIEF = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
thief = socket.create_server((sys.argv[1], 0), family=family)
print(thief.getsockname()[1], flush=True)
while True:
    client, _ = thief.accept()
    print(client.recv(4096), flush=True)
    client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n{}")
    client.close()
"""


@contextlib.contextmanager
def thief(host: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Another account that listens, and answers as the hub would; its port and process."""
    account = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    words = [sys.executable, "-I", "-c", THIEF, host]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd="/", **account) as process:  # type: ignore[call-overload]
        assert process.stdout
        try:
            yield int(process.stdout.readline()), process
        finally:
            process.kill()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_thief_gets_no_token_and_is_not_believed(host: str) -> None:
    owner = US if os.geteuid() == 0 else Owner(US.unit, "root")  # without root the thief is of our account
    with thief(host) as (port, process):
        url = f"http://[{host}]:{port}/hub/" if ":" in host else f"http://{host}:{port}/hub/"
        assert health.answer(f"{url}health", owner) is None
        assert Api(f"{url}api/", "secret", owner).version() is None
        assert health.stranger_at(url, owner)
        with socket.create_connection((host, port)) as last:  # it has accepted nobody before this one
            last.sendall(b"last")
            assert process.stdout
            assert process.stdout.readline() == "b'last'\n"


def test_the_hub_is_believed_whatever_it_listens_at() -> None:
    for family, host, ask in (
        (socket.AF_INET, "127.0.0.1", "localhost"), (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
        (socket.AF_INET6, "::", "127.0.0.1"), (socket.AF_INET6, "::1", "::1"),
    ):  # fmt: skip
        with socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::") as server:
            assert US.listens(ask, server.getsockname()[1]), host
    assert not US.listens("127.0.0.1", server.getsockname()[1])  # nobody does
    assert US.stranger("127.0.0.1", server.getsockname()[1]) is None


def test_another_address_of_the_port_is_another_listeners() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        assert list(listeners.listeners("127.0.0.1", server.getsockname()[1])) == []
        assert [one.uid for one in listeners.listeners("127.0.0.2", server.getsockname()[1])] == [os.geteuid()]


def test_another_service_of_the_same_account_is_not_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "infinity"]) as other:
        fake_command(tmp_path / "bin", "systemctl", f"echo {other.pid}", monkeypatch)
        with answering({"/hub/health": {}}) as port:
            assert health.answer(f"http://127.0.0.1:{port}/hub/health", US) is None
            assert health.stranger_at(f"http://127.0.0.1:{port}/", US) == current_user()
            fake_command(tmp_path / "bin", "systemctl", f"echo {os.getpid()}", monkeypatch)
            assert health.answer(f"http://127.0.0.1:{port}/hub/health", US) == 200
        other.kill()


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
