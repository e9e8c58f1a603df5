"""The supervisor with a real traefik: restarts, crashes, its own addresses, and what systemd is told."""

import contextlib
import http.client
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub.proxy_unit.supervisor import environment_of_traefik

from tests.unit import proxies
from tests.unit.proxies import answers, free_port, get, named_server, wait_until
from tests.unit.supervised import Place, Systemd, place_in, visitors


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as new:
        yield new


def test_nobody_notices_a_restart(place: Place) -> None:
    with named_server("hub") as hub:
        place.write_rules(hub)
        place.systemd.start()
        place.systemd.wait_until_ready()
        with visitors(lambda: get(place.web)) as crowd:
            for _ in range(4):
                crowd.wait_for_more()
                assert place.systemd.stop() == 0
                place.systemd.start()
                place.systemd.wait_until_ready()
    assert set(crowd.got) == {(200, "hub")}, crowd.got


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_what_is_behind_the_proxy_is_reached_directly(place: Place, name: str) -> None:
    """DefaultEnvironment= of systemd may have a web proxy. Go asks none for 127.0.0.1, but for any other address."""
    with named_server("hub") as hub:
        place.write_rules(hub.replace("127.0.0.1", "0.0.0.0"))
        place.systemd.start(**{name: "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"})
        place.systemd.wait_until_ready()
        assert get(place.web) == (200, "hub")


def test_a_web_proxy_is_for_acme_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "no_proxy", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "x")
    with_acme = environment_of_traefik('{"certificatesResolvers": {}}')
    assert (with_acme["HTTPS_PROXY"], with_acme["no_proxy"]) == ("x", "x")
    assert not {"http_proxy", "NOTIFY_SOCKET"} & with_acme.keys()
    assert "HTTPS_PROXY" not in environment_of_traefik("{}")


def test_a_crash_refuses_nobody_and_nobody_gets_a_404(place: Place) -> None:
    with named_server("hub") as hub:
        place.write_rules(hub)
        place.systemd.start()
        place.systemd.wait_until_ready()
        answered = 0  # at most, at the moments of the crashes
        with visitors(lambda: get(place.web)) as crowd:
            for _ in range(3):
                crowd.wait_for_more()
                served = crowd.got.total()
                place.systemd.crash()
                answered += len(crowd.come_in) - served
                place.systemd.start()
                place.systemd.wait_until_ready()
    # What was being answered when traefik died is lost, and nothing else.
    cut_off = {ConnectionResetError, http.client.RemoteDisconnected, http.client.IncompleteRead}
    assert set(crowd.got) <= {(200, "hub"), *cut_off}, crowd.got
    assert sum(crowd.got[one] for one in cut_off) <= answered
    assert crowd.got[(200, "hub")] > 50


def test_it_is_ready_before_there_are_any_rules(place: Place) -> None:
    place.systemd.start()
    place.systemd.wait_until_ready()
    assert get(place.web)[0] == 404


def test_rules_that_cannot_be_loaded_do_not_shut_the_door_for_ever(place: Place) -> None:
    (place.base / "state/rules/rules.yaml").write_text('{"http": {"rou')
    place.systemd.start(LOADING="0.5")
    place.systemd.wait_until_ready()
    assert get(place.web)[0] == 404
    place.systemd.stop()
    assert "has not loaded" in place.systemd.complaints()


def test_a_traefik_that_dies_is_an_error(place: Place) -> None:
    place.systemd.start()
    place.systemd.wait_until_ready()
    os.kill(place.systemd.traefik(), signal.SIGKILL)
    assert place.systemd.main.wait(timeout=120) == 1
    assert "traefik ended by itself, with status -9" in place.systemd.complaints()


def test_an_address_that_is_taken_is_named(place: Place) -> None:
    with socket.create_server(("127.0.0.1", place.web)):
        place.systemd.start()
        assert place.systemd.main.wait(timeout=120) == 1
    assert f"error: cannot listen on 127.0.0.1:{place.web} (entrypoint web): Address already in use" in (
        place.systemd.complaints()
    )


def test_another_installation_cannot_share_an_address(place: Place, tmp_path: Path) -> None:
    place.systemd.start()
    place.systemd.wait_until_ready()
    other = Systemd(proxies.make_base(tmp_path / "other"), tmp_path / "notify2")
    proxies.static_config(other.base, web=f"127.0.0.1:{place.web}", api=f"127.0.0.1:{free_port()}")
    other.start()
    assert other.main.wait(timeout=120) == 1
    other.end()


def test_a_changed_address_frees_the_old_one(place: Place) -> None:
    place.systemd.start()
    place.systemd.wait_until_ready()
    place.systemd.stop()
    before, place.web = place.web, free_port()
    proxies.static_config(place.base, web=f"127.0.0.1:{place.web}", api=f"127.0.0.1:{place.api}")
    place.systemd.prepare(web=f"127.0.0.1:{before}", api=f"127.0.0.1:{place.api}")
    assert not answers(before)
    place.systemd.start()
    place.systemd.wait_until_ready()
    assert get(place.web)[0] == 404
    assert len(place.systemd.store) == 4


def test_systemd_is_told_while_traefik_answers(place: Place) -> None:
    place.systemd.start(WATCHDOG_USEC="200000")
    place.systemd.wait_until_ready()
    wait_until(lambda: place.systemd.messages.count("WATCHDOG=1") > 2)
    traefik = place.systemd.traefik()
    os.kill(traefik, signal.SIGSTOP)
    wait_until(lambda: all(" (stopped)" in task.read_text() for task in Path(f"/proc/{traefik}/task").glob("*/status")))
    try:
        assert get_nothing(place.web)  # by now what was on its way to systemd is there
        place.systemd.messages.clear()
        assert get_nothing(place.web)
        assert "WATCHDOG=1" not in place.systemd.messages
    finally:
        os.kill(traefik, signal.SIGCONT)


def get_nothing(port: int) -> bool:
    """True if a request is not answered in a second."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            return not client.recv(1)
    return True


def test_traefik_itself_cannot_talk_to_systemd(place: Place) -> None:
    place.systemd.start(WATCHDOG_USEC="60000000")
    place.systemd.wait_until_ready()
    environment = Path(f"/proc/{place.systemd.traefik()}/environ").read_text()
    assert "NOTIFY_SOCKET" not in environment
    assert "WATCHDOG" not in environment
    assert not [name for name in place.systemd.messages if name.startswith("FDSTORE")]


def test_it_runs_without_systemd(place: Place) -> None:
    with named_server("hub") as hub:
        place.write_rules(hub)
        with proxies.running(
            sys.executable, "-m", "barehub.proxy_unit.supervisor", BAREHUB_BASE=str(place.base)
        ) as process:
            wait_until(lambda: answers(place.web))
            assert get(place.web) == (200, "hub")
            process.terminate()
            assert process.wait(timeout=120) == 0
    assert not answers(place.web)
