"""barehub.environments: what a path means now, and which jupyterhub is there, without running any of it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from barehub.accounts import current_user
from barehub.environments import (
    SILENT,
    STATE,
    Found,
    find,
    find_as,
    hubs_version,
    inside,
    misfit,
    modules,
    offered_by,
    read,
    tell,
)

MAJOR = int(hubs_version().partition(".")[0])


def make_environment(prefix: Path, version: str = "6.1.1", python: str = "python3.12") -> Path:
    """An environment as pip and conda leave it, as far as names go. Whatever of it is run leaves a mark."""
    (prefix / f"lib/{python}/site-packages/jupyterhub-{version}.dist-info").mkdir(parents=True)
    (prefix / f"lib/{python}/site-packages/jupyterhub_idle_culler-2.0.0.dist-info").mkdir()
    (prefix / "bin").mkdir(exist_ok=True)
    for name in ("python", "jupyterhub-singleuser"):
        program = prefix / "bin" / name
        program.write_text(f"#!/bin/sh\ntouch {prefix}/was-run\n")
        program.chmod(0o755)
    return prefix


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """BASE of an environment with two releases, the older one current."""
    base = tmp_path / "jupyter"
    for label, version in (("2026.12.01", "6.1.1"), ("2026.12.08", "7.0.0b1")):
        make_environment(base / "releases" / label, version)
    (base / "current").symlink_to("releases/2026.12.01")
    return base


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every account can reach, unlike pytest's own."""
    directory = Path(f"/tmp/barehub-{os.getpid()}-environments")
    directory.mkdir(mode=0o755)
    yield directory
    shutil.rmtree(directory)


def test_current_is_the_release_that_it_leads_to(lab: Path) -> None:
    assert find(f"{lab}/current") == Found(f"{lab}/releases/2026.12.01", "6.1.1")
    assert find(f"{lab}/releases/2026.12.08").jupyterhub == "7.0.0b1"
    assert list(lab.rglob("was-run")) == []


def test_a_python_that_is_linked_twice_is_one(lab: Path) -> None:
    """conda's packages of python have lib/python3.1 -> python3.12."""
    (lab / "current/lib/python3.1").symlink_to("python3.12")
    assert find(f"{lab}/current").jupyterhub == "6.1.1"


def test_what_is_not_known_is_not_said_to_be_missing(lab: Path) -> None:
    release = lab / "releases/2026.12.01"
    make_environment(release, "5.0.0", "python3.11")
    assert find(str(release)).unknown == "it has several versions of jupyterhub"
    for one in release.glob("lib/*/*/jupyterhub-*"):
        one.rmdir()
    found = find(str(release))
    assert (found.unknown, found.missing) == ("it has no jupyterhub of its own", "")
    assert found.refusal == ""  # modules, or a path of the site's, may bring it


def test_what_is_missing_is_named(lab: Path) -> None:
    (lab / "current").unlink()
    assert find(f"{lab}/current").refusal == f"{lab}/current does not exist"
    (lab / "current").symlink_to("releases/none")
    assert find(f"{lab}/current").refusal == f"{lab}/releases/none does not exist"
    (lab / "releases/none/bin").mkdir(parents=True)
    assert find(f"{lab}/current").refusal == f"{lab}/releases/none/bin/python does not exist"
    (lab / "releases/none/bin/python").touch()
    assert find(f"{lab}/current").refusal == f"{lab}/releases/none/bin/python may not be run by {current_user()}"
    (lab / "current").unlink()
    (lab / "current").symlink_to("current")
    assert "cannot be looked at" in find(f"{lab}/current").unknown


def test_a_directory_that_an_account_may_not_enter_is_not_missing(reachable: Path) -> None:
    """It may be a group's own. Another account than root is asked, which may enter everything."""
    user = "daemon" if os.geteuid() == 0 else current_user()
    prefix = str(make_environment(reachable / "group/env"))
    (reachable / "group").chmod(0)
    (found,) = find_as(user, [prefix]).values()
    assert found.refusal == f"{prefix} cannot be looked at by {user}: Permission denied"
    assert found.missing == ""
    (reachable / "group").chmod(0o755)
    (found,) = find_as(user, [prefix]).values()
    assert found.jupyterhub == "6.1.1"


