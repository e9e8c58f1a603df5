"""`c.JupyterHub.authenticator_class` of the overlay. Settings are ldapauthenticator's: `c.LDAPAuthenticator`.

What ldapauthenticator 2.0.2 leaves to a site is done here. It asks one server, waits for it as long as TCP does, and
stops the whole hub meanwhile (https://github.com/jupyterhub/ldapauthenticator/issues/124). It accepts any certificate,
and knows no group of administrators.
"""

import asyncio
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ldap3
from barehub.logins import AccountNames
from ldap3.core.exceptions import (
    LDAPBindError,
    LDAPCommunicationError,
    LDAPException,
    LDAPResponseTimeoutError,
    LDAPStartTLSError,
)
from ldapauthenticator.ldapauthenticator import LDAPAuthenticator, TlsStrategy
from tornado.web import HTTPError
from traitlets import Integer, List, Unicode

NO_ANSWER = "Nobody can log in with LDAP at present. Try again in a minute. Administrators: the hub's journal says why."
# The next server may do better.
UNREACHABLE = (LDAPCommunicationError, LDAPResponseTimeoutError, LDAPStartTLSError)
# Answers to a bind that say nothing about name and password (RFC 4511, 4.1.9).
NO_VERDICT = (
    *("operationsError", "protocolError", "busy", "unavailable", "other"),
    *("confidentialityRequired", "strongerAuthRequired"),
)
WORKERS = 8  # logins that wait for LDAP at the same time; the hub itself goes on


class DirectoryAuthenticator(AccountNames, LDAPAuthenticator):  # type: ignore[misc]  # neither ships types
    """ldapauthenticator, with time limits, several servers, certificates that are checked, and administrators."""

    # What is new in it: names separated by spaces, as in ldap.conf(5).
    server_address = Unicode(help="The LDAP servers, separated by spaces. If one does not answer, the next is asked.")
    server_address.tag(config=True)
    admin_groups = List(
        Unicode(), help="DNs of groups: their members may log in, and are administrators of the hub. Others are not."
    ).tag(config=True)
    answer_timeout = Integer(3, help="Seconds that a server may take for each answer.").tag(config=True)
    login_timeout = Integer(10, help="Seconds that a login may take.").tag(config=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="ldap")
        self.opened = threading.local()
        self.answered_last = ""
        # ldapauthenticator looks for a user in these alone.
        self.allowed_groups: list[str] = [*(self.allowed_groups or []), *self.admin_groups]

    async def authenticate(self, handler: Any, data: dict[str, str]) -> Any:
        """Return ldapauthenticator's verdict; None if it refuses. Raises HTTPError if LDAP gives none in time."""
        asked = asyncio.get_running_loop().run_in_executor(self.workers, self.ask, handler, data)
        try:
            return await asyncio.wait_for(asked, self.login_timeout)
        except TimeoutError:
            self.log.error("LDAP: no answer in %s s", self.login_timeout)
        except LDAPException as error:
            self.log.error("LDAP: %s: %s", type(error).__name__, error)
        raise HTTPError(503, NO_ANSWER)

    def ask(self, handler: Any, data: dict[str, str]) -> Any:
        """Authenticate in this thread: ldapauthenticator's coroutine waits for nothing but sockets that block.

        A server that has accepted a bind may still leave a search without an answer: the login begins again with the
        others.
        """
        self.opened.connections, self.opened.silent = [], set()
        try:
            while True:
                try:
                    return asyncio.run(super().authenticate(handler, data))
                except UNREACHABLE as error:
                    self.note_silent(self.opened.server, error)
        finally:
            for connection in self.opened.connections:
                connection.strategy.close()

    def note_silent(self, name: str, error: Exception) -> None:
        """Ask a server no more for this login."""
        self.log.warning("LDAP server %s: %s", name, error)
        self.opened.silent.add(name)

    def resolve_username(self, username_supplied_by_user: str) -> tuple[str | None, str | None]:
        """Return a user's name and DN, None for nobody. To ldapauthenticator, { in the DN would be a template's."""
        name, dn = super().resolve_username(username_supplied_by_user)
        return name, dn and dn.replace("{", "{{").replace("}", "}}")

    def get_connection(self, userdn: str | None, password: str | None) -> Any:
        """Return a connection bound as `userdn`, or anonymous; None if its password is refused.

        Raises LDAPException if no server answers, or if they refuse the account that looks for users.
        """
        servers = sorted(self.server_address.split(), key=lambda name: name != self.answered_last)
        for name in servers:
            if name in self.opened.silent:
                continue
            try:
                connection = self.connect(name, userdn, password)
            except UNREACHABLE as error:
                self.note_silent(name, error)
                continue
            self.answered_last = self.opened.server = name
            return connection
        raise LDAPException(f"no server answers: {self.server_address or 'server_address is not set'}")

    def connect(self, name: str, userdn: str | None, password: str | None) -> Any:
        """Ask one server, as `get_connection` does. Raises an exception of UNREACHABLE if it gives no verdict."""
        connection = ldap3.Connection(
            ldap3.Server(
                name,
                port=self.server_port,
                use_ssl=self.tls_strategy == TlsStrategy.on_connect,
                tls=ldap3.Tls(**{"validate": ssl.CERT_REQUIRED, **self.tls_kwargs}),
                get_info=ldap3.NONE,  # its schema would be read for each login
                connect_timeout=self.answer_timeout,
            ),
            user=userdn,
            # As text, SASLprep would drop characters such as a soft hyphen: of a password of nothing else, an empty one
            # would remain, with which Active Directory lets everybody in (RFC 4513, 5.1.2).
            password=password.encode() if password else None,
            receive_timeout=self.answer_timeout,
            auto_referrals=False,  # a password goes to no server that is not configured
            read_only=True,
        )
        self.opened.connections.append(connection)
        connection.open(read_server_info=False)
        if self.tls_strategy == TlsStrategy.before_bind:
            connection.start_tls(read_server_info=False)
        if connection.bind(read_server_info=False):
            return connection
        why = f"{connection.result['description']} {connection.result['message']}".strip()
        if connection.result["description"] in NO_VERDICT:
            raise LDAPCommunicationError(why)
        if (userdn, password) == (self.lookup_dn_search_user, self.lookup_dn_search_password):
            raise LDAPBindError(f"{name} refuses {userdn or 'anonymous searches'}, which looks for users: {why}")
        self.log.info("LDAP server %s refuses %s: %s", name, userdn, why)
        return None

    def is_admin(self, handler: Any, authentication: dict[str, Any]) -> bool | None:
        """Return True for members of `admin_groups`; with these, False for all but `admin_users`."""
        admin: bool | None = super().is_admin(handler, authentication)
        if admin or not self.admin_groups:
            return admin
        return not set(self.admin_groups).isdisjoint(authentication["auth_state"]["ldap_groups"])
