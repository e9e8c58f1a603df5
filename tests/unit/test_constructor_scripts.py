"""The scripts that constructor's own installer runs, which share their checks with header.sh."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from construct import conda_constructor
from tests.unit import installers

SCRIPTS = Path(conda_constructor.__file__).parent
FUNCTIONS = "".join((SCRIPTS.parent / name).read_text() for name in ("preflight.sh", "ports.sh", "steps.sh"))
LABEL = "2026.11.24"


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A prefix as constructor has it when it runs pre_install."""
    prefix = tmp_path / f"base/releases/{LABEL}"
    (prefix / "pkgs").mkdir(parents=True)
    (prefix / "conda-meta").mkdir()
    (prefix / "_conda").touch()
    return prefix


def environment(prefix: Path, functions: str = FUNCTIONS) -> dict[str, str]:
    """What constructor's installer sets."""
    installer = {"INSTALLER_NAME": "barehub", "INSTALLER_VER": LABEL, "BAREHUB_FUNCTIONS": functions}
    return {"PATH": os.environ["PATH"], "PREFIX": str(prefix), **installer}


def pre_install(prefix: Path, functions: str = FUNCTIONS) -> subprocess.CompletedProcess[str]:
    # The shell in between is the installer, which has more to do.
    words = ["sh", "-c", 'sh "$0"; code=$?; flock -n "$1" true; echo "lock: $?"; exit $code']
    words += [str(SCRIPTS / "pre_install.sh"), str(prefix.parents[1])]
    return subprocess.run(words, env=environment(prefix, functions), capture_output=True, text=True, check=False)


def test_the_base_stays_locked_while_the_installer_runs(unpacked: Path) -> None:
    done = pre_install(unpacked)
    assert (done.returncode, done.stdout) == (0, "lock: 1\n"), done


def test_a_refusal_removes_what_was_unpacked(unpacked: Path) -> None:
    base = unpacked.parents[1]
    (base / "hub").symlink_to("releases/2027.01.01")
    (base / "install.json").write_text('{"name": "barehub", "proxy_user": "www-data"}')
    done = pre_install(unpacked)
    assert done.returncode == 1
    assert f"{base} runs 2027.01.01, which is newer" in done.stderr
    assert not unpacked.exists()
    assert (base / "install.json").exists()


def test_a_refusal_leaves_a_complete_release_as_it_was(unpacked: Path) -> None:
    """-u let constructor unpack into it, and empty its history."""
    base = unpacked.parents[1]
    (base / "hub").symlink_to("releases/2027.01.01")
    (base / "install.json").write_text('{"name": "barehub", "proxy_user": "www-data"}')
    for name in ("share/barehub/release.json", "conda-meta/python-3.12-0.json", "pkgs/one/bin/tool", "_internal/x"):
        (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / name).write_text("{}")
    for name in ("install_tmp/x", ".installer.info", "conda-meta/initial-state.explicit.txt", "conda-meta/history"):
        (unpacked / name).parent.mkdir(exist_ok=True)
        (unpacked / name).touch()
    (unpacked / "bin").mkdir()
    (unpacked / "bin/python").symlink_to(sys.executable)
    history = b"==> 2026-11-24 <==\n# cmd: constructor --here\n+one\n"
    with tarfile.open(unpacked / "postconda.tar.bz2", "w:bz2") as tar:
        member = tarfile.TarInfo("conda-meta/history")
        member.size = len(history)
        tar.addfile(member, io.BytesIO(history))
    assert pre_install(unpacked).returncode == 1
    assert sorted(str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if not path.is_dir()) == [
        "bin/python", "conda-meta/history", "conda-meta/python-3.12-0.json", "share/barehub/release.json"
    ]  # fmt: skip
    assert (unpacked / "conda-meta/history").read_text() == "==> 2026-11-24 <==\n# cmd: constructor\n+one\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's BASE is that user's")
