"""Options: the header reads its own and forwards the others as they are; its help is the list of them."""

import os
import re
import shlex
from argparse import Action
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub.cli import parser

import construct.installer
from construct.installer import HEADER, HEADER_BYTES, SCRIPTS, render_header
from tests.unit.installers import NUMBERS, SHELLS, refused, run, write

# The header reads them.
OWN = {"--help", "--from", "--log", "--dry-run", "--debug", "--verify", "--list", "--extract", "--diff", "--audit"}
FOR_HOOKS = {"--help", "--base", "--release", "--restart", "--kept-channel", "--log", "--debug"}  # the header sets them
HOSTILE = """ it's "$(touch oops)" `touch oops` \\ $HOME * 'x\n -b\tümlaut; exit 9\n\n"""


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    return write(tmp_path)


@pytest.fixture
def with_motd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installer with one more option: a line of the help is all that takes."""
    header = tmp_path / "header.sh"
    line = "#   --motd TEXT            what users read first\n"
    header.write_text(HEADER.read_text().replace("#   --no-start ", f"{line}#   --no-start "))
    monkeypatch.setattr(construct.installer, "HEADER", header)
    return write(tmp_path)


def hooks_of(base: Path) -> list[str]:
    """The words that the hooks got."""
    words = (base / "releases/2026.11.24/words").read_bytes().split(b"\0")
    assert words.pop() == b""
    return [os.fsdecode(word) for word in words]


def test_options_are_constructors(installer: Path, tmp_path: Path) -> None:
    assert run(installer, "-bsp", str(tmp_path / "one")).returncode == 0
    done = run(installer, "-bs", f"-p{tmp_path}/base", f"--log={tmp_path}/log")
    assert done.returncode == 0, done
    assert "skipped the post-install hooks" in done.stdout
    assert (tmp_path / "log").read_text() == done.stdout
    usage = run(installer, "-h").stdout
    assert usage.startswith("barehub 2026.11.24 for Linux x86_64")
    assert "--dry-run" in usage
    assert usage.splitlines()[-1].startswith("What follows this script")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", [HOSTILE, "a=b,-c", "'", "\n"])
def test_values_reach_the_hooks_byte_for_byte(with_motd: Path, tmp_path: Path, value: str, shell: str) -> None:
    base = tmp_path / "base"
    for options in (["--motd", value], [f"--motd={value}"]):
        done = run(with_motd, *options, "-b", "--no-start", "-p", str(base), shell=shell)
        assert done.returncode == 0, done
        assert hooks_of(base)[6:] == ["--name=barehub", *options, "--no-start"]
        assert not (tmp_path / "oops").exists()


def test_the_hint_of_s_can_be_pasted(with_motd: Path, tmp_path: Path) -> None:
    done = run(with_motd, "-bsp", str(tmp_path / "base"), "--motd", HOSTILE, "--no-start")
    hint = done.stdout.partition("to run them: ")[2].partition("\nchanged: ")[0]
    assert shlex.split(hint)[-3:] == ["--motd", HOSTILE, "--no-start"]


def test_a_name_is_given_once(installer: Path, tmp_path: Path) -> None:
    assert run(installer, "-b", "-p", str(tmp_path / "base"), "--name", "other", "--log=/dev/null").returncode == 0
    asked = [f"--base={tmp_path}/base", "--release=2026.11.24", "--name", "other", "--log=/dev/null"]
    assert hooks_of(tmp_path / "base") == ["-I", "-m", "barehub", "install", *asked]


@pytest.mark.parametrize(
    "action", [[], ["-b"], ["-b", "--dry-run"], ["--verify"], ["--list"], ["--extract", "new"], ["--diff"]]
)
def test_an_unknown_option_is_refused_before_any_write(
    installer: Path, tmp_path: Path, action: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = run(installer, *action, "-p", str(tmp_path / "base"), "--bogus", "x")
    refused(done, 2, "unknown option: --bogus")
    assert done.stderr.endswith(f"sh {installer} -h\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_help_names_the_options_that_the_hooks_have(installer: Path) -> None:
    told = set(re.findall(r"^ +(--[a-z-]+)", run(installer, "-h").stdout, re.MULTILINE)) | {"--help"}
    assert told - OWN == {option for action in install_actions() for option in long_options(action)} - FOR_HOOKS
    valued = set(re.findall(r"^ +(--[a-z-]+) [A-Z]+  ", run(installer, "-h").stdout, re.MULTILINE))
    takes = {option for action in install_actions() if action.nargs != 0 for option in long_options(action)}
    assert valued - OWN == takes - FOR_HOOKS


def install_actions() -> Iterator[Action]:
    [commands] = [action for action in parser()._actions if action.choices and "install" in action.choices]
    yield from commands.choices["install"]._actions


def long_options(action: Action) -> list[str]:
    return [option for option in action.option_strings if option.startswith("--")]


def test_the_header_has_room_and_the_scripts_have_no_placeholders() -> None:
    values = dict.fromkeys(("FILE", "FILE_BYTES", "HEADER_BYTES", "PAYLOAD_START", "PAYLOAD_SHA256"), "x" * 64)
    assert len(render_header({**NUMBERS, **values}).rstrip(b"\n")) < HEADER_BYTES / 2
    for script in SCRIPTS:
        assert not re.search("@[A-Z_0-9]+@", script.read_text()), script


def test_debug_shows_commands_as_one_can_paste_them(installer: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    for options, environment in ((["--debug"], {}), ([], {"BAREHUB_DEBUG": "1"})):
        done = run(installer, "-bf", "-p", str(base), *options, **environment)
        assert done.returncode == 0, done
        assert f"\n+ chmod -R go+rX,go-w {base}/releases/2026.11.24\n" in done.stderr
        assert hooks_of(base)[-1] == "--debug"
        shown = done.stderr.splitlines()[-1]
        assert shlex.split(shown)[-9:] == [f"{base}/releases/2026.11.24/bin/python", *hooks_of(base)]
    assert "+" not in run(installer, "-bf", "-p", str(base), BAREHUB_DEBUG="0").stderr


def test_debug_keeps_what_a_failed_engine_leaves(tmp_path: Path) -> None:
    installer, base = write(tmp_path, fill="#!/bin/sh\necho went wrong\nexit 3\n"), tmp_path / "base"
    done = run(installer, "-b", "-p", str(base), "--debug")
    assert done.returncode == 1
    assert f"kept for --debug: {base}/.staging; the log of the engine is {base}/.staging/engine.log" in done.stderr
    assert "went wrong" in (base / ".staging/engine.log").read_text()
    assert [path.name for path in base.iterdir()] == [".staging"]
    assert run(write(tmp_path), "-b", "-s", "-p", str(base)).returncode == 0
    assert {path.name for path in base.iterdir()} == {".lock", "releases"}
