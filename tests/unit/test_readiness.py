"""What a door promises once it is open: with a real traefik, and with one that is ready when the test says so."""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from barehub.rules import READY

from tests.machines.authority import authority, issue
from tests.unit import proxies
from tests.unit.proxies import busy_machine, get, get_by_tls, named_server, wait_until
from tests.unit.supervised import Place, place_in, regulars

STAND_IN = Path(__file__).with_name("stand_in.py")
Load = Callable[[], contextlib.AbstractContextManager[None]]

NAME = "hub.example.org"
ROOT = authority()
PAIR, RENEWED = issue(ROOT, NAME), issue(ROOT, NAME)
OTHER = issue(ROOT, "other.example.org")
MANY = [issue(ROOT, f"n{number}.example.org") for number in range(300)]  # of which traefik needs a while to load


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as new:
        yield new


@pytest.fixture
def slow(place: Place) -> Iterator[Place]:
    """A place whose traefik does what the test's files say."""
    (place.base / "hub/bin/traefik").unlink()
    (place.base / "hub/bin/traefik").write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
    (place.base / "hub/bin/traefik").chmod(0o755)
    yield place
    (place.base / "end").touch()


@pytest.mark.parametrize(
    ("acme", "load"), [(True, contextlib.nullcontext), (True, busy_machine), (False, contextlib.nullcontext)]
)
def test_nobody_ever_sees_the_certificate_that_traefik_makes_itself(place: Place, acme: bool, load: Load) -> None:
    proxies.serve_https(place.base, NAME, acme=acme)
    place.write_certificate(PAIR)
    proxies.write_store(place.base, PAIR, *MANY)
    with named_server("hub") as hub, load():
        place.write_rules(hub, certificate=None if acme else place.certificate)
        place.systemd.start()
        with regulars(lambda: get_by_tls(place.web, NAME)) as few:
            place.systemd.wait_until_ready()
            for _ in range(3):
                few.wait_for_more()
                assert place.systemd.stop() == 0
                assert not place.systemd.complaints()
                place.systemd.start()
                place.systemd.wait_until_ready()
            few.wait_for_more()
    assert set(few.got) == {(200, PAIR.serial)}, few.got


@pytest.mark.parametrize("stored", [(), (OTHER,)])
def test_the_doors_open_at_once_for_the_challenge_of_a_first_certificate(place: Place, stored: tuple) -> None:
    proxies.serve_https(place.base, NAME, acme=True)
    proxies.write_store(place.base, *stored)
    with named_server("hub") as hub:
        place.write_rules(hub)
        place.systemd.start()
        place.systemd.wait_until_ready()
        status, serial = get_by_tls(place.web, NAME)
    assert status == 200
    assert serial != OTHER.serial
    place.systemd.stop()
    assert "nevertheless" not in place.systemd.complaints()


@pytest.mark.parametrize("acme", [True, False])
def test_a_certificate_that_is_never_served_is_told_and_stops_nobody(place: Place, acme: bool) -> None:
    proxies.serve_https(place.base, NAME, acme=acme)
    place.write_certificate(PAIR)
    other = place.base / "other.pem"
    other.write_text(OTHER.cert + OTHER.key)
    proxies.write_store(place.base, PAIR)
    store = place.base / "state/acme/acme.json"
    store.write_text(store.read_text().replace('"key": "', '"key": "AAAA'))  # traefik cannot use it
    with named_server("hub") as hub:
        place.write_rules(hub, certificate=None if acme else other)
        place.systemd.start(LOADING="2")
        place.systemd.wait_until_ready()
        assert get_by_tls(place.web, NAME)[0] == 200
    place.systemd.stop()
    served = "by TRAEFIK DEFAULT CERT" if acme else "other.example.org, by Test Authority"
    told = place.systemd.complaints()
    assert "warning: traefik serves the certificate " in told
    assert served in told
    assert f" for {NAME} instead of the one in {store if acme else place.certificate} after 2 s" in told


def test_the_hub_can_start_and_name_the_certificate_while_the_doors_are_shut(place: Place) -> None:
    proxies.serve_https(place.base, NAME, acme=False)
    place.write_certificate(PAIR)
    got = []
    place.systemd.start()
    early = threading.Thread(target=lambda: got.append(get_by_tls(place.web, NAME)))
    early.start()
    place.systemd.wait_until_ready()  # for which the hub's unit waits
    with named_server("hub") as hub:
        place.write_rules(hub, certificate=place.certificate)
        early.join()
    assert got == [(200, PAIR.serial)]


def test_each_door_has_its_routes_when_it_opens(slow: Place) -> None:
    slow.write_rules("http://127.0.0.1:9")
    (slow.base / "api").write_text("401")
    (slow.base / "web").write_text("404")
    slow.systemd.start()
    got = []
    early = threading.Thread(target=lambda: got.append(get(slow.web)[0]))
    early.start()
    wait_until(lambda: asked(slow, "web").count(f"GET /{READY} HTTP/1.0") > 2)
    assert "READY=1" not in slow.systemd.messages
    assert not got
    (slow.base / "web").write_text("418")
    slow.systemd.wait_until_ready()
    early.join()
    assert got == [418]


def asked(place: Place, entrypoint: str) -> list[str]:
    """The requests that the stand-in has got."""
    path = place.base / f"{entrypoint}.asked"
    return path.read_text().splitlines() if path.exists() else []


