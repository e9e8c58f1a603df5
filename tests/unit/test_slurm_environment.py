"""The overlay `slurm`: the environment of a job, from the form to what the database keeps."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from barehub.environments import started_from
from barehub.offering import OffersEnvironments, field
from barehub_slurm import launch
from barehub_slurm.choosing import ChoosesResources
from barehub_slurm.following import Following
from barehub_slurm.form import form, from_form
from barehub_slurm.jobs import Queue
from barehub_slurm.options import Offer, shown
from barehub_slurm.partitions import partitions
from barehub_slurm.port import from_report
from barehub_slurm.settings import SettingError, require_site
from traitlets.config import Config

from tests.unit.slurm_node import Hub, Node, node_with_hub

SINFO = "main*|up|1-00:00:00|8|16000|(null)|idle|3|all\n"
MODULES = """\
module() { [ "$*" = "load jupyter/4.2 cuda" ] && PATH="%s:$PATH" && echo "$* is done"; }
export -f module
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node on which `current` leads to the users' environment, and whose login files keep its commands on PATH."""
    with node_with_hub(tmp_path) as new:
        (tmp_path / "current").symlink_to("users")
        login(new, "")
        yield new


def login(node: Node, lines: str) -> None:
    (node.home / ".bash_profile").write_text(f'export PATH="{node.path}/bin:$PATH"\n{lines}\n')


def test_current_is_the_release_that_it_is_when_the_job_starts(node: Node) -> None:
    log, comments = node.run(node.script(f"{node.path}/current"))
    assert "server: 1 False" in log
    assert comments == ""
    (path,) = re.findall(r"^PATH=(.*)$", log, re.MULTILINE)
    assert path.split(":")[0] == f"{node.path}/users/bin"
    assert f"{node.path}/current" not in path


def test_a_login_file_cannot_change_which_release_that_is(node: Node) -> None:
    login(node, "cd() { :; }; pwd() { echo /x; }; export CDPATH=/")
    log, _ = node.run(node.script(f"{node.path}/current"))
    assert "server: 1 False" in log


def test_an_environment_that_is_not_there_or_closed_is_named(node: Node) -> None:
    for environment in ("/no/such/env", "/no/it's $HOME"):
        _, comments = node.run(node.script(environment))
        assert f"there is no {environment}/bin/python on the node c1 that you may run" in comments
    (node.path / "users/bin/python").chmod(0o644)
    _, comments = node.run(node.script(f"{node.path}/current"))
    assert f"there is no {node.path}/users/bin/python on the node c1 that you may run" in comments


def test_modules_bring_python_and_server(node: Node) -> None:
    login(node, MODULES % f"{node.path}/users/bin")
    (node.path / "users/bin/python3").symlink_to("python")
    script = node.script("module load jupyter/4.2  cuda", prologue="echo first; hash -r")
    log, comments = node.run(script)
    assert log.startswith("job 17 on c1\nfirst\nload jupyter/4.2 cuda is done\nserver: 1 False")
    assert comments == ""


def test_modules_that_cannot_be_loaded_are_named(node: Node) -> None:
    login(node, MODULES % "/nowhere")
    _, comments = node.run(node.script("module load other"))
    assert "module load other fails on the node c1" in comments
    login(node, f"module() {{ PATH={node.path}/bin; }}")
    _, comments = node.run(node.script("module load none"))
    assert "module load none brings no python3 on the node c1" in comments


def test_the_hub_is_told_what_the_server_runs_from(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        Hub, "do_POST", lambda self: (asked.append(self.path), self.send_response(201), self.end_headers())
    )
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "token")
    monkeypatch.setattr(launch, "accounts_at", lambda _: {os.getuid()})
    (tmp_path / "lab/releases/1").mkdir(parents=True)
    (tmp_path / "lab/current").symlink_to("releases/1")
    monkeypatch.setattr(launch.sys, "prefix", f"{tmp_path}/lab/current")  # as a module may name it
    launch.tell_when_ours(node.hub, 43210, os.getpid(), 5, "6.1.1")
    (path,) = asked
    prefix = parse_qs(urlsplit(path).query)["environment"][0]
    assert from_report(prefix, "6.1.1") == started_from(f"{tmp_path}/lab/releases/1", "6.1.1")


@pytest.mark.parametrize(
    ("prefix", "version"),
    [("", ""), ("relative", "six"), ("/a\nb", "6.1.1\n"), ("/" + "x" * 5000, "6" * 50), ("/\x1b[0m", "<b>")],
)
def test_what_cannot_be_a_prefix_or_a_version_is_not_kept(prefix: str, version: str) -> None:
    assert from_report(prefix, version) == started_from("", "")


def test_the_database_keeps_it_as_long_as_the_job() -> None:
    queue = Queue()
    job = Following(SimpleNamespace(log=logging.getLogger("test"), slurm=SimpleNamespace(uid=4001)), queue)
    job.begin("jupyterhub-1", 1)
    assert job.take_port(43210, started_from("/lab/releases/1", "6.1.1"))
    assert not job.take_port(43211, started_from("/evil", "1"))
    after = Following(job.spawner, queue)  # the hub was restarted
    after.load(job.state)
    assert after.state["environment"] == {"prefix": "/lab/releases/1", "jupyterhub": "6.1.1"}
    after.clear()
    assert after.state == {}


def test_the_form_has_it_first_and_sends_its_label() -> None:
    offer = Offer(partitions(SINFO), {}, {})
    text = form(offer, [], field({"Lab": "", "Old": ""}, "Old"))
    assert text.index('name="environment"') < text.index('name="partition"')
    assert text.count(" selected>Old</option>") == 1
    assert from_form({"environment": ["Old"], "partition": ["main"]}) == {"environment": "Old", "partition": "main"}
    assert "environment" not in form(offer, [])


def test_a_site_without_an_environment_is_told_so() -> None:
    spawner = SimpleNamespace(hub=SimpleNamespace(ip="10.0.0.1", connect_ip=""), hub_connect_url="", config=Config())
    spawner.environments, spawner.users_environment, spawner.cmd = {}, "", ["jupyterhub-singleuser"]
    with pytest.raises(SettingError, match="the users' environment is not set"):
        require_site(spawner)
    spawner.environments = {"Lab": "module load lab"}
    require_site(spawner)
    spawner.hub.ip = "127.0.0.1"
    with pytest.raises(SettingError, match=r"the hub listens at 127\.0\.0\.1, which nodes cannot reach"):
        require_site(spawner)


def test_the_site_can_move_and_rename_the_field() -> None:
    html = field({"Lab": "", "<Old>": ""}, "Lab", "<Software>")
    assert '<label class="form-label" for="environment">&lt;Software&gt;</label>' in html
    for fields, order in (
        ({}, ["environment", "slurm-partition"]),
        ({"partition": "Queue", "hours": "For", "environment": "<Software>"}, ["slurm-partition", "slurm-hours"]),
    ):
        offer = Offer(partitions(SINFO), {}, {}, labels=shown(fields))
        labels = re.findall(r'<label class="form-label" for="([^"]+)"', form(offer, [], html))
        assert labels[:2] == order
        assert "environment" in labels


def test_a_hidden_field_has_the_first_environment_whatever_is_sent() -> None:
    class Chooser(ChoosesResources, OffersEnvironments):
        users_environment = ""

    one = Chooser(environments={"Lab": "/lab/1", "Old": "/lab/0"})
    assert one.chosen({"environment": "Old"}) == ("Old", "/lab/0")
    one.fields = {"environment": None}
    assert one.chosen({"environment": "Old"}) == one.chosen({"environment": "None"}) == ("Lab", "/lab/1")
