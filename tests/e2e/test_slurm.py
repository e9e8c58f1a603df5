"""Notebooks as Slurm jobs, on a cluster of a head and two compute nodes, told in order: how it should go, then all that
goes wrong on real clusters. After each there is no job, no route and no pending server left.

First the hub runs as root, in its tighter sandbox; the last tests run it as an unprivileged account.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from websocket import WebSocketException

from tests.machines.browser import chromium
from tests.machines.cluster import HEAD, Cluster
from tests.machines.cluster import cluster as make_cluster
from tests.machines.hub_client import URL
from tests.machines.rootfs import USERS
from tests.machines.slurm_site import (
    BAREHUB,
    HUB,
    api,
    failure,
    full,
    install,
    page,
    require_clean,
    until,
    user,
)


@pytest.fixture(scope="module")
def cluster(root: Path, slurm_installer: Path) -> Iterator[Cluster]:
    """The cluster, with the overlay on its head."""
    with make_cluster(root) as new:
        install(new, slurm_installer)
        yield new


@pytest.fixture(autouse=True)
def clean(cluster: Cluster) -> Iterator[None]:
    yield
    require_clean(cluster)


@pytest.fixture
def browser(cluster: Cluster) -> Iterator[Chrome]:
    with cluster.head.network(), chromium() as new:
        yield new


def type_into_cell(browser: Chrome, code: str) -> bool:
    """Replace the code of the first cell; False if JupyterLab, still setting itself up, took the focus away."""
    try:
        browser.find_element(By.CSS_SELECTOR, ".jp-Notebook .cm-content").click()
        chain = ActionChains(browser).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL)
        chain.send_keys(Keys.BACKSPACE, code).perform()
        return browser.find_element(By.CSS_SELECTOR, ".jp-Notebook .cm-content").text == code
    except StaleElementReferenceException:
        return False


def test_alice_waits_works_and_stops(cluster: Cluster, browser: Chrome, screenshots: Path) -> None:
    """What she sees and what squeue says agree at each step."""
    browser.get(URL)
    browser.find_element(By.ID, "username_input").send_keys("alice")
    browser.find_element(By.ID, "password_input").send_keys(USERS["alice"])
    browser.find_element(By.ID, "login_submit").click()
    partitions = [one.text for one in browser.find_elements(By.CSS_SELECTOR, "#slurm-partition option")]
    assert partitions[0] == "main: up to 2 cores, 3.5 GB, GPUs: 1, 24 h"
    browser.find_element(By.CSS_SELECTOR, "#slurm-partition option[value=main]").click()
    browser.find_element(By.ID, "slurm-hours").clear()
    browser.find_element(By.ID, "slurm-hours").send_keys("1.5")
    browser.save_screenshot(screenshots / "slurm-form.png")
    with full(cluster) as leave:
        browser.find_element(By.CSS_SELECTOR, "#spawn_form button").click()
        message = browser.find_element(By.ID, "progress-message")
        until(lambda: "(Resources)" in message.text, "why the job waits")
        assert " waits in the partition main since " in message.text
        assert "all nodes that suit it are busy" in message.text
        browser.save_screenshot(screenshots / "slurm-waiting.png")
        assert "alice PENDING" in cluster.jobs()[0] or "alice PENDING" in cluster.jobs()[-1]
        leave()
    browser.find_element(By.CSS_SELECTOR, ".jp-LauncherCard[data-category=Notebook]").click()
    (job,) = cluster.jobs()
    assert job.endswith("alice RUNNING")
    asked = cluster.head.succeed("squeue", "--noheader", "--user=alice", "--format=%P %l %C %m")
    assert asked.split() == ["main", "1:30:00", "1", "2G"]
    browser.find_element(By.CSS_SELECTOR, ".jp-Notebook-ExecutionIndicator[data-status=idle]")
    code = "import os, socket; print('on', socket.gethostname(), os.getcwd(), 'XDG_RUNTIME_DIR' in os.environ)"
    until(lambda: type_into_cell(browser, code), "the code in the cell")
    # Not by a key, which goes to whatever has the focus by then.
    browser.find_element(By.CSS_SELECTOR, "[data-command='notebook:run-cell-and-select-next']").click()
    printed = browser.find_element(By.CSS_SELECTOR, ".jp-OutputArea-output pre").text
    assert printed in ("on c1 /home/alice False", "on c2 /home/alice False")
    browser.save_screenshot(screenshots / "slurm-cell.png")
    browser.get(f"{URL}/hub/home")
    browser.find_element(By.ID, "stop").click()
    until(lambda: not cluster.jobs(), "the end of her job")
    assert browser.find_element(By.CSS_SELECTOR, "#start:not(.hidden)").text == "Start My Server"


def test_a_request_beyond_what_there_is_is_refused_in_plain_words(cluster: Cluster) -> None:
    alice = user(cluster, "alice")
    for options, why in (
        ({"cores": 3}, "Cores: a server in the partition main can have 2, not 3"),
        ({"memory": "100"}, "Memory: a server in the partition main can have 3.5 GB, not 100"),
        ({"partition": "second", "hours": 3}, "Time: a server in the partition second can have 2 h, not 3"),
        ({"gpus": "many"}, "GPUs: many is no number of gpus"),
        ({"partition": "none"}, "There is no partition none; there is main, private, second"),
        # What the form cannot know, Slurm says itself.
        ({"partition": "private"}, "Slurm did not accept the job: User's group not permitted to use this partition"),
    ):
        alice.ask_for_server(**options)
        assert why in failure(alice)
    assert "User's group not permitted" in page(alice, "/hub/spawn-pending/alice")


def test_a_partition_that_is_down_says_so(cluster: Cluster) -> None:
    alice, partition = user(cluster, "alice"), ("scontrol", "update", "PartitionName=second")
    with full(cluster) as leave:
        alice.ask_for_server(partition="second")
        until(lambda: any("alice PENDING" in job for job in cluster.jobs()), "her job")
        cluster.head.succeed(*partition, "State=DOWN")
        said = (event["message"] for event in alice.progress())
        assert any("the partition is down (PartitionDown)" in message for message in said)
        assert "second: down at present, its administrators have closed it" in page(user(cluster, "bob"), "/hub/spawn")
        cluster.head.succeed(*partition, "State=UP")
        leave()
    *_, last = alice.progress()
    assert last.get("ready"), last
    assert alice.stop_server().status_code == 204


def test_a_queued_server_can_be_given_up_and_waits_no_longer_than_allowed(cluster: Cluster) -> None:
    alice, bob = user(cluster, "alice"), user(cluster, "bob")
    with full(cluster):
        alice.ask_for_server()
        bob.ask_for_server(start_timeout=7)
        until(lambda: sum("PENDING" in job for job in cluster.jobs()) == 2, "both jobs")
        assert alice.stop_server().status_code == 204
        assert "Your job waited" in (said := failure(bob))
        assert "all nodes that suit it are busy" in said or "other jobs are before it" in said
        until(lambda: not [job for job in cluster.jobs() if "PENDING" in job], "an end of both jobs")


def test_a_job_that_is_cancelled_is_noticed_at_once(cluster: Cluster) -> None:
    alice, bob = user(cluster, "alice"), user(cluster, "bob")
    with full(cluster):
        alice.ask_for_server()
        until(lambda: any("alice PENDING" in job for job in cluster.jobs()), "her job")
        cluster.head.succeed("scancel", "--user=alice")
        assert "Your server did not start: it was cancelled, by you or by an administrator" in failure(alice)
    bob.start_server()
    cluster.head.succeed("scancel", "--user=bob", "--state=RUNNING")
    until(lambda: not api(cluster, "users/bob")["server"], "its end")
    assert "has ended: it was cancelled, by you or by an administrator" in page(bob, "/hub/spawn")


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


def test_a_server_that_is_killed_says_why(cluster: Cluster) -> None:
    """One for its memory, one for its time, one with its node."""
    alice, bob = user(cluster, "alice"), user(cluster, "bob")
    alice.start_server(memory=0.5, partition="main")
    kernel = alice.start_kernel()
    with suppress(WebSocketException):  # the connection ends with the server
        kernel.execute("x = bytearray(1 << 30)")
    until(lambda: not api(cluster, "users/alice")["server"], "the end of what used too much memory")
    assert "most likely because it used more than its 512M of memory" in page(alice, "/hub/spawn")

    alice.start_server(partition="main", cores=2)
    bob.start_server(partition="second", cores=2)
    cluster.head.succeed("scontrol", "update", f"JobId={job_of(cluster, 'alice')}", "TimeLimit=0:01")
    cluster.nodes["c2"].power_cut()
    until(lambda: not api(cluster, "users/alice")["server"], "the end of what took too long", 120)
    until(lambda: not api(cluster, "users/bob")["server"], "the end of what was on a dead node", 120)
    assert "has ended: it reached its time limit of" in page(alice, "/hub/spawn")
    text = page(bob, "/hub/spawn")
    assert "has ended: the node c2 failed" in text
    assert "second: down at present, none of its nodes is in service" in text
    cluster.nodes["c2"].boot()
    until(lambda: "idle2" in cluster.head.succeed("sinfo", "-hp", "main", "--format=%T%D"), "both nodes in service")


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
        cluster.head.succeed("systemctl", "restart", HUB)
        cluster.head.eventually(BAREHUB, "status")
        assert set(cluster.jobs()) == jobs
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


ABUSE = """\
import json, os, sys, urllib.error, urllib.request

