"""barehub.logins: which account a login means, and what happens where there is none."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from barehub.logins import (
    AccountNames,
    AccountPAM,
    NoAccountError,
    canonical,
    require_account,
    require_local_account,
)
from jupyterhub.auth import Authenticator
from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner
from tornado.web import HTTPError

NOBODY = ("", "nobody-here", "NOBODY-HERE", "a\0b", "\udcff", "root\n", " root", "*", "../root", "0")


class Anyone(AccountNames, Authenticator):  # type: ignore[misc]
    """Believes everybody."""

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str:
        return data["username"]


def login(name: str, **settings: Any) -> str | None:
    found = asyncio.run(
        Anyone(**{"allow_all": True, "least_uid": 0, **settings}).get_authenticated_user(None, {"username": name})
    )
    return found and str(found["name"])


def test_an_accounts_name_is_the_account_databases() -> None:
    assert canonical("root") == canonical("ROOT") == canonical("Root") == "root"
    assert [canonical(name) for name in NOBODY] == [None] * len(NOBODY)


def test_a_login_becomes_its_accounts_name_before_any_rule() -> None:
    assert login("DAEMON") == "daemon"
    assert login("DAEMON", allow_all=False, allowed_users={"daemon"}) == "daemon"
    assert login("DAEMON", blocked_users={"daemon"}) is None
    assert login("DAEMON", username_map={"daemon": "root"}) == "root"


def test_a_login_without_an_account_is_told_so() -> None:
    with pytest.raises(HTTPError, match="There is no account nobody-here on this machine") as refused:
        login("Nobody-Here")
    assert refused.value.status_code == 403


def test_nobody_becomes_an_account_of_the_system() -> None:
    for name in ("root", "DAEMON"):
        with pytest.raises(HTTPError, match="is the system's"):
            login(name, least_uid=1000)
    assert (Anyone().least_uid, AccountPAM().least_uid) == (1000, 0)


def test_a_sites_own_function_decides() -> None:
    def local_part(name: str) -> str | None:
        return name.removesuffix("@example.org") if "@other" not in name else None

    assert login("daemon@example.org", account_of=local_part) == "daemon"
    # Where servers need no account of this machine, the function names whom it likes.
    assert login("Ada@example.org", account_of=local_part) == "Ada"
    with pytest.raises(HTTPError, match="no account"):
        login("daemon@other.org", account_of=local_part)


def test_names_in_the_configuration_need_no_account() -> None:
    """The account database may be away when the hub starts."""
    assert Anyone().normalize_username("Nobody-Here") == "nobody-here"


def test_a_server_without_an_account_is_not_started() -> None:
    require_account("root")
    with pytest.raises(NoAccountError):
        require_account("ROOT")  # no server could become it
    with pytest.raises(NoAccountError) as refused:
        require_account("nobody-here")
    assert "There is no account nobody-here on this machine" in refused.value.jupyterhub_message
    user = SimpleNamespace(name="nobody-here")
    for kind, needs in ((LocalProcessSpawner, True), (SimpleLocalProcessSpawner, False)):
        spawner = kind.__new__(kind)
        spawner.user = user
        if needs:
            with pytest.raises(NoAccountError):
                require_local_account(spawner)
        else:
            require_local_account(spawner)


def test_a_name_that_no_account_can_have_has_none() -> None:
    for name in ("a\0b", "\udcff", "x" * 100_000):
        with pytest.raises(NoAccountError):
            require_account(name)
        with pytest.raises(HTTPError, match="There is no account"):
            login(name)