def test_http_is_redirected_when_the_door_opens(slow: Place) -> None:
    config = slow.base / "state/proxy/traefik.yaml"
    entrypoints = json.loads(config.read_text())["entryPoints"]
    entrypoints["web"]["http"] = {"redirections": {"entryPoint": {"to": "https"}}}
    config.write_text(json.dumps({"entryPoints": entrypoints}))
    for name in ("api", "web"):  # there are no rules yet
        (slow.base / name).write_text("404")
    slow.systemd.start()
    wait_until(lambda: asked(slow, "web").count("GET / HTTP/1.0") > 2)
    assert "READY=1" not in slow.systemd.messages
    (slow.base / "web").write_text("301")
    slow.systemd.wait_until_ready()


@pytest.mark.parametrize(
    ("http", "rules", "what"),
    [
        ({}, True, f"error: traefik does not answer /{READY} at the entrypoint web after 1 s"),
        ({"redirections": {}}, False, "error: traefik does not answer / at the entrypoint web after 1 s"),
        (
            {"tls": {"domains": [{"main": NAME}]}},
            True,
            f"warning: traefik does not serve the certificate for {NAME} in ",
        ),
    ],
)
def test_a_door_opens_without_what_it_promises_after_a_while_and_the_journal_says_what(
    slow: Place, http: dict, rules: bool, what: str
) -> None:
    config = slow.base / "state/proxy/traefik.yaml"
    entrypoints = json.loads(config.read_text())["entryPoints"]
    entrypoints["web"]["http"] = http
    config.write_text(json.dumps({"entryPoints": entrypoints}))
    slow.write_certificate(PAIR)
    if rules:
        slow.write_rules("http://127.0.0.1:9", certificate=slow.certificate)
    (slow.base / "api").write_text("401")
    (slow.base / "web").write_text("404")
    slow.systemd.start(LOADING="1")
    slow.systemd.wait_until_ready()
    assert get(slow.web)[0] == 404
    (slow.base / "end").touch()
    slow.systemd.stop()
    told = slow.systemd.complaints()
    assert what in told
    assert told.endswith("after 1 s; the doors open nevertheless\n")


def test_who_comes_to_an_open_door_while_rules_and_certificate_change_sees_no_other_certificate(place: Place) -> None:
    proxies.serve_https(place.base, NAME, acme=False)
    place.write_certificate(PAIR)
    with named_server("hub") as hub:
        place.write_rules(hub, certificate=place.certificate)
        place.systemd.start()
        place.systemd.wait_until_ready()
        with regulars(lambda: get_by_tls(place.web, NAME)) as few:
            for pair in (RENEWED, PAIR, RENEWED):
                few.got.clear()
                renewed = place.base / "state/proxy/renewed.pem"
                renewed.write_text(pair.cert + pair.key)
                renewed.replace(place.certificate)
                place.write_rules(hub, certificate=place.certificate)
                os.kill(place.systemd.pid, signal.SIGHUP)
                wait_until(lambda pair=pair: (200, pair.serial) in few.got)
                few.wait_for_more()
                assert set(few.got) <= {(200, PAIR.serial), (200, RENEWED.serial)}, few.got


def test_a_reload_of_a_traefik_that_starts_is_done_when_it_has_started(slow: Place) -> None:
    slow.write_rules("http://127.0.0.1:9")
    (slow.base / "web").write_text("418")
    slow.systemd.start()
    wait_until(lambda: handles(slow, signal.SIGHUP) and asked(slow, "api"))
    os.kill(slow.systemd.pid, signal.SIGHUP)
    wait_until(lambda: not is_pending(slow, signal.SIGHUP))
    before = len(asked(slow, "api"))
    wait_until(lambda: len(asked(slow, "api")) > before + 2)
    assert not (slow.base / "reloaded").exists()  # it would have ended the real one
    (slow.base / "api").write_text("401")
    wait_until(lambda: (slow.base / "reloaded").exists())
    slow.systemd.wait_until_ready()


def test_no_door_opens_once_the_proxy_stops(slow: Place) -> None:
    slow.write_rules("http://127.0.0.1:9")
    (slow.base / "web").write_text("418")
    slow.systemd.start(WATCHDOG_USEC="20000")
    wait_until(lambda: handles(slow, signal.SIGTERM) and asked(slow, "api"))
    os.kill(slow.systemd.pid, signal.SIGTERM)
    wait_until(lambda: "STOPPING=1" in slow.systemd.messages)
    (slow.base / "api").write_text("401")
    wait_until(lambda: slow.systemd.messages.count("WATCHDOG=1") > 3)  # by now the routes would be known, too
    (slow.base / "end").touch()
    assert slow.systemd.stop() == 0
    assert "READY=1" not in slow.systemd.messages


def test_a_check_that_fails_by_itself_opens_the_doors(slow: Place) -> None:
    rules = {"http": {"routers": {READY: {"entryPoints": 3}}}}
    (slow.base / "state/rules/rules.yaml").write_text(json.dumps(rules))
    (slow.base / "api").write_text("401")
    slow.systemd.start()
    slow.systemd.wait_until_ready()
    (slow.base / "end").touch()
    slow.systemd.stop()
    assert "TypeError" in slow.systemd.complaints()


def handles(place: Place, number: signal.Signals) -> bool:
    return mask(place, "SigCgt") >> (number - 1) & 1 == 1


def is_pending(place: Place, number: signal.Signals) -> bool:
    return mask(place, "ShdPnd") >> (number - 1) & 1 == 1


def mask(place: Place, which: str) -> int:
    """A set of signals of the supervisor (proc(5))."""
    lines = Path(f"/proc/{place.systemd.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1], 16)
