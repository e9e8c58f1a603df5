"""barehub.rehearsal: what JupyterHub's start makes of the settings, found out before a hub has to start with them."""

import dataclasses
import getpass
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from barehub.config import ConfigError, OneLine
from barehub.evaluation import Evaluated, evaluate
from barehub.layout import Layout
from barehub.lifecycle.database import own_database

from tests.unit.installations import ME, add_user, make_database, refusal


def said(layout: Layout, text: str) -> Evaluated:
    (layout.config / "50-site.py").write_text(f"{text}\n")
    return evaluate(layout, dataclasses.replace(ME, hub_user=getpass.getuser()), os.environ)


ROLE = "c.JupyterHub.load_roles = [{'name': 'role', 'scopes': ['self'], %s}]"
SERVICE = "c.JupyterHub.services = [{'name': 'service', %s}]"
# What JupyterHub's traits take, and its start does not -> what is said, after the place.
MISTAKES = {
    SERVICE % "'nope': 1": "No such service field: nope",
    SERVICE % "'command': 'a b'": "JSONDecodeError",
    SERVICE % "'command': ['no-such-command']": "the command of the service service is not there: no-such-command",
    SERVICE % "'command': ['true'], 'user': 'nobody-here'": "the account of the service service is not there",
    SERVICE % "'command': ['./x'], 'user': 'nobody-here'": "the account of the service service is not there",
    SERVICE % "'url': 'nope'": "Unsupported scheme in URL for service",
    SERVICE % "'url': 'http://[::1'": "Invalid IPv6 URL",
    SERVICE % "'api_token': 'short'": "must be at least 8 characters",
    ROLE % "'services': ['nope']": "Found undefined service nope in role",
    ROLE % "'users': ['nobody-here']": "User nobody-here does not exist on the system",
    ROLE.replace("self", "nope") % "": "Scope 'nope' for role role does not exist",
    "c.JupyterHub.load_groups = {'group': ['nobody-here']}": "User nobody-here does not exist on the system",
    "c.JupyterHub.custom_scopes = {'nope': {'description': 'x'}}": "Invalid scope name: 'nope'",
    "c.JupyterHub.api_tokens = {'short': 'nobody'}": "must be at least 8 characters",
    "c.Authenticator.username_pattern = '['": "unterminated character set",
    "c.Authenticator.allowed_users = {'a'}; c.Authenticator.username_pattern = 'b'": "username 'a' is not valid",
    "c.Authenticator.enable_auth_state = True": "encryption is not available",
    "c.JupyterHub.subdomain_host = 'https://[::1'": "Invalid IPv6 URL",
    "c.JupyterHub.public_url = 'https://[::1'": "Invalid IPv6 URL",
    "c.JupyterHub.hub_routespec = '/hub/'; c.JupyterHub.subdomain_host = 'https://x.org'": "does not fit subdomain",
    "c.JupyterHub.db_url = 'nope://'": "sqlalchemy.dialects:nope",
    "c.JupyterHub.db_url = 'sqlite:////no/such/x.sqlite'": "db_url is /no/such/x.sqlite, which the hub's account",
    "c.JupyterHub.db_url = 'postgresql://u:p@h:hidden/d'": "c.JupyterHub.db_url cannot be read as a URL",
    "c.JupyterHub.db_url = 'mysql+pymysql://u:p@h/d'": "the driver of c.JupyterHub.db_url cannot be loaded: ModuleNot",
    "c.JupyterHub.services = [{'api_token': 'hidden'}]": "service spec must have a name:",
    "c.JupyterHub.db_kwargs = {'nope': 1}": "Invalid argument(s) 'nope'",
    "c.JupyterHub.pid_file = '/no/such/pid'": "pid_file is /no/such/pid, which the hub's account",
    "c.JupyterHub.extra_log_file = 'no/such.log'": "extra_log_file is no/such.log, which the hub's account",
    "c.JupyterHub.cookie_secret_file = '/no/such'": "cookie_secret_file is /no/such, which the hub's account",
    "c.JupyterHub.cookie_secret_file = '/etc/passwd'": "can be read or written by anybody",
    "c.JupyterHub.log_format = '%(nope)s'": "KeyError: 'nope'",
    "c.JupyterHub.jinja_environment_options = {'nope': 1}": "unexpected keyword argument 'nope'",
    "c.JupyterHub.extra_handlers = [5]": "'int' object is not iterable",
    "c.JupyterHub.reset_db = True": "c.JupyterHub.reset_db would empty the database at every start",
    "c.JupyterHub.show_config = True": "c.JupyterHub.show_config is an option of jupyterhub's command line",
    "c.JupyterHub.generate_config = True": "c.JupyterHub.generate_config is an option of jupyterhub's command line",
    "c.JupyterHub.proxy_cmd = 'x'": "c.JupyterHub.proxy_cmd is a setting of configurable-http-proxy",
    "c.ConfigurableHTTPProxy.auth_token = 'x'": "c.ConfigurableHTTPProxy.auth_token is a setting of configurable-http",
    "c.JupyterHub.port = 0": "c.JupyterHub.port makes the URL 'http://:0/', which is no address",
    "c.JupyterHub.subdomain_hook = 'nope'": "subdomain_hook must be 'idna'",
    "c.JupyterHub.cookie_secret = 'abc'": "cookie_secret set as a string must",
    "c.JupyterHub.hub_port = 0": "c.JupyterHub.hub_port makes the URL 'http://127.0.0.1:0', which is no address",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_what_the_hubs_start_would_fail_with_is_one_line_with_its_place(configured: Layout, text: str) -> None:
    what = refusal(lambda: said(configured, text))
    assert what.startswith(f"{configured.config}/50-site.py, line 1: ")
    assert MISTAKES[text] in what
    assert "hidden" not in what


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("c.Proxy.extra_routes = {'/x/': 'nope'}", "Proxy.extra_routes target /x/='nope' doesn't look like a URL"),
        ("c.Proxy.extra_routes = {'x': 5}", "Values of the 'extra_routes' trait of a BarehubProxy instance must be"),
        ("c.BarehubProxy.traefik_api_url = 'nope'", "traefik_api_url must be of the form http"),
        ("c.JupyterHub.ssl_key = '/k'", "ssl_key is set without ssl_cert"),
    ],
)
def test_what_the_proxy_would_fail_with_has_its_place(configured: Layout, text: str, what: str) -> None:
    found = refusal(lambda: said(configured, text).require_proxy())
    assert found.startswith(f"{configured.config}/50-site.py, line 1: ")
    assert what in found


