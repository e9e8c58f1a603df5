"""The example 80-metrics.py with a real hub and a real traefik; and the dashboard, by what all of them export."""

import asyncio
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests import readme
from tests.unit import proxies
from tests.unit.installations import NEW, SHARE, make_active, make_release
from tests.unit.proxies import free_port, named_server, wait_until
from tests.unit.real_hub import ADMIN, RealHub, log_in, start, with_example
from tests.unit.supervised import Place, place_in

if os.environ.get("CI") != "true":
    pytest.importorskip("jupyterhub_traefik_proxy")

from barehub.config import NoNoise, load_hub
from barehub.layout import Layout
from barehub.metrics import exposition
from barehub.proxy import BarehubProxy
from barehub.status import Status
from traitlets import TraitError

EXAMPLES = SHARE / "examples"
TOKEN = "5" * 64
CONFIG = """
import logging
from barehub.config import NoNoise
for name in ("tornado.access", "tornado.application"):
    logging.getLogger(name).addFilter(NoNoise())
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHub]:
    with with_example("80-metrics.py", TOKEN, tmp_path_factory.mktemp("base"), CONFIG) as new:
        log_in(new, "ada")
        start(new, "ada", ADMIN)
        yield new


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A proxy whose metrics are on, with a hub behind it."""
    with place_in(tmp_path) as new, named_server("hub") as behind:
        monkeypatch.setenv("BAREHUB_BASE", str(new.base))
        proxies.barehub_config(new.base, f"127.0.0.1:{new.web}", f"127.0.0.1:{new.api}", TOKEN)
        new.systemd.start()
        new.systemd.wait_until_ready()
        route(new, behind, TOKEN)
        yield new


def route(place: Place, target: str, password: str) -> None:
    """Let the hub's side of the proxy add the routes to the hub, and to a user's server."""

    async def add() -> None:
        urls = {"public_url": f"http://127.0.0.1:{place.web}", "traefik_api_url": f"http://127.0.0.1:{place.api}"}
        proxy = BarehubProxy(metrics_password=password, **urls)
        await proxy.add_route("/", target, {"hub": True})
        await proxy.add_route("/user/lovelace/", target, {"user": "lovelace"})

    asyncio.run(add())


def scrape(port: int, password: str = TOKEN, user: str = "metrics", path: str = "/metrics") -> requests.Response:
    return requests.get(f"http://127.0.0.1:{port}{path}", auth=(user, password), timeout=60)


def test_the_token_reads_numbers_and_nothing_else(hub: RealHub) -> None:
    assert "jupyterhub_running_servers 1.0" in hub.get("/hub/metrics", TOKEN).text
    assert hub.get("/hub/metrics").status_code == 403
    for method, path in (
        ("GET", "/hub/api/users"),
        ("GET", "/hub/api/users/ada"),
        ("GET", "/hub/api/groups"),
        ("GET", "/hub/api/proxy"),
        ("GET", "/hub/api/info"),
        ("POST", "/hub/api/users/ada/server"),
        ("DELETE", "/hub/api/users/ada/server"),
        ("POST", "/hub/api/users/ada/tokens"),
        ("POST", "/hub/api/users/eve"),
        ("POST", "/hub/api/shutdown"),
    ):
        assert hub.ask(method, path, TOKEN).status_code in (403, 404), path


def test_the_hub_logs_one_line_for_a_request_and_none_for_checks(hub: RealHub) -> None:
    for path in ("/hub/health", "/hub/metrics", "/hub/metrics?x=1", "/hub/static/favicon.ico"):
        assert hub.get(path, TOKEN).status_code == 200
    assert hub.get("/hub/metrics?token=secret").status_code == 403
    assert hub.get("/hub/login?next=/hub/metrics").status_code == 200
    wait_until(lambda: "/hub/login?next=/hub/metrics" in hub.log.read_text())
    lines = hub.log.read_text().splitlines()
    assert [line for line in lines if re.search("200 GET /hub/(health|metrics|static)", line)] == []
    assert len([line for line in lines if "403 GET /hub/metrics?token=[secret]" in line]) == 1
    assert len([line for line in lines if "200 GET /hub/login?next=/hub/metrics" in line]) == 1


def test_a_visitors_first_request_is_one_line(hub: RealHub) -> None:
    before = len(hub.log.read_text().splitlines())
    assert requests.get(f"{hub.url}/hub/login?first", timeout=60).cookies["_xsrf"]
    wait_until(lambda: "/hub/login?first" in hub.log.read_text())
    (line,) = hub.log.read_text().splitlines()[before:]
    assert "200 GET /hub/login?first" in line


