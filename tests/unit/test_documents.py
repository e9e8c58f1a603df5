"""The documents tell the truth: links lead somewhere, and what they name exists."""

import re
import shlex
from pathlib import Path

import pytest
from barehub import cli

from release import parse
from tests.readme import ADMIN, BUILDERS, README, ROOT, commands, documents

HEADER = (ROOT / "construct/header.sh").read_text().partition("\nmain() {")[0]
OPTIONS = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", HEADER)))
OF_ENVIRONMENTS = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / "construct/environment.help").read_text()))


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 130


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", document.read_text()):
        assert (document.parent / link).exists(), link


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_barehub_exist(document: Path) -> None:
    known = cli.parser().format_help()
    for command in re.findall(r"`(?:\S+/)?barehub (?:--debug )?([a-z]+)", document.read_text()):
        assert re.search(rf"^    {command}\b", known, re.MULTILINE), command


def test_the_tests_of_the_situations_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "post_install/SITUATIONS.md").read_text()))
    files = (*(ROOT / "tests/unit").glob("*.py"), *(ROOT / "tests/e2e").glob("*.py"))
    known = {name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    assert named
    assert named - known == set()


def test_the_administrators_guide_has_every_option_of_the_installer() -> None:
    assert [option for option in OPTIONS if option not in ADMIN.read_text() and option != "--help"] == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_installers_options_in_documents_exist(document: Path) -> None:
    runs = re.findall(r"-x86_64\.sh((?: +-{1,2}[^\n`]*)?)", document.read_text())
    given = [one for run in runs for one in re.findall(r"(?<![\w-])--[a-z-]+", run)]
    assert set(given) - {*OPTIONS, *OF_ENVIRONMENTS} == set()


def test_exit_codes_are_the_same_in_the_guide_and_the_installer() -> None:
    told = ADMIN.read_text().partition("## Exit codes\n\n")[2].partition("\n\n")[0].replace("\n", " ")
    meanings = re.findall(r"(?<!\d)(\d) (\w+)", told)
    assert [int(code) for code, _ in meanings] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    for code, word in meanings:
        assert f"{code} {word}" in HEADER.replace("\n#  ", ""), f"{code} {word}"


def builders_commands() -> list[str]:
    """The commands for whoever builds. Of documents for others as well, those of release.py."""
    mixed = [README, *sorted((ROOT / "construct/overlays").glob("*/README.md"))]
    texts = "\n".join(document.read_text() for document in mixed)
    found = re.findall(r"^ *(python3 release\.py.*)", texts, re.MULTILINE)
    return found + [line for document in BUILDERS for line in commands(document)]


@pytest.mark.parametrize("command", builders_commands())
def test_a_builders_commands_exist(command: str) -> None:
    words = shlex.split(command.removeprefix("sudo "), comments=True)
    while re.fullmatch("PIP_[A-Z_]+=.*", words[0]):
        del words[0]
    if "-m" in words and words[words.index("-m") + 1].startswith("tests."):
        assert (ROOT / (words[words.index("-m") + 1].replace(".", "/") + ".py")).is_file()
    elif words[:2] == ["python3", "release.py"]:
        assert callable(parse(words[2:]).command)
        assert all((ROOT / word).is_dir() for word in words if word.startswith("construct/"))
    else:  # these have tests of their own
        known = ("sh", "ssh-keygen", "gpg", "p")  # p: the debugger's
        assert words[0] in known or words[0].startswith(("BAREHUB_", ".venv/bin/"))
