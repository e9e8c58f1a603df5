"""A hub with an account of its own: its configuration is tried as that account, wherever that matters. One story."""

import zipfile
from pathlib import Path

import pytest

from tests.machines.hub_client import BAREHUB, HUB, PROXY
from tests.machines.machine import Machine

BASE = "/opt/barehub"
CONFIG = f"{BASE}/jupyterhub_config.d"
INSTALL = ("sh", "/mnt/barehub.sh", "-b", "--hub-user", "hub")
PACKAGE = "from jupyterhub.auth import DummyAuthenticator\nclass Authenticator(DummyAuthenticator): pass\n"


@pytest.fixture(scope="module")
def hub(machine: Machine, installer: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The installer, a package with an authenticator, and the account; nothing is installed yet."""
    wheel = tmp_path_factory.mktemp("wheel") / "siteauth-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as new:
        new.writestr("siteauth/__init__.py", PACKAGE)
        new.writestr("siteauth-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: siteauth\nVersion: 1.0\n")
        new.writestr("siteauth-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        new.writestr("siteauth-1.0.dist-info/RECORD", "")
    machine.copy_in(installer, "/mnt/barehub.sh")
    machine.copy_in(wheel, f"/mnt/{wheel.name}")
    machine.succeed("useradd", "--system", "--groups=adm", "hub")
    return machine


def invocations(hub: Machine) -> tuple[str, str]:
    return hub.unit(HUB, "InvocationID"), hub.unit(PROXY, "InvocationID")


def refused_everywhere(hub: Machine, what: str) -> None:
    """A reload, the installer and `barehub status` say so, and everything goes on as it ran."""
    before = invocations(hub)
    hub.fails("systemctl", "reload", HUB)
    assert what in hub.succeed("journalctl", f"--unit={HUB}", "--lines=12", "--output=cat")
    assert what in hub.fails(*INSTALL, code=7)
    told = hub.fails(BAREHUB, "status")
    assert f"problem: {what}" in told
    assert "unknown: the configuration does not load" in told
    assert invocations(hub) == before
    assert hub.unit(HUB, "ActiveState") == "active"


def test_a_way_that_is_closed_is_refused_and_base_itself_is_opened(hub: Machine) -> None:
    hub.succeed("mkdir", "-m", "700", "/srv/closed")
    refused = hub.fails(*INSTALL, "-p", "/srv/closed/barehub", code=6)
    assert "error: /srv/closed cannot be entered by other accounts" in refused
    assert hub.succeed("ls", "-A", "/srv/closed") == ""
    hub.succeed("mkdir", "-m", "700", BASE)
    hub.succeed(*INSTALL)
    assert hub.succeed("stat", "-c", "%a", BASE) == "755\n"
    hub.succeed(BAREHUB, "status")


def test_a_state_directory_elsewhere_is_kept_there(hub: Machine) -> None:
    hub.succeed("systemctl", "stop", "barehub.target")
    hub.succeed("mv", f"{BASE}/state", "/srv/state")
    hub.succeed("ln", "-s", "/srv/state", f"{BASE}/state")
    hub.succeed(*INSTALL)
    hub.succeed(BAREHUB, "status")
    assert hub.succeed("readlink", f"{BASE}/state") == "/srv/state\n"


def test_a_reload_restarts_the_hub_with_a_good_configuration(hub: Machine) -> None:
    old_hub, proxy = invocations(hub)
    hub.write(f"{CONFIG}/50-site.py", "import grp, os\nassert grp.getgrnam('adm').gr_gid in os.getgroups()\n")
    hub.write(f"/etc/systemd/system/{HUB}.d/site.conf", "[Service]\nEnvironment='SITE=a b'\n")
    hub.write(
        f"{CONFIG}/55-environment.py", "import os\nassert (os.environ['SITE'], os.getcwd()[-4:]) == ('a b', '/hub')\n"
    )
    hub.succeed("systemctl", "daemon-reload")
    hub.succeed("systemctl", "reload", HUB)
    new_hub, same = invocations(hub)
    assert (new_hub != old_hub, same) == (True, proxy)
    hub.eventually(BAREHUB, "status")
    assert hub.unit(HUB, "NRestarts") == "0"


def test_a_package_that_pip_hides_from_the_hub_is_named_with_its_permissions(hub: Machine) -> None:
    hub.shell(f"umask 077; {BASE}/hub/bin/python -m pip install --no-index /mnt/siteauth-1.0-py3-none-any.whl")
    hub.write(f"{CONFIG}/60-auth.py", "\nc.JupyterHub.authenticator_class = 'siteauth.Authenticator'\n")
    refused_everywhere(hub, f"{CONFIG}/60-auth.py, line 2: the configuration is refused: ")
    told = hub.fails(BAREHUB, "status")
    assert "the account hub may not read /opt/barehub/" in told
    assert "chmod -R a+rX" in told
    # The proxy's unit, which root starts, keeps what it had.
    hub.succeed("systemctl", "restart", PROXY)
    assert hub.unit(PROXY, "ActiveState") == "active"
    hub.shell(told.partition("fix: ")[2].partition(";")[0])
    hub.succeed("systemctl", "reload", HUB)
    hub.eventually(BAREHUB, "status")


def test_a_file_for_root_alone_is_a_matter_of_permissions(hub: Machine) -> None:
    hub.succeed("chmod", "600", f"{CONFIG}/60-auth.py")
    refused_everywhere(hub, f"{CONFIG}/60-auth.py cannot be read by the account hub")
    hub.succeed("chmod", "644", f"{CONFIG}/60-auth.py")


def test_root_runs_no_configuration_of_the_hubs_account(hub: Machine) -> None:
    hub.write(f"{CONFIG}/70-who.py", "import os\nwith open('/tmp/who', 'a') as file: print(os.getuid(), file=file)\n")
    hub.succeed("chown", "hub", f"{CONFIG}/70-who.py")
    hub.succeed("systemctl", "restart", PROXY)
    assert f"hub can change {CONFIG}/70-who.py" not in hub.succeed(BAREHUB, "status")
    hub.succeed(*INSTALL)
    uid = hub.succeed("id", "-u", "hub").strip()
    assert set(hub.read("/tmp/who").split()) == {uid}
    hub.succeed("rm", f"{CONFIG}/70-who.py")


def test_status_says_what_it_sees_when_the_hub_is_down_with_a_mistake(hub: Machine) -> None:
    hub.write(f"{CONFIG}/80-wrong.py", "\n\nc.A.b = nothing\n")
    hub.run("systemctl", "restart", HUB)
    hub.eventually("systemctl", "is-failed", HUB)
    told = hub.fails(BAREHUB, "status")
    assert f"problem: {CONFIG}/80-wrong.py, line 3: NameError" in told
    rows = {line.split("  ")[0]: line for line in told.splitlines()}
    assert "unknown: the configuration does not load" in rows["url"]
    assert "answers" in rows["proxy"]
    assert "revision " in rows["database"]
    by_alice = hub.fails("runuser", "-u", "alice", "--", BAREHUB, "status")
    assert "Traceback" not in by_alice
    assert "run this as root" in by_alice
    hub.succeed("rm", f"{CONFIG}/80-wrong.py")
    hub.succeed("systemctl", "reset-failed", HUB)
    hub.succeed("systemctl", "start", HUB)
    hub.eventually(BAREHUB, "status")
