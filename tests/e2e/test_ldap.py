"""The overlay `ldap`: who is let in by real servers, who is not, what happens when they do not answer; and a site."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from barehub_ldap.authenticator import NO_ANSWER, DirectoryAuthenticator
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from tornado.web import HTTPError

from tests.machines import directory, installers
from tests.machines.browser import log_in
from tests.machines.directory import ADMINS_GROUP, ODD, PASSWORDS, POSIX_GROUP, USERS_GROUP
from tests.machines.hub_client import URL, HubSession
from tests.machines.machine import Machine, booted
from tests.machines.rootfs import USERS_ENVIRONMENT
from tests.readme import admin_commands

SERVERS = tuple(directory.SERVERS)
TLS = {"ca_certs_file": directory.CA, "valid_names": list(directory.SERVERS.values())}
BASE = "/opt/campus"
BAREHUB = f"{BASE}/hub/bin/barehub"
SECRET = f"{BASE}/jupyterhub_config.d/ldap-password"


def as_typed(login: str) -> str:
    """A site's `account_of`: no account of the machine that runs this test has these names."""
    return login


@pytest.fixture(scope="module")
def machine(root: Path) -> Iterator[Machine]:
    with booted("ldap", root, limits=True) as new:
        yield new


@pytest.fixture(scope="module")
def servers(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    directory.start(machine)
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.write_text(machine.read(directory.CA))
    TLS["ca_certs_file"] = str(ca)
    return machine


class Site:
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


@pytest.mark.parametrize("strategy", ["before_bind", "on_connect"])
@pytest.mark.parametrize(
    "how", [{}, {"lookup_dn": False, "bind_dn_template": f"uid={{username}},ou=people,{directory.BASE}"}]
)
def test_people_log_in_with_their_password(servers: Machine, strategy: str, how: dict[str, Any]) -> None:
    site = Site(servers, tls_strategy=strategy, **how)
    assert site.name("alice") == "alice"
    assert site.name("alice", PASSWORDS["bob"]) is None
    assert site.name("nobody", "wonderland") is None
    for nothing in ("", " ", "\N{SOFT HYPHEN}", "\0"):
        assert site.name("alice", nothing) is None


@pytest.mark.parametrize("name", PASSWORDS)
def test_any_name_is_itself(servers: Machine, name: str) -> None:
    assert Site(servers).name(name) == name
    assert Site(servers).name(name, PASSWORDS["alice"] + "x") is None
    if name in ODD:
        site = Site(servers, allow_all=False, allowed_groups=[USERS_GROUP])
        assert site.name(name) == name


def test_a_user_has_the_name_in_the_directory(servers: Machine) -> None:
    site = Site(servers)
    for typed in ("ALICE", " alice", "alice "):
        assert site.name(typed, PASSWORDS["alice"]) == "alice"
    assert Site(servers, user_attribute="mail").name("mail0@example.org", PASSWORDS["alice"]) == "alice"


@pytest.mark.parametrize("typed", ["ali*", "alice)(uid=*", "*)(uid=alice", "alice,ou=people", "\\61lice", "alice\0"])
def test_what_means_something_to_ldap_is_part_of_a_name(servers: Machine, typed: str) -> None:
    for how in ({}, {"lookup_dn": False, "bind_dn_template": f"uid={{username}},ou=people,{directory.BASE}"}):
        assert Site(servers, **how).name(typed, PASSWORDS["alice"]) is None


def test_groups_decide_who_may_log_in_and_who_is_an_administrator(servers: Machine) -> None:
    site = Site(servers, allow_all=False, allowed_groups=[USERS_GROUP], admin_groups=[ADMINS_GROUP])
    assert site.login("alice")["admin"] is False
    assert site.login("Grace")["admin"] is True
    assert site.login("bob") is None
    site = Site(servers, allow_all=False, allowed_groups=[POSIX_GROUP], admin_users={"bob"})
    assert site.login("bob")["admin"] is True
    assert site.login("alice") is None
    assert Site(servers, allow_all=False).login("alice") is None


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
            Site(servers, **wrong).login("alice")
        assert (refused.value.status_code, refused.value.log_message) == (503, NO_ANSWER), wrong


def test_no_password_is_logged(servers: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(HTTPError):
        Site(servers, lookup_dn_search_password="5ecret").login("alice")
    assert directory.HUB_DN in caplog.text
    assert Site(servers).login("alice", "wr0ng") is None
    assert "uid=alice" in caplog.text
    for secret in ("5ecret", "wr0ng", directory.HUB_PASSWORD):
        assert secret not in caplog.text


def test_the_next_server_is_asked_if_one_is_down_or_slow(servers: Machine) -> None:
    site = Site(servers, server_address=" ".join(SERVERS), answer_timeout=1, login_timeout=60)
    with without(servers, SERVERS[0]):
        assert site.name("alice") == "alice"
        assert site.authenticator.answered_last == SERVERS[1]
    with without(servers, SERVERS[1]):
        assert site.name("alice") == "alice"
        assert site.authenticator.answered_last == SERVERS[0]


def test_a_login_says_in_time_that_no_server_answers_and_the_hub_goes_on(servers: Machine) -> None:
    """The limit is the login's own, whatever a server takes for each answer."""
    assert DirectoryAuthenticator().login_timeout == 10
    site = Site(servers, answer_timeout=120, login_timeout=1)

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
    assert Site(servers).name("alice") == "alice"


@contextlib.contextmanager
def without(machine: Machine, server: str) -> Iterator[None]:
    """One of the servers accepts connections, and answers nothing."""
    machine.succeed("systemctl", "kill", "--signal=STOP", directory.unit(server))
    try:
        yield
    finally:
        machine.succeed("systemctl", "kill", "--signal=CONT", directory.unit(server))


# The site: the commands of the overlay's guide. The example is this directory's, but for the users' environment.


@pytest.fixture(scope="module")
def site(servers: Machine) -> Machine:
    servers.copy_in(installers.with_overlay("single-node", "ldap", name="campus"), "/mnt/campus.sh")
    for command in admin_commands("ldap", "/mnt/campus.sh", f"sed -i s,/opt/lab/current,{USERS_ENVIRONMENT},"):
        servers.shell(command)
        if "ldap-password" in command:
            servers.shell(f"stat -c %a {SECRET} | grep -x 640; printf '%s\\n' \"{directory.HUB_PASSWORD}\" >{SECRET}")
    servers.eventually(BAREHUB, "status")
    return servers


def test_alice_gets_from_the_first_page_to_her_notebook(site: Machine, browser: Chrome, screenshots: Path) -> None:
    browser.get(URL)
    log_in(browser, "Alice", PASSWORDS["alice"], screenshots / "ldap-login.png")
    browser.find_element(By.CSS_SELECTOR, ".jp-Launcher")
    browser.save_screenshot(screenshots / "ldap-lab.png")
    assert browser.current_url.startswith(f"{URL}/user/alice/lab")


def alice_again(site: Machine) -> HubSession:
    """Another login of alice's, whose server runs."""
    session = HubSession(site, "alice")
    session.login(PASSWORDS["alice"])
    session.get("/user/alice/lab").raise_for_status()
    return session


def test_the_pages_say_why_somebody_is_not_let_in(site: Machine) -> None:
    assert "Invalid username or password" in HubSession(site, "alice").login("wonderland").text  # PAM's
    assert "Invalid username or password" in HubSession(site, "bob").login(PASSWORDS["bob"]).text  # in no group
    answer = HubSession(site, "Grace").login(PASSWORDS["Grace"])
    assert (answer.status_code, "There is no account grace on this machine" in answer.text) == (403, True)


def test_the_hubs_password_is_nobody_elses(site: Machine) -> None:
    kernel = alice_again(site).start_kernel()
    assert directory.HUB_PASSWORD not in kernel.execute("import os; print(os.environ)")
    assert "PermissionError" in kernel.execute(
        f"try: open('{SECRET}')\nexcept OSError as error: print(type(error).__name__)"
    )
    site.succeed("chmod", "755", f"{BASE}/jupyterhub_config.d")
    site.succeed("chmod", "644", SECRET)
    said = site.succeed(BAREHUB, "status")
    assert f"everybody can read the secret {SECRET}: chown root:root {SECRET}; chmod 640 {SECRET}" in said
    site.succeed("chmod", "640", SECRET)
    said += site.succeed(BAREHUB, "status", "--json") + site.succeed("journalctl", "--no-pager")
    for secret in (directory.HUB_PASSWORD, PASSWORDS["alice"], PASSWORDS["Grace"]):
        assert secret not in said


def test_who_is_in_stays_in_while_nobody_else_gets_in(site: Machine) -> None:
    alice = alice_again(site)
    with without(site, SERVERS[0]), without(site, SERVERS[1]):
        answer = HubSession(site, "alice").login(PASSWORDS["alice"])
        assert (answer.status_code, NO_ANSWER.partition(".")[0] in answer.text) == (503, True)
        assert alice.is_logged_in()
        assert alice.start_kernel().execute("print(6 * 7)") == "42\n"
    with without(site, SERVERS[0]):
        assert alice_again(site).is_logged_in()
