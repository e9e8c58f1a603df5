"""barehub.urls: what follows from bind_url."""

from types import SimpleNamespace

import pytest
from barehub.urls import address, bind_url, bracketed, listening
from traitlets.config import Config


def test_https_stays_what_was_written_where_jupyterhub_has_no_certificate() -> None:
    written = Config({"JupyterHub": {"bind_url": "https://hub.example.org"}})
    hub = SimpleNamespace(config=written, bind_url="http://hub.example.org:443/")
    assert bind_url(hub) == "https://hub.example.org:443/"
    hub.config = Config()
    assert bind_url(hub) == "http://hub.example.org:443/"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hub.example.org/x/", "https://:443/x/"),
        ("https://hub.example.org:8443/", "https://:8443/"),
        ("https://192.0.2.1:8443/", "https://192.0.2.1:8443/"),
        ("https://localhost:8443/", "https://localhost:8443/"),
        ("http://hub.example.org:8000/", "http://hub.example.org:8000/"),
        ("https://:8443/", "https://:8443/"),
    ],
)
def test_the_name_of_an_https_address_is_not_what_is_listened_on(url: str, expected: str) -> None:
    assert listening(url) == expected


def test_an_entrypoint_listens_on_an_address_in_brackets_or_on_all() -> None:
    assert address("http://[::1]:8000/") == "[::1]:8000"
    assert address("http://*:8000/") == address("http://:8000/") == ":8000"
    assert bracketed("hub.example.org") == "hub.example.org"
