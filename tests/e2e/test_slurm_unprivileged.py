"""The overlay `slurm` with a hub that runs as an account without privileges and submits with sudo."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.cluster import Cluster
from tests.machines.machine import until
from tests.machines.rootfs import USERS
from tests.machines.slurm_abuse import abuse
from tests.machines.slurm_site import BAREHUB, HUB, api, page, require_clean, site, user, wait_for_end


@pytest.fixture(scope="module")
def cluster(root: Path, slurm_installer: Path) -> Iterator[Cluster]:
    with site(root, slurm_installer) as new:
        yield new


@pytest.fixture(autouse=True)
def clean(cluster: Cluster) -> Iterator[None]:
    yield
    require_clean(cluster)


def test_an_unprivileged_hub_can_do_it_too_and_nothing_more(cluster: Cluster) -> None:
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


def test_a_rehearsal_starts_a_job_as_this_hub_does(cluster: Cluster) -> None:
    """It runs on a node, answers the second hub, and is gone afterwards."""
    told = cluster.head.succeed("sh", "/mnt/slurm.sh", "-b", "-u", "--rehearse", "--canary", "bob")
    assert re.search(r"  started the server of bob +\d+\.\d s\n  opened a kernel: 1\+1 is 2 ", told), told
    assert "the rehearsal is over, and nothing is left of it" in told
    until(lambda: cluster.jobs() == [], "the end of its job")


def test_slurm_may_hide_jobs_from_the_hub(cluster: Cluster) -> None:
    """slurm.conf(5), PrivateData=jobs: the hub sees no user's job, and asks as that user."""
    head = cluster.head
    alice, bob = user(cluster, "alice"), user(cluster, "bob")
    alice.start_server()
    kernel = alice.start_kernel()
    head.succeed("sh", "-c", "echo PrivateData=jobs >>/etc/slurm/slurm.conf")
    head.succeed("scontrol", "reconfigure")
    assert head.succeed("runuser", "-u", "hub", "--", "squeue", "--noheader") == ""
    bob.start_server()
    # A restarted hub asks for both, and JupyterHub's checks every other second go on.
    head.succeed("systemctl", "restart", HUB)
    head.eventually(BAREHUB, "status")
    until(lambda: api(cluster, "proxy").keys() == {"/", "/user/alice/", "/user/bob/"}, "both routes")
    assert kernel.execute("print(6 * 7)") == "42\n"
    head.succeed("scancel", "--user=bob")
    wait_for_end(cluster, "bob")
    assert "has ended: it was cancelled, by you or by an administrator" in page(bob, "/hub/spawn")
    assert kernel.execute("print(6 * 7)") == "42\n"
    assert alice.stop_server().status_code == 204