@pytest.mark.parametrize(
    ("text", "is_noise"),
    [
        ("200 GET /hub/health (@127.0.0.1) 1234.56ms", True),  # of a hub with much to do
        ("200 HEAD /dev/hub/health (@127.0.0.1) 1234.56ms", True),
        ("200 GET /hub/static/js/home.js?v=1 (@::1) 1234.56ms", True),
        ('{\n  "Host": "hub.example.org"\n}', True),
        ("500 GET /hub/home (alice@::1) 1.00ms", False),
        ("503 GET /hub/health (@127.0.0.1) 1.00ms", False),
        ("200 GET /hub/healthy (@127.0.0.1) 1.00ms", False),
        ("200 GET /hub/login?next=/hub/health (@::1) 1.00ms", False),
        ("200 POST /hub/metrics (@::1) 1.00ms", False),
    ],
)
def test_what_comes_every_few_seconds_is_not_logged_if_it_went_well(text: str, is_noise: bool) -> None:
    record = logging.LogRecord("tornado.access", logging.INFO, "", 0, text, (), None)
    assert NoNoise().filter(record) != is_noise


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_with_debug_the_hub_logs_scrapes_too(layout: Layout, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setattr(logging.getLogger("tornado.access"), "filters", filters := [])
    make_release(layout, NEW)
    make_active(layout, monkeypatch)
    filters.clear()
    (layout.config / "50-site.py").write_text(f"c.JupyterHub.log_level = {level!r}")
    load_hub(layout)
    assert [type(one) for one in filters] == ([NoNoise] if level == "INFO" else [])


def test_traefiks_numbers_are_where_its_api_is_for_those_with_the_password(place: Place) -> None:
    assert "traefik_config_reloads_total" in scrape(place.api).text
    assert requests.get(f"http://127.0.0.1:{place.api}/metrics", timeout=60).status_code == 401
    assert scrape(place.api, "wrong").status_code == scrape(place.api, user="barehub").status_code == 401
    assert scrape(place.api, path="/api/rawdata").status_code == 401  # it is not the API's password


def test_what_the_guide_has_for_prometheus_is_answered(hub: RealHub, place: Place) -> None:
    written = re.search(r"^```yaml\n(scrape_configs:.*?)^```", readme.ADMIN.read_text(), re.MULTILINE | re.DOTALL)
    assert written
    hubs, traefiks = yaml.safe_load(written[1])["scrape_configs"]
    assert hubs["authorization"].keys() == {"credentials_file"}  # whose type is Bearer, then
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert requests.get(hub.url + hubs["metrics_path"], headers=bearer, timeout=60).status_code == 200
    assert "metrics_path" not in traefiks  # so it is /metrics
    assert scrape(place.api, user=traefiks["basic_auth"]["username"]).status_code == 200


def test_nobody_comes_to_them_through_the_doors_of_the_proxy(place: Place) -> None:
    for path in ("/metrics", "/metrics/", "/user/lovelace/metrics", "//metrics", "/user/../metrics"):
        assert scrape(place.web, path=path).text == "hub", path


def test_they_name_no_user(place: Place) -> None:
    assert scrape(place.web, path="/user/lovelace/").text == "hub"
    wait_until(lambda: "traefik_entrypoint_requests_total" in scrape(place.api).text)
    assert "lovelace" not in scrape(place.api).text


def test_without_a_password_there_are_none(place: Place) -> None:
    route(place, f"http://127.0.0.1:{free_port()}", "")
    wait_until(lambda: scrape(place.api).status_code == 404)
    proxies.barehub_config(place.base, f"127.0.0.1:{place.web}", f"127.0.0.1:{place.api}")
    assert "metrics" not in json.loads((place.base / "state/proxy/traefik.yaml").read_text())


def test_a_password_that_bcrypt_cannot_take_is_refused() -> None:
    with pytest.raises(TraitError, match="longer than 72 bytes"):
        BarehubProxy(should_start=True, metrics_password="x" * 73)


Known = dict[str, dict[str, set[str]]]  # metric -> label -> its values


def known(*scraped: str) -> Known:
    found: Known = {}
    for text in scraped:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = found.setdefault(sample.name, defaultdict(set))
                for label, value in sample.labels.items():
                    labels[label].add(value)
    return found


def test_the_dashboard_shows_what_is_really_exported(hub: RealHub, place: Place) -> None:
    scrape(place.web)
    wait_until(lambda: "traefik_entrypoint_requests_total" in scrape(place.api).text)
    ours = Status("/b", "2026.11.24", [], units={"barehub-hub.service": "active"}, hub=200, proxy=200)
    ours.certificate_ends, ours.backups = "2026-12-24T12:00:00+00:00", [str(place.base / "state/proxy/traefik.yaml")]
    ours.last_backup = ours.certificate_ends
    ours.environment_states = {"lab": "misfit"}
    exported = known(hub.get("/hub/metrics", TOKEN).text, scrape(place.api).text, exposition(ours))
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    assert dashboard["panels"]
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            check(target["expr"], target["legendFormat"], exported)


def check(expression: str, legend: str, exported: Known) -> None:
    """Each metric of an expression is there, with the labels that it is asked for, and those of its legend."""
    metrics = re.findall(r"\b((?:barehub|jupyterhub|traefik)_\w+)(?:\{([^}]*)\})?", expression)
    assert metrics, expression
    shown = re.findall(r"\{\{(\w+)\}\}", legend)
    for name, matchers in metrics:
        assert name in exported, f"{name} in {expression}"
        for label, how, value in re.findall(r'(\w+)(!?=~?)"([^"]*)"', matchers):
            there = exported[name][label]
            assert there - {value} if how == "!=" else value in there, f"{label} in {expression}: {there}"
        for label in {*shown, *re.findall(r"by \((\w+)\)", expression)}:
            assert label in exported[name], f"{label} in {expression}"


def test_the_timer_runs_what_exists() -> None:
    unit = (EXAMPLES / "barehub-metrics.service").read_text()
    assert re.search(r"^ExecStart=/opt/barehub/hub/bin/barehub status --prometheus \S+\.prom$", unit, re.MULTILINE)
