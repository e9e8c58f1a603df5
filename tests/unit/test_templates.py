"""The pages of ours that stand in for JupyterHub's, with JupyterHub's own around them."""

import pytest
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader
from jupyterhub._data import DATA_FILES_PATH
from tornado.web import HTTPError

from tests.unit.installations import SHARE


def page(name: str = "not_running.html", **names: object) -> str:
    """What a page makes of these names, with loaders as in JupyterHub.init_tornado_settings."""
    theirs = FileSystemLoader(f"{DATA_FILES_PATH}/templates")
    loader = ChoiceLoader([FileSystemLoader(SHARE / "templates"), PrefixLoader({"templates": theirs}), theirs])
    environment = Environment(loader=loader, autoescape=True)
    around = {
        "static_url": lambda path, **_: path,
        "base_url": "/hub/",
        "prefix": "/",
        "user": None,
        "spawn_url": "/hub/spawn/ada",
    }
    return environment.get_template(name).render(
        **around, logout_url="", login_url="", no_spawner_check=True, parsed_scopes=(), expanded_scopes=(), **names
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "Not there", "/opt/<x>"), "[Errno 2] Not there: &#39;/opt/&lt;x&gt;&#39;"),
        (TimeoutError("did not respond in 30 seconds"), "did not respond in 30 seconds"),
        (HTTPError(500, "Spawner failed to start [status=1]."), "Spawner failed to start [status=1]."),
    ],
)
def test_whatever_keeps_a_server_from_starting_is_on_the_page(error: Exception, said: str) -> None:
    text = page(failed=True, exception=error)
    assert f'<p id="why-it-failed">{said}</p>' in text
    assert "The latest attempt to start your server" in text


def test_what_a_spawner_says_for_its_user_is_not_said_twice() -> None:
    assert "why-it-failed" not in page(failed=True, failed_message="no nodes", exception=RuntimeError("no nodes"))
    assert "why-it-failed" not in page(failed=False)


@pytest.mark.parametrize(("server", "path"), [("ada", "ada"), ("ada:lab", "ada/lab"), ("a b", "a%20b")])
def test_the_page_of_an_error_leads_to_the_reason(server: str, path: str) -> None:
    text = page("error.html", status_code=500, message=f"Unhandled error starting server {server}")
    assert f'href="/hub/spawn-pending/{path}"' in text
    assert "why-it-failed" not in page("error.html", status_code=404, message="No such page")
