"""Notebooks as Slurm jobs, on a cluster of a head and two compute nodes, told in order: what users meet every day.

The hub runs as root, in its tighter sandbox. After each test there is no job, no route and no pending server left.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from tests.machines.browser import chromium, log_in, press_stop, run_cell
from tests.machines.cluster import Cluster
from tests.machines.hub_client import URL
from tests.machines.lab import make_lab
from tests.machines.machine import until
from tests.machines.rootfs import USERS_ENVIRONMENT
from tests.machines.slurm_site import (
    BAREHUB,
    CONFIG,
    HUB,
    failure,
    full,
    page,
    require_clean,
    site,
    user,
    wait_for_end,
)

ACCOUNTS = (
    "add qos short MaxWall=1:00:00",
    "add account physics",
    "add account chem",
    "add user alice account=chem,physics qos=normal,short defaultaccount=chem",
)
PRESETS = """c.SlurmJobSpawner.presets = {
    "Short": {"account": "physics", "qos": "short", "hours": 0.5}, "Not here": {"cores": 99},
}"""
TEXT = "return document.body.innerText"
LAB = "/home/lab"  # which the cluster shares
ENVIRONMENTS = f'c.SlurmJobSpawner.environments = {{"Users": "{USERS_ENVIRONMENT}", "The newest": "{LAB}/current"}}\n'


@pytest.fixture(scope="module")
def cluster(root: Path, slurm_installer: Path) -> Iterator[Cluster]:
    with site(root, slurm_installer) as new:
        make_lab(new.head, LAB)
        new.head.write(f"{CONFIG}/70-environments.py", ENVIRONMENTS)
        new.head.succeed("systemctl", "restart", HUB)
        new.head.eventually(BAREHUB, "status")
        yield new


@pytest.fixture(autouse=True)
def clean(cluster: Cluster) -> Iterator[None]:
    yield
    require_clean(cluster)


@pytest.fixture
def browser(cluster: Cluster) -> Iterator[Chrome]:
    with cluster.head.network(), chromium() as new:
        yield new


def test_alice_waits_works_and_stops(cluster: Cluster, browser: Chrome, screenshots: Path) -> None:
    """What she sees and what squeue says agree at each step."""
    browser.get(URL)
    log_in(browser, "alice")
    partitions = [one.text for one in browser.find_elements(By.CSS_SELECTOR, "#slurm-partition option")]
    # Neither the partition of another group nor the hidden one, which the hub, as root, would see.
    assert partitions == ["main: up to 2 cores, 3.5 GB, GPUs: 1, 24 h", "second: up to 2 cores, 3.5 GB, GPUs: 1, 2 h"]
    browser.find_element(By.CSS_SELECTOR, "#slurm-partition option[value=second]").click()
    assert browser.find_element(By.ID, "slurm-hours").get_attribute("value") == "2"
    browser.find_element(By.CSS_SELECTOR, "#slurm-partition option[value=main]").click()
    browser.find_element(By.ID, "slurm-hours").clear()
    browser.find_element(By.ID, "slurm-hours").send_keys("1.5")
    browser.find_element(By.CSS_SELECTOR, "#environment option[value='The newest']").click()
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
    node = cluster.nodes[cluster.head.succeed("squeue", "--noheader", "--user=alice", "--format=%N").strip()]
    server = f"{LAB}/releases/1/bin/python -s {LAB}/releases/1/bin/jupyterhub-singleuser"
    assert server in node.succeed("ps", "-ww", "-u", "alice", "-o", "args")
    browser.find_element(By.CSS_SELECTOR, ".jp-Notebook-ExecutionIndicator[data-status=idle]")
    plot = "import matplotlib.pyplot as plt, os, socket; plt.plot([1, 4, 9])"
    code = f"{plot}; print('on', socket.gethostname(), os.getcwd(), 'XDG_RUNTIME_DIR' in os.environ)"
    printed = run_cell(browser, code)
    assert printed in ("on c1 /home/alice False", "on c2 /home/alice False")
    browser.find_element(By.CSS_SELECTOR, ".jp-OutputArea-output img")
    browser.save_screenshot(screenshots / "slurm-cell.png")
    # JupyterLab has no extension of its own for this. What the hub has heard meanwhile counts.
    left = browser.find_element(By.ID, "slurm-time-left")
    until(lambda: re.fullmatch(r"1 h (2[5-9]|30) min left", left.text), "the time left")
    cluster.head.succeed("scontrol", "update", f"JobId={job.split()[0]}", "TimeLimit=12")
    alice = user(cluster, "alice")
    until(lambda: "your server <b>default</b> ends at" in page(alice, "/hub/home"), "the hub's warning")
    browser.refresh()
    browser.find_element(By.CSS_SELECTOR, ".Toastify__toast")
    until(lambda: "Save your work: what runs here" in browser.execute_script(TEXT), "the warning in JupyterLab")
    browser.save_screenshot(screenshots / "slurm-warning.png")
    browser.get(f"{URL}/hub/home")
    press_stop(browser, lambda: not cluster.jobs())
    assert browser.find_element(By.CSS_SELECTOR, "#start:not(.hidden)").text == "Start My Server"


def test_a_request_beyond_what_there_is_is_refused_in_plain_words(cluster: Cluster) -> None:
    alice = user(cluster, "alice")
    for options, why in (
        ({"cores": 3}, "Cores: a server in the partition main can have 2, not 3"),
        ({"memory": "100"}, "Memory: a server in the partition main can have 3.5 GB, not 100"),
        ({"partition": "second", "hours": 3}, "Time: a server in the partition second can have 2 h, not 3"),
        ({"gpus": "many"}, "GPUs: many is no number of gpus"),
        ({"partition": "none"}, "There is no partition none for you; there is main, second"),
        ({"partition": "private"}, "There is no partition private for you; there is main, second"),
    ):
        alice.ask_for_server(**options)
        assert why in failure(alice)
    # What the form cannot know, Slurm says itself.
    cluster.head.succeed("scontrol", "update", "PartitionName=second", "AllowGroups=root")
    alice.ask_for_server(partition="second")
    said = failure(alice)
    cluster.head.succeed("scontrol", "update", "PartitionName=second", "AllowGroups=ALL")
    assert "Slurm did not accept the job: User's group not permitted to use this partition" in said
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
    bob.start_server(start_timeout=300)  # or his last choice, 7 s, counts again
    cluster.head.succeed("scancel", "--user=bob", "--state=RUNNING")
    wait_for_end(cluster, "bob")
    assert "has ended: it was cancelled, by you or by an administrator" in page(bob, "/hub/spawn")


def test_the_hub_listens_where_the_nodes_are_and_nowhere_else(cluster: Cluster) -> None:
    assert "10.9.0.1:334" in cluster.head.succeed("ss", "-Hltn", "sport = :334")
    assert len(cluster.head.succeed("ss", "-Hltn", "sport = :334").splitlines()) == 1


def test_the_hub_is_well_sandboxed(cluster: Cluster) -> None:
    verdict = cluster.head.succeed("systemd-analyze", "security", "--no-pager", "slurm-hub.service")
    assert float(re.search(r"exposure level for \S+: ([\d.]+)", verdict)[1]) <= 3.0


def choices(browser: Chrome, field: str) -> list[str]:
    """Return what a field offers, nothing while it is hidden."""
    select = browser.find_element(By.ID, f"slurm-{field}")
    return [option.text for option in Select(select).options] if select.is_displayed() else []


def choose(browser: Chrome, field: str, value: str) -> None:
    Select(browser.find_element(By.ID, f"slurm-{field}")).select_by_value(value)


def test_accounts_are_the_users_own_and_fields_follow_them(
    cluster: Cluster, browser: Chrome, screenshots: Path
) -> None:
    cluster.add_accounting(*ACCOUNTS)
    cluster.head.succeed("scontrol", "update", "PartitionName=second", "AllowAccounts=physics")
    cluster.head.write(f"{CONFIG}/80-presets.py", PRESETS)
    cluster.head.succeed("systemctl", "restart", HUB)
    cluster.head.eventually(BAREHUB, "status")
    browser.get(URL)
    log_in(browser, "alice")
    choose(browser, "partition", "main")  # whatever her last choice was
    assert choices(browser, "account") == ["chem", "physics"]
    choose(browser, "partition", "second")
    assert choices(browser, "account") == []  # it takes physics alone
    choose(browser, "partition", "main")
    choose(browser, "qos", "short")
    assert browser.find_element(By.ID, "slurm-hours").get_attribute("max") == "1"
    assert browser.find_element(By.ID, "slurm-hours").get_attribute("value") == "1"
    for name, width, height in (("wide", 1200, 1300), ("narrow", 400, 1600)):
        browser.set_window_size(width, height)
        browser.save_screenshot(screenshots / f"slurm-accounts-{name}.png")
    browser.execute_script("document.documentElement.dataset.bsTheme = 'dark'")
    browser.save_screenshot(screenshots / "slurm-accounts-dark.png")
    assert [one.text for one in browser.find_elements(By.CSS_SELECTOR, "nav[aria-label=Presets] a")] == ["Short"]
    browser.find_element(By.ID, "slurm-when").click()
    said = browser.find_element(By.ID, "slurm-start")
    until(lambda: said.text == "It would start now.", "when it would start")
    browser.find_element(By.LINK_TEXT, "Short").click()
    assert Select(browser.find_element(By.ID, "slurm-account")).first_selected_option.text == "physics"
    assert cluster.jobs() == []  # a link starts nothing
    browser.find_element(By.CSS_SELECTOR, "#spawn_form button").click()
    # Not the launcher: JupyterLab opens again what she had open.
    browser.find_element(By.ID, "jp-main-dock-panel")
    assert cluster.head.succeed("squeue", "--noheader", "--format=%u %a %q %l").split() == [
        "alice", "physics", "short", "30:00",
    ]  # fmt: skip
    assert user(cluster, "alice").stop_server().status_code == 204
    # What is sent is checked, whatever the form has shown.
    alice = user(cluster, "alice")
    alice.ask_for_server(partition="second", account="chem")
    assert "There is no account chem for you in the partition second; there is physics" in failure(alice)
    assert "its accounting has no account for you" in page(user(cluster, "bob"), "/hub/spawn")