def test_another_process_tells_the_same(lab: Path) -> None:
    words = [sys.executable, "-m", "barehub.environments", f"{lab}/current", "/none"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert told == tell([f"{lab}/current", "/none"]) + "\n"
    assert read(told, [f"{lab}/current"])[f"{lab}/current"].jupyterhub == "6.1.1"


@pytest.mark.parametrize("told", ["", "[]", "{", '{"/x": 5}', '{"/x": {"evil": "1"}}', '{"/x": {"real": 1}}', "5"])
def test_an_answer_that_did_not_come_is_no_answer(told: str) -> None:
    assert read(told, ["/x"]) == {"/x": SILENT}
    assert SILENT.unknown
    assert SILENT.refusal == ""


def test_what_modules_load_is_not_looked_at() -> None:
    (found,) = find_as(current_user(), ["module load jupyter/4.2"]).values()
    assert found == Found(unknown="what modules load is not looked at")


# JupyterHub's own rule (jupyterhub/_version.py) is about major versions.
@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("6.1.1", ""), ("6.0.0b1", ""), ("6.99.0", ""), ("5.0.0", ""), ("5.5.4", ""),
        ("4.1.6", "too old"), ("1.5.0", "too old"), ("7.0.0", "too new"), ("10.0", "too new"), ("", ""), ("x", ""),
    ],
)  # fmt: skip
def test_versions_fit_or_not(version: str, said: str) -> None:
    assert misfit(version, "6.1.1") == said


def test_a_misfit_names_both_versions() -> None:
    old = f"{MAJOR - 2}.0.0"
    assert Found("/x", old).misfit == f"jupyterhub {old}, which is too old for the hub's {hubs_version()}"
    assert Found("/x", hubs_version()).misfit == ""
    assert Found("/x").misfit == ""


@pytest.mark.parametrize(
    "text", ["module load jupyter", "module load jupyter/4.2 GCC/12.3.0  cuda@12", "module load a"]
)
def test_modules_are_spelled_as_they_are_typed(text: str) -> None:
    assert modules(text) == " ".join(text.split()[2:])


@pytest.mark.parametrize(
    "text", ["/opt/x", "module", "module load", "module load $(id)", "module load a; id", "module load -x", "ml a", ""]
)
def test_nothing_else_is_modules(text: str) -> None:
    assert modules(text) == ""


def test_a_single_environment_needs_no_label() -> None:
    several = {"Lab": "/shared/jupyter/current", "Old": "module load old"}
    command = ["/opt/jupyter/bin/jupyterhub-singleuser"]
    one = {"/opt/jupyter": "/opt/jupyter"}
    assert offered_by(SimpleNamespace(environments=several, cmd=command)) == several
    assert offered_by(SimpleNamespace(environments={}, cmd=command)) == one
    assert offered_by(SimpleNamespace(cmd=command)) == one  # JupyterHub's own spawners
    assert offered_by(SimpleNamespace(users_environment="/opt/jupyter/", cmd=["jupyterhub-singleuser"])) == one
    assert offered_by(SimpleNamespace(environments=["theirs"], cmd=command)) == one  # some other class's
    for cmd in (["jupyterhub-singleuser"], ["/opt/start-notebook"], [], ["./bin/x"]):
        assert offered_by(SimpleNamespace(cmd=cmd)) == {}


def test_a_server_runs_the_program_of_its_release() -> None:
    real, current = "/lab/releases/1", "/lab/current"
    for program in (
        "jupyterhub-singleuser",
        "/lab/current/bin/jupyterhub-singleuser",
        "/old/bin/jupyterhub-singleuser",
    ):
        command = [program, "-x"]
        assert inside(real, current, command, ["/usr/bin"]) == (
            ["/lab/releases/1/bin/jupyterhub-singleuser", "-x"],
            ["/lab/releases/1/bin", "/usr/bin"],
        )
    labhub, _ = inside(real, current, ["/lab/current/bin/jupyter-labhub"], [])
    assert labhub == ["/lab/releases/1/bin/jupyter-labhub"]
    assert inside(real, current, ["/opt/wrapper"], ["/lab/current/bin", "/bin"]) == (
        ["/opt/wrapper"],
        ["/lab/releases/1/bin", "/bin"],
    )
    assert STATE == "environment"  # servers that run have it in the database
