"""A real hub with the overlay `slurm`'s form: links fill it in, and start nothing; the last choice comes back."""

import html
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.unit.real_hub import RealHub, running
from tests.unit.slurm_commands import Commands
from tests.unit.slurm_recorded import RECORDED

# Servers are processes here. Everything else of the form, from Slurm's commands to JupyterHub's page, is real.
CONFIG = """
from types import SimpleNamespace
from barehub.offering import OffersEnvironments
from barehub_slurm.choosing import ChoosesResources
from barehub_slurm import estimate, left
from barehub_slurm.internals import let_links_fill_in
from barehub_slurm.slurm import Slurm
from jupyterhub.spawner import SimpleLocalProcessSpawner

estimate.add_handler()
left.add_handler()
let_links_fill_in()

class FormSpawner(ChoosesResources, OffersEnvironments, SimpleLocalProcessSpawner):
    job = SimpleNamespace(last_end="")
    queue_interval = 5
    req_account = req_qos = req_reservation = ""
    summary = SimpleNamespace(left=90)

    @property
    def slurm(self):  # there is no account alice on this machine
        return Slurm({commands!r}, self.user.name, {commands!r} + "/as-user {{username}}")

    environments = {{"Lab": "/lab/1", "Old": "/lab/0"}}

    def get_req_subvars(self):
        return {{}}

    async def start(self):
        (await self.offer()).check(self.user_options)
        return await super().start()

c.JupyterHub.spawner_class = FormSpawner
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.FormSpawner.presets = {{
    "GPU for <teaching>": {{"partition": "gpu", "gpus": 2, "kind": "v100", "hours": 1}},
    "Beyond": {{"cores": 1000}},
    "Elsewhere": {{"environment": "None"}},
}}
c.FormSpawner.fields = {{"hours": "Duration", "directory": "Working directory", "account": None}}
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHub]:
    commands = Commands(tmp_path_factory.mktemp("commands"))
    commands.play(RECORDED)
    with running(tmp_path_factory.mktemp("hub"), CONFIG.format(commands=str(commands.directory)), "slurm") as new:
        yield new


@pytest.fixture
def browser(hub: RealHub) -> Iterator[requests.Session]:
    with requests.Session() as new:
        new.trust_env = False
        new.get(f"{hub.url}/hub/login")
        form = {"username": "alice", "password": "any", "_xsrf": xsrf(new)}
        new.post(f"{hub.url}/hub/login", data=form).raise_for_status()
        yield new


def xsrf(browser: requests.Session) -> str:
    return next(one.value for one in browser.cookies if one.name == "_xsrf" and one.path == "/hub/")


def filled(page: str) -> dict[str, str]:
    """Return what a browser would send of the form on this page."""
    sent = dict(re.findall(r'<input[^>]* name="([^"]+)"[^>]* value="([^"]*)"', page))
    for name, options in re.findall(r'<select[^>]* name="([^"]+)"[^>]*>(.*?)</select>', page, re.DOTALL):
        if chosen := re.search(r'<option value="([^"]*)" selected', options):
            sent[name] = chosen[1]
    return {name: html.unescape(value) for name, value in sent.items()}


def test_a_link_fills_the_form_in_and_starts_nothing(hub: RealHub, browser: requests.Session) -> None:
    page = browser.get(f"{hub.url}/hub/spawn?opt-partition=gpu&opt-gpus=2&opt-kind=t4&opt-hours=1.5")
    assert page.status_code == 200
    sent = filled(page.text)
    assert (sent["partition"], sent["gpus"], sent["kind"], sent["hours"]) == ("gpu", "2", "t4", "1.5")
    assert "Server Options" in page.text
    assert "active server" not in browser.get(f"{hub.url}/hub/home").text
    assert "Traceback" not in hub.log.read_text()


@pytest.mark.parametrize(
    "query",
    [
        "opt-cores=1000",
        "opt-partition=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        "opt-directory=%3Cb%3E%0Aa",
        "opt-kind=%3Cimg%20src=x%3E&opt-gpus=1&opt-partition=gpu",
        "cores=nan",
        "opt-environment=%3Cb%3EGone",
    ],
)
def test_a_link_that_asks_for_what_cannot_be_had_says_so(hub: RealHub, browser: requests.Session, query: str) -> None:
    page = browser.get(f"{hub.url}/hub/spawn?{query}")
    assert page.status_code == 200
    assert "The link asks for what you cannot have." in page.text
    assert filled(page.text)["partition"] == "main"
    form = page.text.partition('id="slurm-notice"')[2]
    assert not re.search(r"<script>alert|<img|<b>", form)


def test_a_link_cannot_set_what_the_site_hides(hub: RealHub, browser: requests.Session) -> None:
    page = browser.get(f"{hub.url}/hub/spawn?opt-account=physics&opt-cores=2").text
    assert (filled(page).get("account"), filled(page)["cores"]) == (None, "2")


def test_a_preset_is_a_link_and_what_cannot_be_had_is_none(hub: RealHub, browser: requests.Session) -> None:
    page = browser.get(f"{hub.url}/hub/spawn?next=/hub/home").text
    ((link, label),) = re.findall(r'<a class="btn btn-secondary[^"]*" href="([^"]*)">([^<]*)</a>', page)
    assert html.unescape(label) == "GPU for <teaching>"
    query = parse_qs(urlsplit(html.unescape(link)).query)
    assert query == {
        "opt-partition": ["gpu"], "opt-gpus": ["2"], "opt-kind": ["v100"], "opt-hours": ["1"], "next": ["/hub/home"],
    }  # fmt: skip
    assert filled(browser.get(f"{hub.url}/hub/spawn{html.unescape(link)}").text)["kind"] == "v100"


def test_fields_are_named_ordered_and_hidden_as_the_site_says(hub: RealHub, browser: requests.Session) -> None:
    page = browser.get(f"{hub.url}/hub/spawn").text
    labels = re.findall(r'<label class="form-label" for="slurm-(\w+)">([^<]*)</label>', page)
    assert labels[:3] == [("hours", "Duration (h)"), ("directory", "Working directory"), ("partition", "Partition")]
    assert "account" not in dict(labels)
    assert "Free now: main 182 of 242 cores; gpu 156 of 160 cores, 3 a100, 16 shares" in page


def test_the_last_choice_comes_back(hub: RealHub, browser: requests.Session) -> None:
    page = browser.get(f"{hub.url}/hub/spawn").text
    sent = filled(page) | {"partition": "gpu", "gpus": "1", "kind": "a100", "cores": "3", "directory": "~/it's"}
    started = browser.post(f"{hub.url}/hub/spawn?_xsrf={xsrf(browser)}", data=sent, allow_redirects=False)
    assert started.status_code == 302, started.text
    headers = {"X-XSRFToken": xsrf(browser), "Referer": f"{hub.url}/hub/home"}
    stopped = browser.delete(f"{hub.url}/hub/api/users/alice/server?_xsrf={xsrf(browser)}", headers=headers)
    assert stopped.status_code in (202, 204), stopped.text
    again = filled(browser.get(f"{hub.url}/hub/spawn").text)
    assert {name: again[name] for name in ("partition", "gpus", "kind", "cores", "directory")} == {
        "partition": "gpu", "gpus": "1", "kind": "a100", "cores": "3", "directory": "~/it's",
    }  # fmt: skip


def test_who_asks_is_told_when_a_server_would_start(hub: RealHub, browser: requests.Session) -> None:
    def ask(name: str, **sent: str) -> requests.Response:
        headers = {"X-XSRFToken": xsrf(browser)}
        return browser.post(f"{hub.url}/hub/api/users/{name}/slurm-start", json=sent, headers=headers)

    # There is no account alice on this machine as whom Slurm could be asked.
    assert ask("alice", partition="main", cores="2").json() == {"text": "Slurm does not answer at present."}
    refused = ask("alice", partition="main", cores="1000").json()["text"]
    assert "Cores: a server in the partition main can have 62, not 1000" in refused
    assert ask("bob").status_code in (403, 404)
    assert requests.post(f"{hub.url}/hub/api/users/alice/slurm-start", json={}, timeout=60).status_code == 403


def test_who_may_use_a_server_may_ask_how_much_time_it_has_left(hub: RealHub, browser: requests.Session) -> None:
    def ask(name: str, **headers: str) -> requests.Response:
        return browser.get(f"{hub.url}/hub/api/users/{name}/slurm-left/", headers=headers)

    own = {"X-XSRFToken": xsrf(browser)}
    assert ask("alice", **own).json() == {"seconds": 5400}
    # JupyterLab's page has such a token (jupyterhub/spawner.py, access_scopes).
    scopes = ["access:servers!server=alice/"]
    made = browser.post(f"{hub.url}/hub/api/users/alice/tokens", json={"scopes": scopes}, headers=own).json()
    for name, status in (("alice", 200), ("bob", 404)):
        url, token = f"{hub.url}/hub/api/users/{name}/slurm-left/", {"Authorization": f"token {made['token']}"}
        assert requests.get(url, headers=token, timeout=60).status_code == status
    assert ask("bob", **own).status_code in (403, 404)
    assert requests.get(f"{hub.url}/hub/api/users/alice/slurm-left/", timeout=60).status_code == 403
