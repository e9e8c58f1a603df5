"""barehub.lifecycle.ports: no port of an installation is another's, nor taken."""

import json
import socket

import pytest
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle import ports
from barehub.lifecycle.ports import API, HUB, internal_lines, require_apart


def lines(layout: Layout, bind_url: str | None = None) -> dict[str, object]:
    return internal_lines(layout, bind_url, say=lambda _: None)


def free_block(monkeypatch: pytest.MonkeyPatch, *taken: int) -> None:
    """Let only these ports of the machine be in use."""
    monkeypatch.setattr(ports, "port_is_free", lambda port: port not in taken)


def test_a_port_that_something_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not ports.port_is_free(server.getsockname()[1])
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        assert not ports.port_is_free(server.getsockname()[1])


@pytest.mark.parametrize(
    ("bind_url", "taken", "expected"),
    [
        (None, (), {}),
        ("http://:8000", (), {}),
        ("http://:8081", (), {HUB: 8082}),
        ("https://hub.example.org:8099/x", (), {API: "http://127.0.0.1:8100"}),
        ("http://:8100", (8099,), {API: "http://127.0.0.1:8101"}),
        ("http://:8100", (8081, 8099), {HUB: 8082, API: "http://127.0.0.1:8101"}),
        # The hub's next free ones lead up to traefik's API.
        (None, tuple(range(8081, 8099)), {HUB: 8099, API: "http://127.0.0.1:8100"}),
    ],
)
def test_internal_ports_keep_clear_of_bind_url_and_of_each_other(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, bind_url: str, taken: tuple[int, ...], expected: dict[str, object]
) -> None:
    free_block(monkeypatch, *taken)
    assert lines(layout, bind_url) == expected


def test_another_installation_keeps_its_ports_while_it_is_stopped(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_block(monkeypatch)
    other = Layout(layout.base.with_name("other"), root=layout.root)
    layout.system_units.mkdir(parents=True)
    unit = layout.system_units / "other-proxy.service"
    unit.write_text(f"# Part of barehub\nRequiresMountsFor={other.base}\n")
    assert lines(layout) == {HUB: 8082}
    other.config.mkdir(parents=True)
    other.installer_config.write_text(f"{HUB} = 8082\n")
    other.proxy_state.mkdir(parents=True)
    addresses = {"web": ":8000", "api": "127.0.0.1:8099"}
    other.static_config.write_text(
        json.dumps({"entryPoints": {name: {"address": at} for name, at in addresses.items()}})
    )
    assert lines(layout) == {API: "http://127.0.0.1:8100"}
    assert ports.other_installations(other) == []
    unit.write_text("[Unit]\nDescription=somebody's proxy\n")
    assert lines(layout) == {}


@pytest.mark.parametrize(
    ("hub", "web", "apart"),
    [
        ("127.0.0.1:8081", ":8081", False),
        ("127.0.0.1:8081", "0.0.0.0:8081", False),
        ("[::1]:8081", "[::1]:8081", False),
        ("127.0.0.1:8081", "192.0.2.1:8081", True),
        ("127.0.0.1:8081", ":8000", True),
    ],
)
def test_two_that_listen_on_one_address_are_named(hub: str, web: str, apart: bool) -> None:
    if apart:
        require_apart({"the hub": hub, "the proxy's web": web})
        return
    with pytest.raises(UserError, match="the hub and the proxy's web are both to listen on port 8081"):
        require_apart({"the hub": hub, "the proxy's web": web})
