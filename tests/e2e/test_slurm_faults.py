"""What goes wrong on real clusters, and what users are told. After each test nothing is left.

An environment that does not fit, a node that dies, a hub or a slurmctld that is away, a job that is not what it claims.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websocket import WebSocketException

from tests.machines.cluster import Cluster
from tests.machines.hub_client import URL
from tests.machines.machine import until
from tests.machines.slurm_abuse import abuse
from tests.machines.slurm_site import BAREHUB, HUB, api, failure, full, page, require_clean, site, user, wait_for_end

THIEF = """\
import contextlib, socket, sys

with socket.socket() as thief:
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    while True:
        with contextlib.suppress(OSError):
            if not thief.getsockname()[1]:
                thief.bind(("0.0.0.0", int(sys.argv[1])))
            thief.listen()
            break
    print("took", flush=True)
    while True:
        print(thief.accept()[0].recv(1000), flush=True)
"""


@pytest.fixture(scope="module")
def cluster(root: Path, slurm_installer: Path) -> Iterator[Cluster]:
    with site(root, slurm_installer) as new:
        yield new


@pytest.fixture(autouse=True)
def clean(cluster: Cluster) -> Iterator[None]:
    yield
    require_clean(cluster)


def test_what_keeps_a_server_from_starting_is_named(cluster: Cluster) -> None:
    cluster.add_user("carol", 2001, home=False)
    alice, carol = user(cluster, "alice"), user(cluster, "carol")
    carol.ask_for_server()
    assert "your home directory /home/carol is not there on the node c" in failure(carol)
    for node in cluster.nodes.values():  # an environment that claims to hold an old jupyterhub
        node.succeed("python3", "-m", "venv", "--without-pip", "/opt/old")
        node.succeed("python3", "-m", "venv", "--without-pip", "/opt/none")
        node.write("/opt/old/lib/python3.11/site-packages/jupyterhub.py", "__version__ = '4.1.6'")
    for options, why in (
        ({"users_environment": "/opt/nowhere"}, "there is no /opt/nowhere/bin/python on the node c"),
        ({"users_environment": "/opt/none"}, "the users' environment /opt/none has no jupyterhub; the hub's is 6."),
        ({"users_environment": "/opt/old"}, "/opt/old has jupyterhub 4.1.6, which is too old for the hub's 6."),
        # Port 9 of the head is closed.
        ({"hub_connect_url": "http://head:9"}, "could not reach the hub at http://head:9/hub/api: "),
    ):
        alice.ask_for_server(**options)
        assert why in failure(alice)


def test_login_files_do_not_keep_a_server_from_starting(cluster: Cluster) -> None:
    """They end slurmd's `su` as well, so that the job begins with no environment at all."""
    alice = user(cluster, "alice")
    cluster.head.succeed("sh", "-c", "echo 'export PYTHONPATH=/nowhere PYTHONHOME=/x; exit' >/home/alice/.bash_profile")
    cluster.head.succeed("chown", "alice:", "/home/alice/.bash_profile")
    alice.start_server(cores=1)  # with no options it would have those of the last start
    printed = alice.start_kernel().execute("import os; print(os.getcwd(), os.environ.get('PYTHONHOME'))")
    assert printed == "/home/alice None\n"
    log = cluster.head.read(f"/home/alice/.jupyterhub/job-{job_of(cluster, 'alice')}.log")
    assert "Note: (your login file ~/.bash_profile ended the shell that read it" in log
    cluster.head.succeed("rm", "/home/alice/.bash_profile")
    assert alice.stop_server().status_code == 204


def test_a_server_that_is_killed_says_why(cluster: Cluster) -> None:
    """One for its memory, one for its time, one with its node."""
    alice, bob = user(cluster, "alice"), user(cluster, "bob")
    alice.start_server(memory=0.5, partition="main")
    kernel = alice.start_kernel()
    with suppress(WebSocketException):  # the connection ends with the server
        kernel.execute("x = bytearray(1 << 30)")
    wait_for_end(cluster, "alice")
    assert "most likely because it used more than its 512M of memory" in page(alice, "/hub/spawn")

    alice.start_server(partition="main", cores=2)
    bob.start_server(partition="second", cores=2)
    cluster.head.succeed("scontrol", "update", f"JobId={job_of(cluster, 'alice')}", "TimeLimit=0:01")
    cluster.nodes["c2"].power_cut()
    wait_for_end(cluster, "alice", 120)
    wait_for_end(cluster, "bob", 120)
    assert "has ended: it reached its time limit of" in page(alice, "/hub/spawn")
    text = page(bob, "/hub/spawn")
    assert "has ended: the node c2 failed" in text
    assert "second: down at present, none of its nodes is in service" in text
    cluster.nodes["c2"].boot()
    until(lambda: "idle2" in cluster.head.succeed("sinfo", "-hp", "main", "--format=%T%D"), "both nodes in service")


