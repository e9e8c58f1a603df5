"""A distribution of somebody's own: built on the air-gapped side from a mirror, with a name and an overlay."""

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from construct.build import build_release
from construct.verify import verify
from tests.machines.hub_client import HubSession
from tests.machines.machine import Machine
from tests.unit.test_advisories import advisory, save
from tests.unit.wheels import make

ROOT = Path(__file__).parents[2]
BASE = "/opt/myhpc"
HUB = "myhpc-hub.service"
CONFIG = """\
from myhpc.people import allowed
c.Authenticator.allowed_users = allowed
c.JupyterHub.template_vars = {"announcement": "Welcome to myhpc"}
"""


@pytest.fixture(scope="module")
def mirror(installer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The channel that --extract makes of the installer."""
    directory = tmp_path_factory.mktemp("mirror") / "channel"
    subprocess.run(["sh", installer, "--extract", directory], check=True)
    return directory


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overlay") / "people"
    for name, text in (
        ("jupyterhub_config.d/50-people.py", CONFIG),
        ("python/myhpc/people.py", 'allowed = {"alice"}\n'),
        ("examples/70-more.py", "c.Spawner.mem_limit = '1G'\n"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def build(installer: Path, mirror: Path, overlay: Path, tmp_path_factory: pytest.TempPathFactory):
    """Call it with what follows the date in a label, to build a release of myhpc from the mirror alone."""
    label = installer.name.split("-")[1]
    [lock] = mirror.glob("releases/*/environment.lock.yml")

    def build_one(suffix: str = "", **more: Path) -> Path:
        output = tmp_path_factory.mktemp("dist")
        source = {"overlays": [overlay], "name": "myhpc", "channels": [mirror.as_uri()], "lock": lock}
        return build_release(ROOT, date=label + suffix, output=output, **source, **more)

    return build_one


@pytest.fixture(scope="module")
def myhpc(build) -> Path:
    """Its first release."""
    return build()


@pytest.fixture(scope="module")
def hpc(machine: Machine, installer: Path, myhpc: Path) -> Machine:
    """The machine with myhpc on it."""
    machine.copy_in(installer, "/mnt/barehub.sh")
    machine.copy_in(myhpc, "/mnt/myhpc.sh")
    output = machine.succeed("sh", "/mnt/myhpc.sh", "-b")
    assert f"myhpc {installer.name.split('-')[1]} is running at http://" in output
    return machine


def test_a_mirror_gives_the_release_that_it_was_made_of(installer: Path, mirror: Path, tmp_path: Path) -> None:
    again = build_release(ROOT, date=installer.name.split("-")[1], output=tmp_path, channels=[str(mirror)])
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(installer.read_bytes()).digest()


def test_its_name_is_everywhere_and_its_configuration_in_force(hpc: Machine) -> None:
    assert hpc.succeed("systemctl", "is-active", HUB, "myhpc-proxy.service", "myhpc.target").split() == ["active"] * 3
    hpc.succeed(f"{BASE}/hub/bin/barehub", "status")
    hpc.succeed("test", "-e", f"{BASE}/hub/share/barehub/examples/70-more.py")
    alice, bob = HubSession(hpc, "alice"), HubSession(hpc, "bob")
    assert "Welcome to myhpc" in alice.get("/hub/login").text
    alice.login()
    assert alice.is_logged_in()
    bob.login()
    assert not bob.is_logged_in()


def test_the_administrators_file_of_the_same_name_masks_it(hpc: Machine) -> None:
    hpc.write(f"{BASE}/jupyterhub_config.d/50-people.py", 'c.Authenticator.allowed_users = {"bob"}\n')
    hpc.succeed("systemctl", "restart", HUB)
    hpc.eventually(f"{BASE}/hub/bin/barehub", "status")
    bob = HubSession(hpc, "bob")
    bob.login()
    assert bob.is_logged_in()


def test_another_distribution_does_not_take_its_place_unasked(hpc: Machine) -> None:
    output = hpc.fails("sh", "/mnt/barehub.sh", "-b", "-u", "-p", BASE, code=6)
    assert "is a release of myhpc, not of barehub" in output


def test_a_package_added_from_a_folder_of_wheels_is_found_by_an_update(
    hpc: Machine, overlay: Path, myhpc: Path, build, tmp_path: Path
) -> None:
    wheel = make(tmp_path, name="sitetools", files={"sitetools.py": "x = 1\n"})
    hpc.succeed("mkdir", "/mnt/wheels")
    hpc.copy_in(wheel.path, f"/mnt/wheels/{wheel.path.name}")
    hpc.succeed(f"{BASE}/hub/bin/python", "-m", "pip", "install", "--no-index", "--find-links=/mnt/wheels", "sitetools")
    (overlay / "jupyterhub_config.d/50-people.py").rename(overlay / "jupyterhub_config.d/55-people.py")
    advisories = save(tmp_path / "osv", advisory("GHSA-1", "tornado"), advisory("GHSA-2", "tornado", [{"fixed": "1"}]))
    newer = build(".1", advisories=advisories, delta=myhpc)
    verify(newer, None)
    [delta] = newer.parent.glob("*.from-*.sh")
    assert delta.stat().st_size < newer.stat().st_size / 10
    hpc.copy_in(newer, "/mnt/newer.sh")
    hpc.copy_in(delta, "/mnt/delta.sh")
    proxy = hpc.unit("myhpc-proxy.service", "InvocationID")
    for account in ("root", "bob"):  # before anybody decides, and without a right to anything
        told = hpc.succeed("runuser", "-u", account, "--", "sh", "/mnt/newer.sh", "--diff", "-p", BASE)
        assert "the same version, built again:\n  barehub-overlay-people  0.1.0\n" in told
        assert "added by hand, and not carried over:\n  sitetools  1.0 (pip)\n" in told
        assert "nothing is migrated\nhub       restarts" in told
        assert "\nproxy     goes on\n" in told
        told = hpc.succeed("runuser", "-u", account, "--", "sh", "/mnt/newer.sh", "--audit", "-p", BASE)
        assert re.search(r"has these, and so has myhpc \S+:\n  tornado \S+  GHSA-1    Of tornado\n\n", told)
        assert told.endswith("not looked for: python and the libraries in it, sitetools\n")
    output = hpc.shell("cd /mnt && sh delta.sh myhpc.sh -b -u")
    hpc.succeed("cmp", f"/mnt/{newer.name}", "/mnt/newer.sh")
    assert "sitetools 1.0 (pip)" in output
    assert hpc.unit("myhpc-proxy.service", "InvocationID") == proxy  # as --diff has told
    # The overlay's configuration was replaced as a whole; the administrator's is as it was.
    assert hpc.succeed("ls", f"{BASE}/hub/share/barehub/jupyterhub_config.d").split() == ["55-people.py", "README"]
    assert "bob" in hpc.succeed("cat", f"{BASE}/jupyterhub_config.d/50-people.py")