@pytest.mark.parametrize(
    "text",
    [
        SERVICE % "'url': 'http://127.0.0.1:9', 'api_token': '0123456789'",
        SERVICE % "'command': ['true'], 'user': 'root'",
        SERVICE % "'command': ['./relative']",
        ROLE % "'users': ['root']",
        "c.JupyterHub.load_groups = {'group': ['root']}",
        "c.JupyterHub.subdomain_host = 'https://hub.example.org'",
        "c.JupyterHub.db_url = 'old.sqlite'; c.JupyterHub.db_kwargs = {'pool_size': 5}",
        "c.JupyterHub.db_url = 'sqlite:///file:/no/such/x.sqlite?uri=true'",
        "c.JupyterHub.pid_file = 'pid'; c.JupyterHub.extra_log_file = 'log'",
        "c.JupyterHub.template_paths = ['templates', '/no/such']",
        "c.JupyterHub.proxy_class = 'configurable-http-proxy'; c.ConfigurableHTTPProxy.auth_token = 'x'",
        "c.Proxy.extra_routes = {'/other/': 'http://127.0.0.1:9'}",
        "c.JupyterHub.subdomain_host = 'https://x.org'; c.Proxy.extra_routes = {'y.org/': 'http://127.0.0.1:9'}",
        "c.JupyterHub.allow_named_servers = True; c.JupyterHub.named_server_limit_per_user = 2",
        "c.JupyterHub.cleanup_proxy = True; c.JupyterHub.upgrade_db = True; c.JupyterHub.last_activity_interval = 0",
    ],
)
def test_what_the_hub_starts_with_is_taken_and_nothing_is_written(configured: Layout, text: str) -> None:
    found = said(configured, text)
    assert ("proxy_class" in text) is (found.proxy is None), found.no_proxy
    assert list(configured.hub_state.iterdir()) == []