@pytest.mark.parametrize(("mode", "runs"), [(0o755, True), (0o777, False)])
def test_a_refusal_runs_nothing_that_others_can_change(tmp_path: Path, unpacked: Path, mode: int, runs: bool) -> None:
    base = unpacked.parents[1]
    (base / "install.json").write_text('{"name": "barehub", "proxy_user": "www-data"}')
    (base / "hub").symlink_to("releases/2027.01.01")
    for name in ("share/barehub/release.json", "bin/python"):
        (unpacked / name).parent.mkdir(parents=True)
        (unpacked / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (unpacked / "bin/python").chmod(0o755)
    base.chmod(mode)
    done = pre_install(unpacked)
    assert done.returncode == 1
    assert (f"others than root can change {base}" in done.stderr) is not runs
    assert (tmp_path / "ran").exists() is runs


@pytest.mark.parametrize("theirs", ["bin/tool", "conda-meta/python-3.11-0.json"])
def test_a_refusal_removes_nothing_of_others(tmp_path: Path, unpacked: Path, theirs: str) -> None:
    """-f let the installer go on in a directory that was there."""
    place = tmp_path / "elsewhere"
    unpacked.rename(place)
    (place / theirs).parent.mkdir(exist_ok=True)
    (place / theirs).touch()
    done = pre_install(place)
    assert done.returncode == 1
    assert f"error: this release cannot be in {place}\n  fix: " in done.stderr
    assert (place / theirs).exists()


def refused(prefix: Path, what: str, functions: str = FUNCTIONS) -> None:
    """The script says why and what to do, and what was unpacked is gone."""
    done = pre_install(prefix, functions)
    assert done.returncode == 1, done
    assert f"error: {what}" in done.stderr, done
    assert "\n  fix: " in done.stderr
    assert not prefix.exists()


def test_what_belongs_to_others_is_refused(unpacked: Path) -> None:
    base = unpacked.parents[1]
    (base / "releases/20260101").mkdir()
    refused(unpacked, f"{base} is not empty and not a barehub")
    assert [path.name for path in base.rglob("*")] == ["releases", "20260101"]


@pytest.mark.parametrize("mark", ["share/barehub/release.json", "pkgs/lock-holder"])
def test_an_installation_and_what_an_interrupted_one_left_are_used(unpacked: Path, mark: str) -> None:
    place = unpacked.with_name("2026.10.24") / mark
    place.parent.mkdir(parents=True)
    place.write_text("{}")
    assert pre_install(unpacked).returncode == 0


# In the order in which constructor's header.sh makes them.
STEPS = ("_conda", "install_tmp", "preconda.tar.bz2", "pkgs/one-1-0.conda", ".installer.info", "conda-meta/history")


@pytest.mark.parametrize("count", range(len(STEPS) + 1))
def test_what_constructors_installer_leaves_before_its_first_script_is_used(
    tmp_path: Path, unpacked: Path, count: int
) -> None:
    left = tmp_path / "base/releases/2026.10.24"
    left.mkdir()
    for name in STEPS[:count]:
        (left / name).parent.mkdir(exist_ok=True)
        (left / name).touch()
    assert pre_install(unpacked).returncode == 0
    unpacked.rename(tmp_path / "elsewhere")
    ours = installers.write(tmp_path)
    done = installers.run(ours, "-b", "--dry-run", "-p", str(tmp_path / "base"))
    assert done.returncode == 0, done
    (left / "data").touch()
    installers.refused(installers.run(ours, "-b", "-p", str(tmp_path / "base")), 6, "is not empty and not a barehub")


def test_another_distribution_is_refused(unpacked: Path) -> None:
    base = unpacked.parents[1]
    receipt = base / "releases/2026.10.24/share/barehub/release.json"
    receipt.parent.mkdir(parents=True)
    receipt.write_text(json.dumps({"schema": 1, "name": "theirs", "version": "2026.10.24"}, indent=1))
    (base / "hub").symlink_to("releases/2026.10.24")
    refused(unpacked, f"{base} holds theirs 2026.10.24, which is not barehub")
    assert receipt.exists()


def test_a_network_file_system_is_refused(tmp_path: Path, unpacked: Path) -> None:
    (tmp_path / "mounts").write_text(f"where {tmp_path} nfs4 rw 0 0\n")
    there = FUNCTIONS.replace("/proc/self/mounts", str(tmp_path / "mounts"))
    refused(unpacked, f"{unpacked.parents[1]} is on nfs4, where SQLite databases get corrupted", there)


def test_too_little_room_for_the_hub_is_refused(unpacked: Path) -> None:
    refused(unpacked, f"{unpacked.parents[1]} has ", FUNCTIONS.replace('"$free" -ge', "0 -ge"))


def test_the_hooks_run_at_last(tmp_path: Path, unpacked: Path) -> None:
    base = unpacked.parents[1]
    assert pre_install(unpacked).returncode == 0
    for name, text in {
        "share/barehub/release.json": "{}",
        "conda-meta/history": "# cmd: constructor --here\n",
        "bin/python": f'#!/bin/sh\n[ "$2" = -m ] && [ "$3" = compileall ] || echo "$@" >{tmp_path}/called\n',
    }.items():
        (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / name).write_text(text)
    (unpacked / "conda-meta/python.json").write_text("{}")
    (unpacked / "bin/python").chmod(0o755)
    (base / "hub").symlink_to(f"releases/{LABEL}")
    (base / "install.json").write_text('{"name": "mine", "proxy_user": "www-data"}')
    subprocess.run(["sh", SCRIPTS / "post_install.sh"], env=environment(unpacked), check=True)
    asked = f"install --base={base} --release={LABEL} --name=mine --restart"
    assert (tmp_path / "called").read_text() == f"-I -m barehub {asked}\n"
