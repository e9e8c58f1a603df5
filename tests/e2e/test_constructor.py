"""conda's constructor: an installer that `constructor construct/` makes, then one of ours that has it for an engine."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from signal import SIGTERM

import pytest

from construct import conda_constructor
from construct.build import build_release
from tests.machines.gate import FILLING, interrupt_at
from tests.machines.hub_client import BAREHUB, HUB, PROXY
from tests.machines.machine import Machine
from tests.readme import BUILDERS, commands

ROOT = Path(__file__).parents[2]
PLAIN, NEWER, OURS = "/mnt/plain.sh", "/mnt/newer.sh", "/mnt/ours.sh"

if conda_constructor.command() is None:  # conda's tools are not on PyPI, so this is no failure in CI
    pytest.skip("constructor is not installed: nothing was tested with it", allow_module_level=True)


@pytest.fixture(scope="module")
def label(installer: Path) -> str:
    return installer.name.split("-")[1]


@pytest.fixture(scope="module")
def construct(installer: Path, label: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Call it with a label to get an installer that constructor makes from construct/ and what --extract writes."""
    place = tmp_path_factory.mktemp("constructor")
    subprocess.run(["sh", installer, "--extract", place / "channel"], check=True)
    payload = place / f"channel/releases/barehub-{label}"
    receipt = (payload / "release.json").read_text()

    def make(release: str) -> Path:
        (payload / "release.json").write_text(receipt.replace(f'"version": "{label}"', f'"version": "{release}"'))
        cache, output = place / "cache", place / "output"
        options = f"--cache-dir={cache}", f"--output-dir={output}"
        words = [*conda_constructor.require_command(), *options, ROOT / "construct"]
        environment = {**os.environ, "BAREHUB_PAYLOAD": str(payload), "HOME": str(place)}
        subprocess.run(words, env=environment, check=True)
        return output / f"barehub-{release}-Linux-x86_64.sh"

    return make