def post(body, token=os.environ["JUPYTERHUB_API_TOKEN"], user=None):
    url = os.environ["JUPYTERHUB_API_URL"] + "/batchspawner"
    headers = {"Authorization": "token " + token} if token else {}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, body, headers)).status
    except urllib.error.HTTPError as error:
        return error.code

bad = [
    {}, [], 8888, "8888", None, {"port": "8888"}, {"port": True}, {"port": 8888.5}, {"port": [8888]}, {"port": 1023},
    {"port": 65536}, {"port": -1}, {"port": 8888, "exec_prefix": "touch /tmp/owned;"}, {"cmd": ["/bin/sh"]},
    {"port": 8888, "up": True}, {"job_id": "1"}, {"user": "bob"}, {"state": {"job_id": 1}},
]
answers = [post(json.dumps(body).encode()) for body in bad]
answers += [post(b"{"), post(b""), post(b'{"port": 8888}' + b" " * 10**6)]
answers += [post(b'{"port": 8888}', token) for token in ("", "no-token")]
answers += [post(b'{"port": 8888}'), post(b'{"port": 8889}')]
print(json.dumps(answers))
"""


def abuse(cluster: Cluster) -> None:
    """A job that is not what the hub takes it for: alice's `python` is her own program."""
    alice = user(cluster, "alice")
    program = "#!/bin/sh\n/opt/users/bin/python /opt/abuse/abuse.py >/home/alice/answers 2>&1; exec sleep 100\n"
    for node in cluster.nodes.values():
        node.write("/opt/abuse/abuse.py", ABUSE)
        node.write("/opt/abuse/bin/python", program, 0o755)
    alice.ask_for_server(users_environment="/opt/abuse")
    until(lambda: cluster.head.run("test", "-s", "/home/alice/answers").returncode == 0, "what the hub answered")
    answers = json.loads(cluster.head.read("/home/alice/answers"))
    assert answers == [400] * 21 + [403] * 2 + [201, 409]
    said = next(event["message"] for event in alice.progress() if "port" in event["message"])
    assert "connecting to its server at port 8888" in said
    cluster.head.fails("ls", "/tmp/owned")
    assert alice.stop_server().status_code == 204
    # With the token of a server that runs.
    alice.start_server(users_environment="/opt/users")
    code = ABUSE.split("answers +=")[0] + "answers.append(post(b'{\"port\": 8888}')); print(answers)"
    assert json.loads(alice.start_kernel().execute(code)) == [400] * 18 + [409]
    assert alice.stop_server().status_code == 204
    # With a token that is no job's, as users can make them.
    made = alice.post("/hub/api/users/alice/tokens", headers={"X-XSRFToken": alice.xsrf("/hub/")}, json={}).json()
    with cluster.head.network():
        answer = requests.post(
            f"http://{HEAD}:8081/hub/api/batchspawner",
            json={"port": 8888},
            headers={"Authorization": f"token {made['token']}"},
            timeout=30,
        )
    assert answer.status_code == 403


