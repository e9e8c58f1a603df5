"""The release workflow: what it runs exists, what it uses is pinned, and it may do no more than it needs."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import release

WORKFLOW = Path(__file__).parents[2] / ".github/workflows/release.yml"


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    return yaml.safe_load(WORKFLOW.read_text())["jobs"]


def steps(jobs: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in jobs.values() for step in job["steps"]]


def test_every_command_of_release_py_parses(jobs: dict[str, Any]) -> None:
    commands = []
    for step in steps(jobs):
        for line in re.findall(r"^\s*python3 release\.py (.*)$", step.get("run", ""), re.MULTILINE):
            line = re.sub(r'"\$\{\w+\[@\]\}"', "", line.partition(">")[0])  # options that are none by themselves
            line = line.replace("--$kind", "--overlay")
            line = line.replace("$DAYS_OLD", jobs["build"]["env"]["DAYS_OLD"])
            words = shlex.split(re.sub(r"\$\{?\w+\}?", "2026.11.24", line))
            commands.append(release.parse(words).command.__name__)
    assert commands == ["lock", "lock", "lock", "test", "build", "build", "verify", "diff"]


def test_everything_that_is_in_the_repository_is_published(jobs: dict[str, Any]) -> None:
    construct = WORKFLOW.parents[2] / "construct"
    folders = {
        f"{path.parent.name}/{path.name}"
        for kind in ("overlays", "environments")
        for path in (construct / kind).iterdir()
        if path.is_dir()
    }
    assert set(jobs["build"]["env"]["DISTRIBUTIONS"].split()) == folders


def test_nothing_is_locked_on_the_day_of_its_upload(jobs: dict[str, Any]) -> None:
    (lock,) = [step["run"] for step in steps(jobs) if step.get("name") == "Lock"]
    assert '--days-old "$DAYS_OLD"' in lock
    assert int(jobs["build"]["env"]["DAYS_OLD"]) == release.parse(["lock"]).days_old == 5


def test_actions_are_pinned_by_commit() -> None:
    uses = [use for path in WORKFLOW.parent.iterdir() for use in re.findall(r"uses: *(.*)", path.read_text())]
    assert uses
    for one in uses:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v[0-9.]+", one), one


def test_the_key_is_where_nothing_that_was_downloaded_runs(jobs: dict[str, Any]) -> None:
    """A reviewer lets it be used, and the job has neither a checkout nor a token."""
    assert [name for name, job in jobs.items() if "secrets." in str(job)] == ["sign"]
    assert jobs["sign"]["environment"] == "release"
    assert jobs["sign"]["permissions"] == {}
    used = [step["uses"].partition("@")[0] for step in jobs["sign"]["steps"] if "uses" in step]
    assert used == ["actions/download-artifact", "actions/upload-artifact"]
    assert not re.search(r"python|release\.py|\bsh\b", " ".join(step.get("run", "") for step in jobs["sign"]["steps"]))


def test_it_may_do_no_more_than_it_needs(jobs: dict[str, Any]) -> None:
    """Who runs others' code cannot write, and who can write runs no code of the checkout."""
    assert yaml.safe_load(WORKFLOW.read_text())["permissions"] == {}
    assert jobs["build"]["permissions"] == {"contents": "read"}
    assert not any("release.py" in step.get("run", "") for step in jobs["publish"]["steps"])


def test_no_expression_is_pasted_into_a_script(jobs: dict[str, Any]) -> None:
    assert not any("${{" in step.get("run", "") for step in steps(jobs))