def test_the_documents_commands_work_for_one_channel_after_another(
    installer: Path, label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each installer fills a prefix; a cache of another channel is refused."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "constructor").write_text(f'#!/bin/sh\nexec {shlex.join(conda_constructor.require_command())} "$@"\n')
    (tmp_path / "constructor").chmod(0o755)
    extract, construct = (line for line in commands(BUILDERS[0]) if "/tmp/channel" in line)
    for place in ("one", "two"):
        for line in (extract, construct):
            line = re.sub(r"\S+-x86_64\.sh", str(installer), line).replace("/tmp/channel", f"{tmp_path}/{place}")
            line = re.sub(r"releases/barehub-2\S+", f"releases/barehub-{label}", line).replace(
                "construct/", f"{ROOT}/construct/"
            )
            subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
        words = ["sh", tmp_path / f"barehub-{label}-Linux-x86_64.sh", "-b", "-s", "-p", tmp_path / f"prefix-{place}"]
        subprocess.run(words, check=True)
    other = line.replace("two.cache", "one.cache")
    done = subprocess.run(["sh", "-c", other], cwd=tmp_path, check=False, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "has packages of another channel" in done.stderr


def state_of(machine: Machine, base: str = "/opt/barehub") -> dict[str, str]:
    """Return what an installation consists of: each file with mode and owner, and the texts that the hooks wrote."""
    listing = machine.shell(
        f"cd {base} && find . ! -path './state/*/*'"
        r" -printf '%P %M %u:%g %l\n' | sort"
    )
    texts = machine.shell(
        f"cd {base} && find install.json systemd jupyterhub_config.d -type f | sort | xargs head --verbose --lines=999"
    )
    return {"files": listing, "texts": texts}


def test_it_refuses_what_is_no_place_for_a_release(
    machine: Machine, construct: Callable[[str], Path], label: str
) -> None:
    machine.copy_in(construct(label), PLAIN)
    for prefix, what in (
        ("/opt/elsewhere", "this release cannot be in /opt/elsewhere"),
        (f"/etc/releases/{label}", "/etc is not empty and not a barehub"),
        (f"/tmp/barehub/releases/{label}", "/tmp/barehub is where services cannot see it"),
    ):
        output = machine.fails("sh", PLAIN, "-b", "-p", prefix, code=1)
        assert f"error: {what}" in output
        assert "\n  fix: " in output
        machine.succeed("test", "!", "-e", prefix)
    machine.succeed("test", "!", "-e", "/opt/barehub")
    machine.succeed("test", "!", "-e", "/etc/releases")


def test_it_waits_for_nobody(machine: Machine, label: str) -> None:
    machine.succeed("mkdir", "-p", "/opt/barehub")
    output = machine.fails("flock", "/opt/barehub/.lock", "sh", PLAIN, "-b", code=1)
    assert "another installer is at work in /opt/barehub" in output
    machine.succeed("test", "!", "-e", f"/opt/barehub/releases/{label}")


def test_it_leaves_the_same_installation_as_ours(machine: Machine, installer: Path, label: str) -> None:
    """Whatever the caller's umask is; and nothing outside BASE."""
    outside = [
        "find",
        "/root",
        "/tmp",
        "/var/tmp",
        "-mindepth",
        "1",
        "-name",
        "systemd-private-*",
        "-prune",
        "-o",
        "-print",
    ]
    before = machine.succeed(*outside)
    output = machine.shell(f"umask 077; sh {PLAIN} -b")
    assert "http://" in output
    machine.succeed(BAREHUB, "status")
    assert machine.succeed(*outside) == before
    theirs = state_of(machine)
    # The lock went with the installer.
    machine.succeed("flock", "-n", "/opt/barehub/.lock", "true")
    machine.succeed(BAREHUB, "uninstall", "-y")
    machine.succeed("test", "!", "-e", "/opt/barehub")

    machine.copy_in(installer, "/mnt/barehub.sh")
    machine.succeed("sh", "/mnt/barehub.sh", "-b")
    ours = state_of(machine)
    machine.succeed(BAREHUB, "uninstall", "-y")
    assert theirs["texts"] == ours["texts"]
    different = set(theirs["files"].splitlines()) ^ set(ours["files"].splitlines())
    # By these an engine knows its own work: conda-ship's by the first two, constructor's by the third.
    marks = {
        f"releases/{label}/{name}"
        for name in (".barehub.json", "CACHEDIR.TAG", "conda-meta/initial-state.explicit.txt")
    }
    assert {line.split()[0] for line in different} <= marks
    assert not machine.shell("find / -xdev -name '_conda' -not -path '/proc/*'")


def test_no_path_of_the_building_machine_is_left(
    machine: Machine, construct: Callable[[str], Path], label: str
) -> None:
    machine.succeed("sh", PLAIN, "-b")
    prefix = f"/opt/barehub/releases/{label}"
    assert not machine.shell(f"grep -rlF -e '{ROOT}' -e pytest-of -e file:// {prefix}/conda-meta || :")
    assert "# update specs: " in machine.read(f"{prefix}/conda-meta/history")


def test_run_again_it_repairs(machine: Machine, label: str) -> None:
    assert "already exists" in machine.fails("sh", PLAIN, "-b", code=1)
    machine.succeed(BAREHUB, "status")
    page = machine.succeed("find", f"/opt/barehub/releases/{label}/share/jupyterhub/templates", "-name", "login.html")
    machine.succeed("rm", page.strip())
    machine.succeed("sh", PLAIN, "-b", "-u")
    machine.succeed("test", "-s", page.strip())
    machine.succeed(BAREHUB, "status")


def test_another_release_goes_beside_it(machine: Machine, construct: Callable[[str], Path], label: str) -> None:
    machine.copy_in(construct(f"{label}.1"), NEWER)
    proxy = machine.unit(PROXY, "InvocationID")
    machine.write("/opt/barehub/jupyterhub_config.d/90-broken.py", "c.JupyterHub.hub_port = (\n")
    assert "90-broken.py, line 1: SyntaxError" in machine.fails("sh", NEWER, "-b", code=1)
    assert machine.succeed("readlink", "/opt/barehub/hub") == f"releases/{label}\n"
    machine.succeed("rm", "/opt/barehub/jupyterhub_config.d/90-broken.py")
    machine.succeed(BAREHUB, "status")

    # The release is complete; what failed is what comes after it.
    machine.succeed("sh", NEWER, "-b", "-u")
    assert machine.succeed("readlink", "/opt/barehub/hub") == f"releases/{label}.1\n"
    assert ["also", "there", label] in [line.split() for line in machine.succeed(BAREHUB, "status").splitlines()]
    assert machine.unit(PROXY, "InvocationID") == proxy
    before = state_of(machine)
    assert "which is newer than" in machine.fails("sh", PLAIN, "-b", "-u", code=1)
    assert state_of(machine) == before
    machine.succeed(BAREHUB, "status")


def test_behind_our_header_it_is_an_engine_like_the_other(machine: Machine, label: str, tmp_path: Path) -> None:
    ours = build_release(ROOT, date=f"{label}.2", output=tmp_path, engine="constructor")
    machine.copy_in(ours, OURS)
    shutil.rmtree(tmp_path)
    prefix = f"/opt/barehub/releases/{label}.2"
    # Interrupted in the middle: nothing is left, and no process goes on.
    assert "installer: 143\n" in interrupt_at(machine, FILLING, SIGTERM, "sh", OURS, "-b", "-u")
    machine.succeed("test", "!", "-e", prefix)
    machine.fails("pgrep", "--full", "constructor.sh|_conda")
    machine.succeed(BAREHUB, "status")

    hub = machine.unit(HUB, "InvocationID")
    machine.succeed("sh", OURS, "-b", "-u")
    assert machine.succeed("readlink", "/opt/barehub/hub") == f"releases/{label}.2\n"
    assert machine.unit(HUB, "InvocationID") != hub
    for name in ("_conda", "pkgs", ".condarc", ".installer.info", "install_tmp"):
        machine.succeed("test", "!", "-e", f"{prefix}/{name}")
    machine.succeed("test", "!", "-e", "/root/.conda")
    machine.succeed(BAREHUB, "status")