def test_a_job_can_tell_its_port_and_nothing_else(cluster: Cluster) -> None:
    abuse(cluster)


def test_the_hub_listens_where_the_nodes_are_and_nowhere_else(cluster: Cluster) -> None:
    assert "10.9.0.1:8081" in cluster.head.succeed("ss", "-Hltn", "sport = :8081")
    assert len(cluster.head.succeed("ss", "-Hltn", "sport = :8081").splitlines()) == 1


def test_an_unprivileged_hub_can_do_it_too_and_nothing_more(cluster: Cluster, slurm_installer: Path) -> None:
    head = cluster.head
    head.succeed("useradd", "--system", "--groups=shadow", "hub")  # PAM lets the members check passwords
    head.succeed("groupadd", "hpc-users")
    for name in USERS:
        head.succeed("usermod", "--append", "--groups=hpc-users", name)
    head.succeed("rm", "-r", f"/etc/systemd/system/{HUB}.d")
    head.succeed("sh", "/mnt/slurm.sh", "-b", "--hub-user", "hub")
    assert head.unit(HUB, "User") == "hub"
    head.eventually(BAREHUB, "status")

    as_hub = ("runuser", "-u", "hub", "--", "sudo", "-n")
    for refused in (
        ("-u", "root", "/usr/bin/sbatch", "--parsable"),
        ("-u", "alice", "/usr/bin/sbatch", "--parsable", "--wrap=id"),
        ("-u", "alice", "/usr/bin/sbatch", "--parsable", "/etc/hostname"),
        ("-u", "alice", "/usr/bin/scancel", "--user=alice"),
        ("-u", "alice", "/usr/bin/id"),
        ("-u", "slurm", "/usr/bin/sbatch", "--parsable"),
        ("-u", "alice", "LD_PRELOAD=/tmp/x", "/usr/bin/sbatch", "--parsable"),
    ):
        assert "sudo:" in head.fails(*as_hub, *refused, code=1)
    alice = user(cluster, "alice")
    alice.start_server()
    assert alice.start_kernel().execute("import getpass; print(getpass.getuser())") == "alice\n"
    assert head.succeed("squeue", "--noheader", "--format=%u").split() == ["alice"]
    environment = alice.start_kernel().execute("import os; print(*os.environ)")
    assert not {"SUDO_USER", "SUDO_COMMAND", "XDG_RUNTIME_DIR"} & set(environment.split())
    head.succeed("systemctl", "restart", HUB)
    head.eventually(BAREHUB, "status")
    assert alice.stop_server().status_code == 204
    abuse(cluster)
