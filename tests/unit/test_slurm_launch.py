"""The overlay `slurm`: launch.py, which starts the server in the job and tells the hub its port."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub_slurm import launch, node_ports

from tests.unit.proxies import wait_until
from tests.unit.slurm_node import LISTENER, Hub, Node, node_with_hub
from tests.unit.thief import stolen


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with node_with_hub(tmp_path) as new:
        yield new


def test_only_a_script_of_pythons_is_started_with_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "server"
    for first, wanted in (
        ("#!/opt/users/bin/python3.11", ["/opt/users/bin/python3.11", "-s", str(script), "--one"]),
        ("#!/opt/users/bin/python", ["/opt/users/bin/python", "-s", str(script), "--one"]),
        ("#!/bin/sh", [str(script), "--one"]),  # pip's, if the path is long or has spaces
        ("#!/usr/bin/env python3", [str(script), "--one"]),
    ):
        monkeypatch.delenv("PYTHONNOUSERSITE", raising=False)
        script.write_text(f"{first}\n")
        assert launch.without_user_site([str(script), "--one"]) == wanted
        assert os.environ.get("PYTHONNOUSERSITE") == (None if "-s" in wanted else "1")


def test_the_hub_is_told_a_port_once_the_server_has_it(node: Node) -> None:
    node.program("users/bin/server", f"#!{node.path}/users/bin/python\n{LISTENER}")
    job = threading.Thread(target=node.run)
    job.start()
    log = node.home / ".jupyterhub/job-17.log"
    wait_until(log.exists)
    assert Hub.reports == []  # until it listens, the port may become anybody's
    (node.home / "listen").touch()
    wait_until(lambda: Hub.reports)
    (report,) = Hub.reports
    assert json.loads(report)["port"] >= 1024
    (node.home / "end").touch()
    job.join()
    assert not (node.path / "comments").exists()


def test_a_port_that_another_account_has_taken_is_not_told(
    node: Node, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{node.path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with socket.create_server(("127.0.0.1", 0)) as thief, subprocess.Popen(["sleep", "infinity"]) as server:
        port = thief.getsockname()[1]
        monkeypatch.setattr(os, "getuid", lambda: 65533)  # somebody else's
        with pytest.raises(SystemExit):
            launch.tell_when_ours(node.hub, port, server.pid, 5)
        assert server.wait() == -signal.SIGTERM
    assert Hub.reports == []
    assert f"port {port} on " in (node.path / "comments").read_text()
    assert "was taken by the account" in capfd.readouterr().err


@pytest.mark.parametrize("end", ["by itself", "killed", "cancelled"])
def test_nobody_else_gets_the_port_while_a_route_leads_to_it(node: Node, end: str) -> None:
    """Neither while the server runs, nor once it has ended and the hub does not know that yet."""
    node.program("users/bin/server", f"#!{node.path}/users/bin/python\n{LISTENER}")
    (node.home / "listen").touch()
    with node.running() as job:
        wait_until(lambda: Hub.reports)
        port = json.loads(Hub.reports[0])["port"]
        assert stolen(port) == []
        Hub.routed.set()
        server, parent = map(int, (node.home / "pids").read_text().split())
        assert parent == job.pid
        match end:
            case "by itself":
                (node.home / "end").touch()
            case "killed":
                os.kill(server, signal.SIGKILL)
            case "cancelled":  # Slurm's SIGTERM is for all processes of a job
                os.kill(job.pid, signal.SIGTERM)
                os.kill(server, signal.SIGTERM)
        wait_until(lambda: Hub.ends)
        assert node_ports.accounts_at(port) == set()
        assert stolen(port) == []
        assert job.poll() is None
        Hub.routed.clear()
    assert job.returncode == {"by itself": 0, "killed": -signal.SIGKILL, "cancelled": -signal.SIGTERM}[end]
    assert Hub.ends == ["/hub/api/batchspawner"]
    assert len(stolen(port)) > 20  # these ways would have worked
    assert not (node.path / "comments").exists()


def test_a_hub_that_is_away_does_not_keep_a_job(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as away:
        port = away.getsockname()[1]
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "token")
    launch.tell_end(f"http://127.0.0.1:{port}/hub/api", 0.1)


def test_a_signal_for_the_first_process_of_a_job_alone_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, launch.SIGNALS)
    try:
        with subprocess.Popen(["python3", "-c", UNBLOCKED]) as server:
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            status = launch.wait_for(server.pid)
            server.returncode = 0  # it has been waited for
        assert os.WTERMSIG(status) == signal.SIGTERM
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


UNBLOCKED = "import signal, time; signal.pthread_sigmask(signal.SIG_SETMASK, []); time.sleep(60)"


def test_a_server_that_never_listens_is_not_waited_for(node: Node) -> None:
    with socket.socket() as reserved, subprocess.Popen(["true"]) as server:
        reserved.bind(("127.0.0.1", 0))  # not listening
        assert not launch.tell_when_ours(node.hub, reserved.getsockname()[1], server.pid, 5)
    assert Hub.reports == []


def test_jupyterlab_of_any_environment_finds_the_extension(node: Node) -> None:
    (node.home / ".bash_profile").write_text("export JUPYTER_PATH=/mine\n")
    log, _ = node.run()
    place = node.home / ".cache/barehub/jupyter"
    assert f"\nJUPYTER_PATH={place}:/mine\n" in log
    (extension,) = place.glob("labextensions/*/package.json")
    package = json.loads(extension.read_text())
    script = extension.parent / package["jupyterlab"]["_build"]["load"]
    assert package["name"] == extension.parent.name == launch.LAB
    assert f'const NAME = "{launch.LAB}"' in script.read_text()
    node.run()  # another server, of another node perhaps
    assert sorted(path.name for path in extension.parent.rglob("*.*")) == sorted(["package.json", script.name])


def test_without_room_for_the_extension_the_server_starts_without_it(node: Node) -> None:
    (node.home / ".cache").write_text("in the way")
    log, comments = node.run()
    assert "server:" in log
    assert "JUPYTER_PATH" not in log
    assert comments == ""


@pytest.mark.parametrize("hub", ["head.cluster", "10.0.0.1", "fd00::1"])
def test_the_hub_is_reached_directly_by_its_name_or_address(monkeypatch: pytest.MonkeyPatch, hub: str) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    for name, value in (("no_proxy", "localhost"), ("NO_PROXY", "other")):
        monkeypatch.setenv(name, value)
    launch.reach_hub_directly(f"http://{f'[{hub}]' if ':' in hub else hub}:334/hub/api")
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == f"{hub},localhost"


def test_a_job_with_a_range_tries_the_next_port_where_somebody_listens(node: Node) -> None:
    """At one, another server listens; at one, an IPv6 one; one is claimed by a job whose server does not listen yet."""
    with contextlib.ExitStack() as taken:
        first = free_run_of(4)
        taken.enter_context(socket.create_server(("", first)))
        taken.enter_context(socket.create_server(("::1", first + 1), family=socket.AF_INET6))
        taken.enter_context(node_ports.claimed(first + 2))
        node.program("users/bin/server", f"#!{node.path}/users/bin/python\n{LISTENER}")
        (node.home / "listen").touch()
        path = f"export PATH={node.path}/bin:$PATH"  # which the machine's /etc/profile may have replaced
        script = node.script(port_range=f"{first}-{first + 3}", prologue=path)
        job = threading.Thread(target=node.run, args=[script])
        job.start()
        wait_until(lambda: Hub.reports)
        assert [json.loads(report)["port"] for report in Hub.reports] == [first + 3]
        try:
            _, comment = node.run(script)
        finally:
            (node.home / "end").touch()
            job.join()
        assert f"all ports of {first}-{first + 3} on c1 are in use" in comment


def free_run_of(count: int) -> int:
    """Return the first of so many ports in a row at which nobody listens."""
    return next(
        first
        for first in range(20000, 30000, count)
        if not any(node_ports.accounts_at(first + one) for one in range(count))
    )


def test_jobs_that_start_at_the_same_time_choose_different_ports() -> None:
    first = free_run_of(5)
    with contextlib.ExitStack() as claims:
        found = [node_ports.free_port(f"{first}-{first + 4}") for _ in range(5)]
        for _, held in found:
            for one in held:
                claims.enter_context(one)
    assert sorted(port for port, _ in found) == [*range(first, first + 5)]


def test_listeners_of_either_family_count() -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.create_server((host, 0), family=family) as server:
            assert node_ports.accounts_at(server.getsockname()[1]) == {os.getuid()}
    assert node_ports.accounts_at(1, tables=["/nowhere"]) == set()
