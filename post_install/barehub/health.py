"""Check that hub and proxy answer, over loopback, never through a proxy that the environment names.

Nothing is sent to, and nothing believed of, a listener that is not theirs.
"""

import http.client
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from barehub.errors import Exit, UserError
from barehub.listeners import Owner
from barehub.process import attempt
from barehub.settings import Settings
from barehub.systemd import advice, property_of, scope
from barehub.urls import LOOPBACK, WILDCARDS, bind_url, bracketed, listening, parsed

TIMEOUT = 5.0  # seconds for one answer
DEATHS = 3  # in a row; after that, waiting ends


@dataclass(frozen=True)
class Endpoints:
    """Where this installation answers: the URL that people use, and those that are checked over loopback.

    `name` is the host name in `bind_url`, by which the proxy chooses a certificate; empty if there is none.
    `only_here` tells that no other machine reaches the hub itself.
    """

    public: str
    hub: str
    api: str
    proxy: str
    name: str
    only_here: bool = False

    @property
    def hub_url(self) -> str:
        """The hub's scheme, host and port: the target of the proxy's route."""
        return urlunsplit((*urlsplit(self.hub)[:2], "", "", ""))

    @classmethod
    def of(cls, hub: Any) -> "Endpoints":
        """Derive them from a JupyterHub application object with its configuration loaded (`config.load_hub`)."""
        trait = "bind_url" if "bind_url" in hub.config.JupyterHub else "port"
        bind, local = parsed(trait, bind_url(hub)), urlsplit(listening(bind_url(hub)))
        usual = 443 if bind.scheme == "https" else 80
        port = bind.port or usual
        name = "" if (bind.hostname or "") in WILDCARDS else str(bind.hostname)
        base_url = hub.base_url
        inside = hub.hub_bind_url or f"http://{bracketed(hub.hub_ip or '127.0.0.1')}:{hub.hub_port}"
        internal = parsed("hub_bind_url" if hub.hub_bind_url else "hub_port", inside)
        if hub.hub_connect_url:
            parsed("hub_connect_url", hub.hub_connect_url)
        host, hub_at = here(local.hostname), f"http://{here(internal.hostname)}:{internal.port or 80}{base_url}hub/"
        return cls(
            public=f"{bind.scheme}://{bracketed(name) or host}{'' if port == usual else f':{port}'}{base_url}",
            hub=f"{hub_at}health",
            api=f"{hub_at}api/",
            proxy=f"{bind.scheme}://{host}:{port}{base_url}hub/health",
            name=name,
            only_here=hub.hub_ip in LOOPBACK and not (hub.hub_bind_url or hub.hub_connect_url or hub.hub_connect_ip),
        )


def here(host: str | None) -> str:
    """Return where this machine reaches what listens on a host, as in a URL: for all addresses, over loopback."""
    return "127.0.0.1" if (host or "") in WILDCARDS else bracketed(str(host))


class Connection(http.client.HTTPConnection):
    """A connection over loopback, with TLS for https. The certificate is for browsers and not checked.

    It comes about only if `owner` listens there, before and after: nobody else can have accepted it then.
    """

    def __init__(self, url: SplitResult, owner: Owner, name: str = "") -> None:
        super().__init__(url.hostname or "", url.port, timeout=TIMEOUT)
        self.tls, self.owner, self.name = url.scheme == "https", owner, name

    def require_owner(self) -> None:
        """Raises ConnectionRefusedError if somebody else listens."""
        if not self.owner.listens(self.host, self.port):
            raise ConnectionRefusedError(f"{self.owner.unit} does not listen at {self.host} port {self.port}")

    def connect(self) -> None:
        self.require_owner()
        super().connect()
        self.require_owner()
        if self.tls:
            import ssl

            context = ssl._create_unverified_context()  # noqa: S323
            self.sock = context.wrap_socket(self.sock, server_hostname=self.name or self.host)

    def peer_certificate(self) -> bytes | None:
        """Return the certificate that the other side has sent, as DER; None without TLS."""
        import ssl

        return self.sock.getpeercert(binary_form=True) if isinstance(self.sock, ssl.SSLSocket) else None


def ask(url: str, owner: Owner, headers: Mapping[str, str] | None = None, name: str = "") -> tuple[int | None, bytes]:
    """Return status and body of the owner's answer to a GET for `url`; TLS asks for the certificate of `name` if given.

    Returns None and an empty body if there is no answer in time, or if it would be somebody else's.
    """
    parts = urlsplit(url)
    connection = Connection(parts, owner, name)
    try:
        connection.request("GET", urlunsplit(("", "", parts.path, parts.query, "")), headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()


def answer(url: str, owner: Owner, name: str = "") -> int | None:
    """Return the status of a GET for `url`; None if the owner does not answer in time."""
    return ask(url, owner, name=name)[0]


def in_words(code: int | None) -> str:
    """Return the HTTP status of an answer in words."""
    return "answers" if code == http.HTTPStatus.OK else f"answers {code}" if code else "does not answer"


def stranger_at(url: str, owner: Owner) -> str | None:
    """Return the account of somebody else who listens where the owner should; None if nobody does."""
    parts = urlsplit(url)
    return owner.stranger(parts.hostname or "", parts.port or 0)


def served_certificate(endpoints: Endpoints, owner: Owner) -> bytes | None:
    """Return the certificate, as DER, that the proxy serves for the name in bind_url; None without TLS or answer."""
    connection = Connection(urlsplit(endpoints.proxy), owner, endpoints.name)
    try:
        connection.connect()
        return connection.peer_certificate()
    except OSError:
        return None
    finally:
        connection.close()


def wait_until_healthy(
    settings: Settings, endpoints: Endpoints, *, seconds: float = 60, say: Callable[[str], None]
) -> None:
    """Return when the hub answers through the proxy. Raises UserError once a unit is given up, or after `seconds`.

    The error carries the journal's last lines, so that its reader need not search for the reason.
    """
    deadline = time.monotonic() + seconds
    before = {unit: restarts(unit) for unit in settings.active_units}
    say(f"waiting for {endpoints.public}")
    proxy = Owner.of_proxy(settings)
    while answer(endpoints.proxy, proxy, endpoints.name) != http.HTTPStatus.OK:
        given_up = {unit: why for unit, count in before.items() if (why := trouble(unit, count))}
        if time.monotonic() > deadline:
            given_up.setdefault(settings.hub_unit, f"has not answered at {endpoints.proxy} in {seconds:.0f} s")
        for unit, why in given_up.items():
            what = f"{unit} {why}; its last messages:\n{journal(unit)}"
            raise UserError(what, f"{advice('journalctl', '-u', unit)}; then run this again", Exit.HOOK)
        time.sleep(0.2)


def trouble(unit: str, restarts_before: int) -> str | None:
    """Return why there is no point in waiting for a unit; None if there is."""
    if property_of(unit, "ActiveState") == "failed":
        return "failed"
    return "keeps dying" if restarts(unit) >= restarts_before + DEATHS else None


def restarts(unit: str) -> int:
    """Return how often systemd has restarted a unit by itself."""
    return int(property_of(unit, "NRestarts") or 0)


def journal(unit: str, lines: int = 12) -> str:
    """Return the last messages of a unit, indented."""
    text = attempt("journalctl", *scope(), "-u", unit, f"--lines={lines}", "--no-pager", "--output=cat").stdout
    return "\n".join(f"    {line}" for line in text.splitlines())
