"""Installations that differ from the default: accounts, places, shells, a second one beside the first, no systemd."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from construct.signing import sign_release
from tests.machines.hub_client import BAREHUB
from tests.machines.machine import Machine, booted
from tests.readme import ADMIN, commands
from tests.systemd_versions import MOST, exposure

INSTALLER = "/mnt/barehub.sh"
FILE = "jupyterhub_config.d/10-install.py"
DISK = "/srv"  # a file system of its own
# What root has installed for itself (`pip install --user`); and a directory that root has come to, with the PATH of its
# owner, by `su` without a dash.
UNWANTED = """
for minor in 11 12 13 14 15; do install -D /dev/null /root/.local/lib/python3.$minor/site-packages/tornado.py; done
mkdir /nowhere/bin
for name in realpath dirname systemctl journalctl id tar; do install /bin/false /nowhere/bin/$name; done
for name in json logging sitecustomize; do echo 'raise SystemExit(1)' >/nowhere/bin/$name.py; done
"""
# What the guide has for those who do not trust `verify` itself, but for ssh-keygen's line.
GUIDE = [line for line in commands(ADMIN) if line.startswith(("cd /opt/barehub/hub", 'grep "$(sha256sum'))]


@pytest.fixture(scope="module")
def machine(root: Path, installer: Path) -> Iterator[Machine]:
    with booted("variations", root, {DISK: 1200}) as new:
        new.copy_in(installer, INSTALLER)
        yield new


def sign(receipt: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign a published receipt with a new key, whose public part becomes allowed_signers.gpg."""
    home, output = directory / "gnupg", directory / "dist"
    home.mkdir(mode=0o700)
    output.mkdir()
    shutil.copy(receipt, output)
    monkeypatch.setenv("GNUPGHOME", str(home))
    gpg = ["gpg", "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "releases@example.org"], check=True)
    sign_release(output, "releases@example.org")
    subprocess.run([*gpg, "--export", "--output", directory / "allowed_signers.gpg"], check=True)
    subprocess.run(["gpgconf", "--kill", "all"], check=True)


def test_a_hostile_shell_gives_the_same_installation(machine: Machine) -> None:
    for library in ("libssl.so.3", "libcrypto.so.3", "libz.so.1", "libsqlite3.so.0", "libselinux.so.1"):
        machine.write(f"/nowhere/lib/{library}", "not a library")
    hostile = [
        *("env", "-u", "HOME", "LD_LIBRARY_PATH=/nowhere/lib", "PYTHONHOME=/nowhere", "PYTHONPATH=/nowhere"),
        *("TMPDIR=/nowhere/tmp", "CONDA_PREFIX=/nowhere", "PIP_INDEX_URL=http://127.0.0.1:9", "LANG=xx"),
    ]
    machine.shell(UNWANTED)
    machine.succeed("sh", "-c", f"umask 077; cd /mnt; exec {' '.join(hostile)} bash {Path(INSTALLER).name} -b")
    machine.succeed("sh", "-c", f"cd /nowhere/bin; PATH=/nowhere/bin:$PATH exec {' '.join(hostile)} {BAREHUB} status")
    assert "readable" in machine.as_user("alice", "sh", "-c", f"{BAREHUB} --help >/dev/null && echo readable")
    modes = machine.succeed("find", "/opt/barehub/state", "-maxdepth", "1", "-printf", r"%m %f\n")
    assert sorted(modes.split("\n")[:-1]) == [
        "2750 rules",
        "700 acme",
        "700 hub",
        "750 proxy",
        "755 environments",
        "755 state",
    ]
    machine.as_user("alice", "sh", "-c", "! ls /opt/barehub/state/hub 2>/dev/null")


def test_hub_and_proxy_are_well_sandboxed_and_nobody_logs_secrets(machine: Machine) -> None:
    for unit, most in MOST.items():
        analysis = machine.succeed("systemd-analyze", "security", "--no-pager", f"barehub-{unit}.service")
        assert float(exposure(analysis)) <= most
    # The hub's would be its notebooks' too: all devices, GPUs among them, and sudo.
    assert machine.unit("barehub-hub.service", "DeviceAllow") == ""
    assert machine.unit("barehub-hub.service", "NoNewPrivileges") == "no"
    assert machine.unit("barehub-hub.service", "OOMPolicy") == "continue"  # a notebook's memory is not the hub's end
    journal = machine.succeed("journalctl", "--no-pager", "-u", "barehub-hub", "-u", "barehub-proxy")
    credentials = json.loads(machine.read("/opt/barehub/state/hub/traefik-api.json"))
    for secret in (*credentials.values(), machine.read("/opt/barehub/state/hub/jupyterhub_cookie_secret").strip()):
        assert secret not in journal


def test_the_idle_culler_runs_from_its_example(machine: Machine) -> None:
    config = "/opt/barehub/jupyterhub_config.d"
    machine.succeed("cp", "/opt/barehub/hub/share/barehub/examples/60-idle-culler.py", config)
    machine.succeed("systemctl", "restart", "barehub-hub")
    machine.eventually(BAREHUB, "status")
    culler = machine.eventually("pgrep", "--full", "bin/jupyterhub-idle-culler --timeout=3600").split()
    machine.succeed("rm", f"{config}/60-idle-culler.py")
    machine.succeed("systemctl", "restart", "barehub-hub")
    machine.eventually(BAREHUB, "status")
    machine.fails("kill", "-0", *culler)  # it went with the hub
    assert "Traceback" not in machine.succeed("journalctl", "--no-pager", "-u", "barehub-hub")


def test_running_it_again_touches_nothing(machine: Machine) -> None:
    units = ("barehub-hub.service", "barehub-proxy.service")
    before = [machine.unit(unit, "InvocationID") for unit in units]
    files = machine.succeed("find", "/opt/barehub", "/etc", "-newer", INSTALLER, "-printf", r"%T@ %p\n")
    machine.succeed("sh", INSTALLER, "-b")
    assert [machine.unit(unit, "InvocationID") for unit in units] == before
    after = machine.succeed("find", "/opt/barehub", "/etc", "-newer", INSTALLER, "-printf", r"%T@ %p\n")
    changed = {line.split()[1] for line in set(after.splitlines()) ^ set(files.splitlines())}
    # The directory in which the installer works, and what the running hub writes.
    assert {path for path in changed if not path.startswith("/opt/barehub/state")} <= {"/opt/barehub"}


def test_a_second_one_runs_beside_the_first(machine: Machine) -> None:
    options = ("-p", "/opt/second", "--name", "second", "--bind-url", "http://:9000/second/")
    output = machine.fails("sh", INSTALLER, "-b", "-p", "/opt/second", code=6)
    assert "belongs to another installation" in output
    machine.succeed("sh", INSTALLER, "-b", *options)
    ports = [re.findall(r"hub_port = (\d+)", machine.read(f"/opt/{name}/{FILE}"))[0] for name in ("barehub", "second")]
    assert ports == ["334", "336"]  # traefik's API has the one after each
    machine.succeed("/opt/second/hub/bin/barehub", "status")
    machine.succeed(BAREHUB, "status")
    assert "http://:9000/second/" in machine.read(f"/opt/second/{FILE}")
    # Again, as a configuration manager would: the port is its own. Then at another address.
    machine.succeed("sh", INSTALLER, "-b", *options)
    elsewhere = ("--bind-url", "http://:9001/second/", "--log", "/tmp/log")
    machine.succeed("sh", INSTALLER, "-b", "-p", "/opt/second", *elsewhere)
    assert "is running at" in machine.read("/tmp/log")
    assert "http://127.0.0.1:9001/second/" in machine.succeed("/opt/second/hub/bin/barehub", "status")
    machine.succeed("/opt/second/hub/bin/barehub", "uninstall", "-y")
    machine.succeed(BAREHUB, "status")


def test_repair_replaces_what_was_damaged_and_the_release_is_what_was_signed(
    machine: Machine, installer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "signature: not checked" in machine.as_user("alice", BAREHUB, "verify")
    machine.shell("for f in /opt/barehub/hub/lib/python3*/site-packages/jupyterhub/[a-z]*.py; do : >$f; done")
    found = machine.fails(BAREHUB, "verify", code=5)
    damaged = re.findall(r"^  modified  lib/python3[.0-9]+/site-packages/jupyterhub/(\w+\.py): is empty$", found, re.M)
    assert {"app.py", "orm.py"} < set(damaged)
    assert f"error: {len(damaged)} of " in found

    sign(installer.with_name(f"{installer.stem}.release.json"), tmp_path, monkeypatch)
    for name in ("SHA256SUMS", "SHA256SUMS.asc"):
        machine.copy_in(tmp_path / f"dist/{name}", f"/mnt/{name}")
    machine.copy_in(tmp_path / "allowed_signers.gpg", "/opt/barehub/allowed_signers.gpg")
    machine.succeed("sh", INSTALLER, "-b", "-f")
    machine.succeed(BAREHUB, "status")
    assert "signature: Good signature from" in machine.as_user("alice", BAREHUB, "verify")
    assert len(GUIDE) == 4
    machine.shell("\n".join(GUIDE))
    machine.succeed("rm", "/opt/barehub/hub/share/barehub/SHA256SUMS.asc")
    assert "unsigned  SHA256SUMS: it has no signature" in machine.fails(BAREHUB, "verify", code=5)
    machine.succeed(BAREHUB, "uninstall", "-y")


def test_accounts_of_the_administrators_choice(machine: Machine) -> None:
    machine.succeed("useradd", "--system", "hub")
    machine.succeed("sh", INSTALLER, "-b", "--hub-user", "hub", "--proxy-user", "daemon")
    machine.succeed(BAREHUB, "status")
    owners = machine.succeed("ps", "-o", "user=", "-C", "jupyterhub,traefik,python")
    assert set(owners.split()) == {"hub", "daemon"}
    assert machine.unit("barehub-hub.service", "NoNewPrivileges") == "no"
    assert machine.shell("stat -c %U /opt/barehub/state/hub/jupyterhub-*.sqlite") == "hub\n"
    # Other accounts, over the files of the first.
    machine.succeed("sh", INSTALLER, "-b", "--hub-user", "root", "--proxy-user", "www-data")
    machine.succeed(BAREHUB, "status")
    owner = machine.succeed("stat", "-c", "%U:%G", "/opt/barehub/state/rules/rules.yaml")
    assert owner == "root:www-data\n"
    machine.succeed(BAREHUB, "uninstall", "-y")
    assert machine.succeed("id", "www-data")


def test_a_place_that_services_cannot_see_is_refused(machine: Machine) -> None:
    assert "is where services cannot see it" in machine.fails("sh", INSTALLER, "-b", "-p", "/home/barehub", code=6)


def test_the_proxys_account_is_its_own_and_goes_with_it(machine: Machine) -> None:
    passwd = machine.read("/etc/passwd")
    told = machine.succeed("sh", INSTALLER, "-b", "--dry-run")
    assert "account  barehub-proxy" in told
    machine.succeed("sh", INSTALLER, "-b")
    machine.succeed(BAREHUB, "status")
    assert machine.unit("barehub-proxy.service", "User") == "barehub-proxy"
    machine.succeed(BAREHUB, "uninstall", "-y")
    assert machine.read("/etc/passwd") == passwd


def test_on_another_file_system_the_units_are_copied(machine: Machine) -> None:
    output = machine.succeed("sh", INSTALLER, "-b", "-p", f"{DISK}/barehub")
    assert "copied the units to /etc/systemd/system" in output
    machine.succeed("test", "-f", "/etc/systemd/system/barehub-hub.service", "-a", "!", "-L",
                    "/etc/systemd/system/barehub-hub.service")  # fmt: skip
    machine.reboot()
    machine.eventually(f"{DISK}/barehub/hub/bin/barehub", "status")
    machine.succeed(f"{DISK}/barehub/hub/bin/barehub", "uninstall", "-y")


def test_the_questions_are_miniforge_s(machine: Machine) -> None:
    script = f"printf '%s\\n' {DISK}/asked no | sh {INSTALLER}"
    output = machine.fails("sh", "-c", script, code=2)
    assert "[/opt/barehub] >>> " in output
    assert f"write    {DISK}/asked/releases/" in output
    machine.fails("ls", f"{DISK}/asked")
    script = f"printf '%s\\n' {DISK}/asked yes | sh {INSTALLER}"
    machine.succeed("sh", "-c", script)
    machine.succeed(f"{DISK}/asked/hub/bin/barehub", "status")
    assert "remove all of it?" in machine.fails("sh", "-c", f"echo no | {DISK}/asked/hub/bin/barehub uninstall", code=2)
    machine.succeed("sh", "-c", f"echo yes | {DISK}/asked/hub/bin/barehub uninstall")
    machine.fails("ls", f"{DISK}/asked")


def test_without_root_and_systemd_it_runs_in_the_foreground(machine: Machine) -> None:
    base = "/home/alice/barehub"
    # Not a login: with a session alice would have a systemd of her own.
    output = machine.succeed("runuser", "-u", "alice", "--", "sh", INSTALLER, "-b", "-p", base)
    assert "nothing was started" in output
    assert f"{base}/hub/bin/barehub run" in output
    machine.succeed("systemd-run", "--unit=by-hand", "--uid=alice", f"{base}/hub/bin/barehub", "run")
    machine.eventually("runuser", "-u", "alice", "--", f"{base}/hub/bin/barehub", "status")
    status = json.loads(machine.succeed("runuser", "-u", "alice", "--", f"{base}/hub/bin/barehub", "status", "--json"))
    assert (status["hub"], status["proxy"], status["units"]) == (200, 200, {})
    machine.succeed("systemctl", "stop", "by-hand.service")
    machine.fails("pgrep", "--full", f"{base}/hub/bin", code=1)


def test_the_lock_is_what_pip_and_conda_say(machine: Machine, installer: Path) -> None:
    machine.succeed("sh", INSTALLER, "-b", "-s", "-k", "-p", f"{DISK}/bare")
    prefix = f"{DISK}/bare/releases/{installer.name.split('-')[1]}"
    locked = {tuple(line.split()[:3]) for line in machine.succeed("sh", INSTALLER, "--list").splitlines()}
    # Every JSON file there is a record to conda, which fails for one that is not.
    program = (
        f"import glob, json; print(json.dumps([json.load(open(p)) for p in glob.glob('{prefix}/conda-meta/*.json')]))"
    )
    records = json.loads(machine.succeed(f"{prefix}/bin/python", "-c", program))
    assert {(record["name"], record["version"], record["build"]) for record in records} == locked
    assert "No broken requirements" in machine.succeed(f"{prefix}/bin/python", "-I", "-m", "pip", "check")
    assert machine.succeed("ls", f"{DISK}/bare/channel").split() == ["linux-64", "noarch"]
    machine.fails("ls", "/etc/systemd/system/barehub.target")
    program = (
        "from importlib.metadata import entry_points; "
        "print(len([e.load() for e in entry_points(group='jupyterhub.proxies')]))"
    )
    assert int(machine.succeed(f"{prefix}/bin/python", "-I", "-c", program)) > 2
    # Wheels' packages bring what is compiled; our own, which is for any Python, is compiled here.
    newer = machine.succeed("find", prefix, "-name", "*.pyc", "-newer", f"{prefix}/conda-meta/history").splitlines()
    assert newer
    assert not [path for path in newer if "/site-packages/barehub/" not in path]
