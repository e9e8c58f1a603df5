"""The overlay `ldap`: who is let in by real servers, who is not, and what happens when they do not answer."""

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from barehub_ldap.authenticator import NO_ANSWER, DirectoryAuthenticator
from tornado.web import HTTPError

from tests.machines import directory
from tests.machines.directory import ADMINS_GROUP, INSTITUTE, ODD, PASSWORDS, POSIX_GROUP, USERS_GROUP, without
from tests.machines.ldap_logins import SERVERS, TLS, Logins
from tests.machines.machine import Machine, booted
from tests.machines.relay import relay
from tests.readme import guide

STEPS = 24  # pieces of a server's answers to one login, and some more
[FILTER] = re.findall(r'search_filter = "(.*memberOf.*)"', guide("ldap").read_text())


@pytest.fixture(scope="module")
def machine(root: Path) -> Iterator[Machine]:
    with booted("ldap", root) as new:
        yield new


@pytest.fixture(scope="module")
def servers(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    directory.start(machine)
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.write_text(machine.read(directory.CA))
    TLS["ca_certs_file"] = str(ca)
    return machine


@pytest.mark.parametrize("strategy", ["before_bind", "on_connect"])
@pytest.mark.parametrize(
    "how", [{}, {"lookup_dn": False, "bind_dn_template": f"uid={{username}},ou=people,{directory.BASE}"}]
)
def test_people_log_in_with_their_password(servers: Machine, strategy: str, how: dict[str, Any]) -> None:
    site = Logins(servers, tls_strategy=strategy, **how)
    assert site.name("alice") == "alice"
    assert site.name("alice", PASSWORDS["bob"]) is None
    assert site.name("nobody", "wonderland") is None
    for nothing in ("", " ", "\N{SOFT HYPHEN}", "\0"):
        assert site.name("alice", nothing) is None


@pytest.mark.parametrize("name", PASSWORDS)
def test_any_name_is_itself(servers: Machine, name: str) -> None:
    assert Logins(servers).name(name) == name
    assert Logins(servers).name(name, PASSWORDS["alice"] + "x") is None
    if name in ODD:
        site = Logins(servers, allow_all=False, allowed_groups=[USERS_GROUP])
        assert site.name(name) == name


def test_a_user_has_the_name_in_the_directory(servers: Machine) -> None:
    site = Logins(servers)
    for typed in ("ALICE", " alice", "alice "):
        assert site.name(typed, PASSWORDS["alice"]) == "alice"
    assert Logins(servers, user_attribute="mail").name("mail0@example.org", PASSWORDS["alice"]) == "alice"


@pytest.mark.parametrize(
    "typed", ["ali*", "alice)(uid=*", "*)(uid=alice", "alice,ou=people", "\\61lice", "alice\0", "x" * 100_000]
)
def test_what_means_something_to_ldap_is_part_of_a_name(servers: Machine, typed: str) -> None:
    for how in ({}, {"lookup_dn": False, "bind_dn_template": f"uid={{username}},ou=people,{directory.BASE}"}):
        assert Logins(servers, **how).name(typed, PASSWORDS["alice"]) is None


def test_groups_decide_who_may_log_in_and_who_is_an_administrator(servers: Machine) -> None:
    site = Logins(servers, allow_all=False, allowed_groups=[USERS_GROUP], admin_groups=[ADMINS_GROUP])
    assert site.login("alice")["admin"] is False
    assert site.login("Grace")["admin"] is True
    assert site.login("bob") is None
    site = Logins(servers, allow_all=False, allowed_groups=[POSIX_GROUP], admin_users={"bob"})
    assert site.login("bob")["admin"] is True
    assert site.login("alice") is None
    assert Logins(servers, allow_all=False).login("alice") is None


def test_a_group_in_a_group_counts_where_the_directory_says_so(servers: Machine) -> None:
    """As the guide has it, with `memberOf`; `allowed_groups` are of those who are in them."""
    assert Logins(servers, allow_all=False, allowed_groups=[INSTITUTE]).login("alice") is None
    nested = Logins(servers, search_filter=FILTER.replace("cn=hpc-users,ou=groups,dc=example,dc=org", INSTITUTE))
    assert nested.name("alice") == "alice"
    assert nested.name("bob") is None


def test_nobody_gets_in_where_ldap_gives_no_verdict(servers: Machine) -> None:
    stranger = {**TLS, "ca_certs_file": "/etc/ssl/certs/ca-certificates.crt"}
    for wrong in (
        {"lookup_dn_search_password": "wrong"},
        {"tls_kwargs": stranger},
        {"tls_kwargs": {**TLS, "valid_names": ["other.example.org"]}},
        {"tls_kwargs": {"ca_certs_file": "/no/such/file"}},
        {"tls_strategy": "insecure"},
        {"server_port": 1},
        {"server_address": ""},
        {"server_address": "nowhere.invalid"},
    ):
        with pytest.raises(HTTPError) as refused:
            Logins(servers, **wrong).login("alice")
        assert (refused.value.status_code, refused.value.log_message) == (503, NO_ANSWER), wrong


def test_no_password_is_logged(servers: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(HTTPError):
        Logins(servers, lookup_dn_search_password="5ecret").login("alice")
    assert directory.HUB_DN in caplog.text
    assert Logins(servers).login("alice", "wr0ng") is None
    assert "uid=alice" in caplog.text
    for secret in ("5ecret", "wr0ng", directory.HUB_PASSWORD):
        assert secret not in caplog.text


def test_the_next_server_is_asked_if_one_is_down_or_slow(servers: Machine) -> None:
    site = Logins(servers, server_address=" ".join(SERVERS), answer_timeout=1, login_timeout=60)
    with without(servers, SERVERS[0]):
        assert site.name("alice") == "alice"
        assert site.authenticator.answered_last == SERVERS[1]
    with without(servers, SERVERS[1]):
        assert site.name("alice") == "alice"
        assert site.authenticator.answered_last == SERVERS[0]


def test_a_server_may_fall_silent_at_any_step(servers: Machine) -> None:
    """In TLS, at a bind, at a search: the next is asked, and without one a page says so."""

    def login(answers: int, others: str) -> str | None:
        relays = relay(SERVERS[0], 0, (SERVERS[0], 636), answers)
        with servers.network(), relays as port, relay(SERVERS[1], port, (SERVERS[1], 636), 1000):
            site = Logins(servers, server_address=f"{SERVERS[0]}{others}", server_port=port, **settings)
            try:
                return site.name("alice")
            except HTTPError as error:
                return error.log_message

    settings = {"answer_timeout": 1, "tls_strategy": "on_connect", "allow_all": False, "allowed_groups": [USERS_GROUP]}
    with ThreadPoolExecutor(STEPS) as pool:
        alone = list(pool.map(login, range(STEPS), [""] * STEPS))
        both = list(pool.map(login, range(STEPS), [f" {SERVERS[1]}"] * STEPS))
    assert alone[0] == NO_ANSWER
    assert alone[-1] == "alice"
    assert {*alone} == {NO_ANSWER, "alice"}
    assert both == ["alice"] * STEPS


def test_a_login_says_in_time_that_no_server_answers_and_the_hub_goes_on(servers: Machine) -> None:
    """The limit is the login's own, whatever a server takes for each answer."""
    assert DirectoryAuthenticator().login_timeout == 10
    site = Logins(servers, answer_timeout=120, login_timeout=1)

    async def login_beside_others() -> int:
        login = asyncio.ensure_future(site.authenticator.authenticate(None, {"username": "alice", "password": "x"}))
        turns = 0
        while not login.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(HTTPError) as refused:
            login.result()
        assert refused.value.log_message == NO_ANSWER
        return turns

    with without(servers, SERVERS[0]), servers.network():
        began = time.monotonic()
        assert asyncio.run(login_beside_others()) > 1
        assert time.monotonic() - began < 60
    assert Logins(servers).name("alice") == "alice"
