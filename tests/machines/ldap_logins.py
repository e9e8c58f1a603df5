"""Logins with the overlay `ldap` and a machine's directory, without a hub."""

import asyncio
from typing import Any

from barehub_ldap.authenticator import DirectoryAuthenticator

from tests.machines import directory
from tests.machines.directory import PASSWORDS
from tests.machines.machine import Machine

SERVERS = tuple(directory.SERVERS)
TLS = {"ca_certs_file": directory.CA, "valid_names": list(directory.SERVERS.values())}


def as_typed(login: str) -> str:
    """A site's `account_of`: no account of the machine that runs this test has these names."""
    return login


class Logins:
    """Logs people in, as the hub does, with the overlay's defaults and a site's own settings."""

    def __init__(self, machine: Machine, **settings: Any) -> None:
        self.machine = machine
        defaults = {
            "server_address": SERVERS[0],
            "tls_kwargs": TLS,
            "lookup_dn": True,
            "user_attribute": "uid",
            "lookup_dn_user_dn_attribute": "uid",
            "use_lookup_dn_username": True,
            "valid_username_regex": "(?s).",
            "user_search_base": f"ou=people,{directory.BASE}",
            "lookup_dn_search_user": directory.HUB_DN,
            "lookup_dn_search_password": directory.HUB_PASSWORD,
            "account_of": as_typed,
            "least_uid": 0,
            "allow_all": True,
        }
        self.authenticator = DirectoryAuthenticator(**{**defaults, **settings})

    def login(self, name: str, password: str | None = None) -> Any:
        """The user that the hub would have; None if it refuses."""
        data = {"username": name, "password": PASSWORDS[name] if password is None else password}
        with self.machine.network():
            return asyncio.run(self.authenticator.get_authenticated_user(None, data))

    def name(self, name: str, password: str | None = None) -> str | None:
        user = self.login(name, password)
        return user and str(user["name"])
