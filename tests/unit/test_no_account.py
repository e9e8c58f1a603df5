"""A real hub with the default spawner: a user without an account gets a page that says so."""

from pathlib import Path

from tests.unit.real_hub import PEOPLE, log_in, running

CONFIG = """
from barehub.logins import require_local_account
c.Spawner.pre_spawn_hook = require_local_account  # as the base configuration has it
c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
"""


def test_the_page_of_a_server_says_that_there_is_no_account(tmp_path: Path) -> None:
    with running(tmp_path, PEOPLE + CONFIG) as hub:
        browser = log_in(hub, "nobody-here")
        page = browser.get(f"{hub.url}/hub/spawn/nobody-here")
        assert "There is no account nobody-here on this machine" in page.text
        assert "Traceback" not in hub.log.read_text()
