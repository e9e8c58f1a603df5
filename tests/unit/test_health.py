"""barehub.health: what is asked over loopback, and when waiting ends."""

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from barehub import health
from barehub.accounts import current_user
from barehub.errors import Exit, UserError
from barehub.health import Endpoints
from barehub.listeners import Owner
from traitlets.config import Config

from tests.unit.installations import ME, answering, fake_command

US = Owner("no-such.service", current_user())


def endpoints(bind_url: str, **hub: object) -> Endpoints:
    config = Config({"JupyterHub": {"bind_url": bind_url}})
    values = {
        "hub_bind_url": "",
        "hub_connect_url": "",
        "hub_connect_ip": "",
        "hub_ip": "127.0.0.1",
        "hub_port": 8081,
        "base_url": "/",
        **hub,
    }
    return Endpoints.of(SimpleNamespace(config=config, bind_url=bind_url, **values))


def test_everything_is_asked_over_loopback() -> None:
    found = endpoints("http://:8000/")
    assert found == Endpoints(
        public="http://127.0.0.1:8000/",
        hub="http://127.0.0.1:8081/hub/health",
        api="http://127.0.0.1:8081/hub/api/",
        proxy="http://127.0.0.1:8000/hub/health",
        name="",
        only_here=True,
    )
    for trait, value in (
        ("hub_ip", ""), ("hub_ip", "0.0.0.0"), ("hub_bind_url", "http://:8081"),
        ("hub_connect_url", "http://10.1.2.3:8081"), ("hub_connect_ip", "head"),
    ):  # fmt: skip
        assert not endpoints("http://:8000/", **{trait: value}).only_here
    named = endpoints("https://hub.example.org", base_url="/lab/", hub_bind_url="http://*:9000/lab/")
    assert (named.public, named.name) == ("https://hub.example.org/lab/", "hub.example.org")
    assert named.proxy == "https://127.0.0.1:443/lab/hub/health"
    assert named.hub == "http://127.0.0.1:9000/lab/hub/health"
    assert endpoints("http://[::1]:8000/").proxy == "http://[::1]:8000/hub/health"


def test_an_answer_is_one_whatever_proxy_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with answering({"/hub/health": {"fine": True}}) as port:
        assert health.ask(f"http://127.0.0.1:{port}/hub/health", US) == (200, b'{"fine": true}')
        assert health.answer(f"http://127.0.0.1:{port}/other", US) == 404
    assert health.answer(f"http://127.0.0.1:{port}/hub/health", US) is None


def test_what_is_not_http_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert health.answer(f"http://127.0.0.1:{silent.getsockname()[1]}/", US) is None


def test_waiting_ends_with_the_first_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(tmp_path / "bin", "systemctl", "echo 0", monkeypatch)
    with answering({"/hub/health": [None, None, {}]}) as port:
        said: list[str] = []
        health.wait_until_healthy(ME, endpoints(f"http://127.0.0.1:{port}/"), say=said.append)
    assert said == [f"waiting for http://127.0.0.1:{port}/"]


@pytest.mark.parametrize(
    ("systemctl", "why"),
    [
        ('case "$*" in *ActiveState*) echo failed;; *) echo 0;; esac', "failed"),
        # One restart more each time it is asked.
        ('wc -l <"$0.calls"', "keeps dying"),
        ("echo 0", "has not answered at"),
    ],
)
def test_a_unit_is_given_up_with_its_last_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemctl: str, why: str
) -> None:
    fake_command(tmp_path / "bin", "systemctl", systemctl, monkeypatch)
    fake_command(tmp_path / "bin", "journalctl", "echo 'the reason'", monkeypatch)
    seconds = 0.01 if why.startswith("has not") else 60
    with answering({}) as port, pytest.raises(UserError, match=why) as caught:
        health.wait_until_healthy(ME, endpoints(f"http://127.0.0.1:{port}/"), seconds=seconds, say=lambda _: None)
    assert str(caught.value).endswith("its last messages:\n    the reason")
    assert caught.value.code == Exit.HOOK
