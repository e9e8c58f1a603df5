"""A real hub with the default spawner: a user without an account gets a page that says so."""

from pathlib import Path

import requests

from tests.unit.real_hub import running

CONFIG = """
from barehub.logins import require_local_account
c.Spawner.pre_spawn_hook = require_local_account  # as the base configuration has it
c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
"""


def test_the_page_of_a_server_says_that_there_is_no_account(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as hub, requests.Session() as browser:
        browser.trust_env = False
        browser.get(f"{hub.url}/hub/login")
        form = {"username": "nobody-here", "password": "any", "_xsrf": browser.cookies.get("_xsrf", path="/hub/")}
        browser.post(f"{hub.url}/hub/login", data=form).raise_for_status()
        page = browser.get(f"{hub.url}/hub/spawn/nobody-here")
        assert "There is no account nobody-here on this machine" in page.text
        assert "Traceback" not in hub.log.read_text()
