"""Do hub and proxy answer? Asked over loopback, never through a proxy that the environment names."""

import http.client
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from barehub.errors import HOOK, UserError
from barehub.process import attempt
from barehub.settings import Settings
from barehub.systemd import property_of

TIMEOUT = 5.0  # seconds for one answer
DEATHS = 3  # in a row, and nobody waits for the next attempt
WILDCARDS = ("", "0.0.0.0", "::", "*")  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True)
class Endpoints:
    """Where this installation answers: the URL that people use, and what is asked over loopback."""

    public: str
    hub: str
    api: str
    proxy: str

    @classmethod
    def of(cls, hub: Any) -> "Endpoints":
        """From a JupyterHub application object with its configuration loaded (`config.load_hub`)."""
        bind = urlsplit(hub.bind_url)
        port = bind.port or (443 if bind.scheme == "https" else 80)
        host = "127.0.0.1" if (bind.hostname or "") in WILDCARDS else bind.hostname
        base_url = hub.base_url
        internal = urlsplit(hub.hub_bind_url or f"http://{hub.hub_ip or '127.0.0.1'}:{hub.hub_port}")
        internal_host = "127.0.0.1" if (internal.hostname or "") in WILDCARDS else internal.hostname
        return cls(
            public=f"{bind.scheme}://{bracketed(host)}:{port}{base_url}",
            hub=f"http://{bracketed(internal_host)}:{internal.port}{base_url}hub/health",
            api=f"http://{bracketed(internal_host)}:{internal.port}{base_url}hub/api/",
            proxy=f"{bind.scheme}://{bracketed(host)}:{port}{base_url}hub/health",
        )


def bracketed(host: str) -> str:
    """An IPv6 address in brackets, anything else as it is (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def ask(url: str, headers: Mapping[str, str] | None = None) -> tuple[int | None, bytes]:
    """Status and body of the answer to a GET for `url`; None and nothing if nobody answers in time."""
    import ssl

    parts = urlsplit(url)
    # The name in the certificate is for the users; over loopback only the answer counts.
    connection = (
        http.client.HTTPSConnection(
            parts.hostname,
            parts.port,
            timeout=TIMEOUT,
            context=ssl._create_unverified_context(),  # noqa: S323
        )
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)
    )
    try:
        connection.request("GET", urlunsplit(("", "", parts.path, parts.query, "")), headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()


def answer(url: str) -> int | None:
    """The status of a GET for `url`, or None if nobody answers in time."""
    return ask(url)[0]


def wait_until_healthy(
    settings: Settings, endpoints: Endpoints, *, seconds: float = 60, say: Callable[[str], None]
) -> None:
    """Return when the hub answers through the proxy. Raises UserError once a unit is given up, or in the end.

    The error carries the journal's last lines: the person reading it should not have to look for the reason.
    """
    deadline = time.monotonic() + seconds
    before = {unit: restarts(unit) for unit in settings.units}
    say(f"waiting for {endpoints.public}")
    while answer(endpoints.proxy) != http.HTTPStatus.OK:
        given_up = {unit: why for unit, count in before.items() if (why := trouble(unit, count))}
        if time.monotonic() > deadline:
            given_up.setdefault(settings.hub_unit, f"has not answered at {endpoints.proxy} in {seconds:.0f} s")
        for unit, why in given_up.items():
            what = f"{unit} {why}; its last messages:\n{journal(unit)}"
            raise UserError(what, f"journalctl -u {unit}; then run this again", HOOK)
        time.sleep(0.2)


def trouble(unit: str, restarts_before: int) -> str | None:
    """Why there is no point in waiting for a unit."""
    if property_of(unit, "ActiveState") == "failed":
        return "failed"
    return "keeps dying" if restarts(unit) >= restarts_before + DEATHS else None


def restarts(unit: str) -> int:
    """How often systemd has restarted a unit by itself."""
    return int(property_of(unit, "NRestarts") or 0)


def journal(unit: str, lines: int = 12) -> str:
    """The last messages of a unit, indented."""
    text = attempt("journalctl", f"--unit={unit}", f"--lines={lines}", "--no-pager", "--output=cat").stdout
    return "\n".join(f"    {line}" for line in text.splitlines())