def test_accounts_are_looked_for_and_never_created(configured: Layout, tmp_path: Path) -> None:
    create = "c.LocalAuthenticator.create_system_users = True"
    calls = f"c.LocalAuthenticator.add_user_cmd = ['touch', '{tmp_path}/called']"
    said(configured, f"{create}; {calls}; c.JupyterHub.load_groups = {{'group': ['nobody-here']}}")
    assert not (tmp_path / "called").exists()


# Authenticators that leave a trace where they are made, told of a user, or asked for an account.
OF_A_SITE = """\
from pathlib import Path
from barehub.logins import AccountPAM
from jupyterhub.auth import PAMAuthenticator
def trace(*_): return Path("TRACE").write_text("called") and None
class Made(PAMAuthenticator):
    def __init__(self, **traits):
        trace()
        super().__init__(**traits)
class Told(PAMAuthenticator):
    add_user = trace
class Asked(AccountPAM):
    pass
c.AccountPAM.account_of = trace
c.JupyterHub.load_groups = {"group": ["nobody-here"]}
c.JupyterHub.authenticator_class = """


@pytest.mark.parametrize("name", ["Made", "Told", "Asked", "AccountPAM"])
def test_a_sites_own_authenticator_does_nothing_in_a_rehearsal(configured: Layout, tmp_path: Path, name: str) -> None:
    said(configured, OF_A_SITE.replace("TRACE", f"{tmp_path}/called") + name)
    assert not (tmp_path / "called").exists()


def test_whom_the_hub_knows_already_needs_no_account_to_start(configured: Layout) -> None:
    add_user(make_database(own_database(configured), None), 2, "gone-by-now")
    said(configured, ROLE % "'users': ['gone-by-now']" + "; c.JupyterHub.load_groups = {'group': ['gone-by-now']}")
    with pytest.raises(ConfigError, match="User nobody-here does not exist"):
        said(configured, "c.JupyterHub.load_groups = {'group': ['gone-by-now', 'nobody-here']}")
    # Who is in another database is not known.
    said(configured, "c.JupyterHub.db_url = 'sqlite://'; c.JupyterHub.load_groups = {'group': ['nobody-here']}")


def test_a_line_that_has_nothing_to_do_with_a_mistake_is_not_named(configured: Layout) -> None:
    text = "c.Authenticator.allowed_users = {'root'}\nc.Authenticator.enable_auth_state = True"
    with pytest.raises(ConfigError, match=r"50-site\.py, line 2: .* encryption is not available"):
        said(configured, text)
    text = "c.JupyterHub.hub_routespec = '/'\nc.Authenticator.allowed_users = {'a b/c'}"
    with pytest.raises(ConfigError, match=r"50-site\.py, line 2: .* username 'a b/c' is not valid"):
        said(configured, text)


def test_a_traceback_is_one_line_until_the_hub_runs(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.Logger("JupyterHub", logging.INFO)
    log.addHandler(caplog.handler)
    log.addFilter(OneLine())
    for message in ("", "Error adding user %s already in db", "JupyterHub is now running", "Later"):
        try:
            raise OSError(99, "Cannot assign requested address")
        except OSError:
            log.exception(message, *(["ada"] if "%s" in message else []))
    said = [(record.getMessage(), record.exc_info is not None) for record in caplog.records]
    assert said[:2] == [
        ("The hub does not start: OSError: [Errno 99] Cannot assign requested address", False),
        ("Error adding user ada already in db: OSError: [Errno 99] Cannot assign requested address", False),
    ]
    assert said[3] == ("Later", True)


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_a_hub_that_cannot_start_says_so_in_one_line(configured: Layout, level: str) -> None:
    role = ROLE.replace("role'", "x'") % ""
    (configured.config / "50-site.py").write_text(f"c.Application.log_level = '{level}'\n{role}\n")
    words = [sys.executable, "-m", "jupyterhub", f"--config={configured.share}/jupyterhub_config.py"]
    environment = {**os.environ, "BAREHUB_BASE": str(configured.base)}
    done = subprocess.run(
        words, cwd=configured.hub_state, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    line = "The hub does not start: InvalidNameError: Invalid role name: 'x'. Role names must: - be 3-255"
    assert (line in done.stderr) is (level == "INFO")
    assert ("Traceback" in done.stderr) is (level == "DEBUG")
