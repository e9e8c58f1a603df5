"""release.py itself: which tests a command line asks for, and what --debug shows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import release
from recipe.debug import pasteable
from recipe.errors import UserError
from tests.run import choose

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "parts", "rest"),
    [
        ([], ["unit", "lint", "e2e"], []),
        (["unit"], ["unit"], []),
        (["lint", "unit"], ["lint", "unit"], []),
        (["unit", "--", "-k", "e2e"], ["unit"], ["-k", "e2e"]),
        (["-x", "-k", "name"], ["unit", "lint", "e2e"], ["-x", "-k", "name"]),
        (["e2e", "--durations=5"], ["e2e"], ["--durations=5"]),
    ],
)
def test_the_parts_come_first_and_the_rest_is_for_pytest(words: list[str], parts: list[str], rest: list[str]) -> None:
    chosen, _, more = choose(words)
    assert (chosen, more) == (parts, rest)


def test_a_story_has_the_name_of_its_file() -> None:
    assert choose(["e2e", "first-day", "-x"]) == (
        ["e2e"],
        choose([])[1] | {"e2e": "tests/e2e/test_first_day.py"},
        ["-x"],
    )
    with pytest.raises(UserError, match="there is no tests/e2e/test_no_such"):
        choose(["e2e", "no-such"])


def test_debug_is_for_every_command_and_leaves_pytest_its_own() -> None:
    assert release.parse(["--debug"]).command is release.build
    assert release.parse(["--debug", "verify", "x.sh"]).debug
    assert not release.parse(["verify", "x.sh"]).debug
    arguments = release.parse(["test", "unit", "--debug"])
    assert (arguments.debug, arguments.pytest) == (False, ["unit", "--debug"])


def test_what_debug_shows_can_be_pasted(tmp_path: Path) -> None:
    line = pasteable(["sh", "-c", 'echo "$A" "$PWD"'], tmp_path, os.environ | {"A": "two words"})
    shown = subprocess.run(["sh", "-c", line.removeprefix("+ ")], capture_output=True, text=True, check=True).stdout
    assert shown == f"two words {tmp_path}\n"


def test_an_error_keeps_its_traceback_with_debug(tmp_path: Path) -> None:
    for debug in ([], ["--debug"]):
        words = [sys.executable, ROOT / "release.py", *debug, "verify", tmp_path / "none.sh"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "\n  fix: " in done.stderr
        assert ("Traceback" in done.stderr) == bool(debug)