def test_who_waits_for_the_port_of_a_server_gets_nothing_of_its_user(cluster: Cluster) -> None:
    """Another account of the node, and a browser that goes on asking for the server's pages."""
    alice, node = user(cluster, "alice"), cluster.nodes["c2"]
    alice.start_server(partition="second")
    port = api(cluster, "proxy")["/user/alice/"]["target"].rpartition(":")[2]
    node.write("/opt/thief.py", THIEF)
    node.succeed("systemd-run", "--quiet", "--unit=thief", "--uid=bob", "/usr/bin/python3", "/opt/thief.py", port)
    browser = f"while :; do curl -s -o /dev/null {URL}/user/alice/api; done"
    cluster.head.succeed("systemd-run", "--quiet", "--unit=browser", "sh", "-c", browser)
    (server,) = re.findall(r"pid=(\d+)", node.succeed("ss", "-Hltnp", f"sport = :{port}"))
    node.succeed("kill", "-KILL", server)
    thief = ("journalctl", "--no-pager", "--output=cat", "--identifier=python3", "-u", "thief")
    until(lambda: "took" in node.succeed(*thief), "the thief's turn")
    wait_for_end(cluster, "alice")
    assert alice.get("/user/alice/api").status_code == 424  # the hub's answer, and the last that the browser waits for
    cluster.head.succeed("systemctl", "stop", "browser")
    assert node.succeed(*thief) == "took\n"
    node.succeed("systemctl", "stop", "thief")
    assert "most likely because it used more than its" in page(alice, "/hub/spawn")


def job_of(cluster: Cluster, name: str) -> str:
    return next(job.split()[0] for job in cluster.jobs() if f" {name} " in job)


def test_slurmctld_may_be_away(cluster: Cluster) -> None:
    alice, bob = user(cluster, "alice"), user(cluster, "bob")
    alice.start_server()
    kernel = alice.start_kernel()
    cluster.head.succeed("systemctl", "stop", "slurmctld")
    bob.ask_for_server()
    assert "Slurm does not answer at present" in failure(bob)
    assert "Slurm does not answer at present" in page(user(cluster, "bob"), "/hub/spawn")
    cluster.head.succeed("systemctl", "restart", HUB)
    cluster.head.eventually(BAREHUB, "status")
    assert kernel.execute("print(6 * 7)") == "42\n"
    assert alice.get("/hub/home").ok
    assert alice.stop_server().status_code == 202  # it is not forgotten before it has ended
    assert api(cluster, "users/alice")["pending"] == "stop"
    cluster.head.succeed("systemctl", "start", "slurmctld")


def test_jobs_outlive_the_hub(cluster: Cluster) -> None:
    """The hub is restarted with a job that runs and two that are queued."""
    alice, bob = user(cluster, "alice"), user(cluster, "bob")
    alice.start_server(cores=1, memory=1)
    kernel = alice.start_kernel()
    kernel.execute("answer = 42")
    cluster.add_user("dave", 2002)
    dave = user(cluster, "dave")
    with full(cluster, 1) as leave:
        bob.ask_for_server(cores=2)
        dave.ask_for_server(cores=2)
        until(lambda: sum("PENDING" in job for job in cluster.jobs()) == 2, "both jobs")
        jobs = set(cluster.jobs())
        # As an upgrade does it: nobody waits for jobs that the next hub goes on with.
        output = cluster.head.succeed("sh", "/mnt/slurm.sh", "-b", "-f")
        assert "still starting" not in output
        cluster.head.eventually(BAREHUB, "status")
        assert set(cluster.jobs()) == jobs
        kernel.connect()  # -f restarts the proxy as well
        assert kernel.execute("print(answer)") == "42\n"
        waits = next(event for event in bob.progress() if "Job" in event["message"])
        assert "waits in the partition main since" in waits["message"]
        assert dave.stop_server().status_code == 204
        until(lambda: not any("dave" in job for job in cluster.jobs()), "the end of the job that was given up")
        leave()
    *_, last = bob.progress()
    assert last.get("ready"), last
    bob.get("/user/bob/lab").raise_for_status()
    assert api(cluster, "proxy").keys() == {"/", "/user/alice/", "/user/bob/"}
    assert alice.stop_server().status_code == 204
    assert bob.stop_server().status_code == 204


def test_a_job_can_tell_its_port_and_nothing_else(cluster: Cluster) -> None:
    abuse(cluster)
