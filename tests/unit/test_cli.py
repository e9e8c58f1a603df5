"""The `barehub` command: its options, its errors, its exit statuses."""

import dataclasses
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from barehub import cli
from barehub.errors import Exit, UserError, render
from barehub.layout import Layout
from barehub.lifecycle.options import Request
from barehub.process import DEBUG

from tests.unit.installations import ME, NEW, OLD_SCHEMA, belongs_to, make_release
from tests.unit.proxies import REPOSITORY


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG, "")
    monkeypatch.setenv("PATH", os.environ["PATH"])  # which `main` changes


def test_each_field_of_a_request_is_an_option_with_the_same_default() -> None:
    arguments = vars(cli.parser().parse_args(["install", "--base=/b", f"--release={NEW}"]))
    assert {field.name: arguments[field.name] for field in dataclasses.fields(Request)} == vars(Request(NEW))


def test_the_options_of_the_installer_mean_what_they_meant() -> None:
    words = "--no-start --restart --wait 5 --keep 3 --no-db-backup --require-same-packages --hub-user hub"
    arguments = cli.parser().parse_args(["install", "--base=/b", f"--release={NEW}", *words.split()])
    assert (arguments.start, arguments.restart, arguments.wait, arguments.keep) == (False, True, 5, 3)
    assert (arguments.back_up, arguments.same_packages, arguments.hub_user) == (False, True, "hub")


def test_an_error_says_what_to_do_and_sets_the_exit_status(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    belongs_to(layout, monkeypatch)
    assert cli.main(["status"]) == Exit.BASE == 6
    assert capsys.readouterr().err == f"error: {layout.base} holds no barehub\n  fix: name another directory\n"
    assert render(UserError("it is so")) == "error: it is so"


def test_debugging_shows_the_traceback_before_or_after_the_command(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    belongs_to(layout, monkeypatch)
    for words in (["status", "--debug"], ["--debug", "status"]):
        monkeypatch.setenv(DEBUG, "")
        assert cli.main(words) == Exit.BASE
        said = capsys.readouterr().err
        assert said.startswith("Traceback")
        assert said.endswith(f"error: {layout.base} holds no barehub\n  fix: name another directory\n")


@pytest.mark.parametrize("command", ["uninstall", "rollback"])
def test_without_anybody_to_answer_nothing_is_changed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """`</dev/null`, as in a script."""
    ME.save(layout)
    for label in ("2026.10.24", NEW):
        make_release(layout, label, OLD_SCHEMA)
    layout.hub.symlink_to(f"releases/{NEW}")
    layout.hub_state.mkdir(parents=True)
    belongs_to(layout, monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert cli.main([command]) == Exit.USAGE == 2
    assert capsys.readouterr().err.endswith("\n  fix: answer yes, or give -y\n")
    assert layout.active == NEW
    assert layout.record.exists()


def test_errors_of_the_hooks_have_a_status_of_their_own_and_are_in_the_log(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    belongs_to(layout, monkeypatch)
    log = tmp_path / "log"
    words = ["install", f"--base={layout.base}", f"--release={NEW}", f"--log={log}"]
    assert cli.main(words) == Exit.HOOK == 7
    assert log.read_text().startswith(f"error: {layout.prefix} is not complete\n  fix: ")


def test_a_disk_that_fails_is_an_error_for_people(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    belongs_to(layout, monkeypatch)
    layout.record.mkdir()
    assert cli.main(["status"]) == Exit.ERROR
    assert capsys.readouterr().err.endswith("\n  fix: fix the cause, then run this again\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="what is not root's may have a PATH of its own")
def test_what_root_runs_is_not_in_the_callers_path(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `su` without a dash."""
    belongs_to(layout, monkeypatch)
    monkeypatch.setenv("PATH", "/home/alice/bin:/usr/bin:/bin")
    cli.main(["status"])
    assert "alice" not in os.environ["PATH"]


def test_the_command_finds_its_own_python_whatever_the_caller_has_set(tmp_path: Path) -> None:
    prefix, hostile = tmp_path / "release/bin", tmp_path / "hostile"
    for directory in (prefix, hostile):
        directory.mkdir(parents=True)
    shutil.copy(REPOSITORY / "post_install/data/bin/barehub", prefix)
    for path in (prefix / "python", *(hostile / name for name in ("realpath", "dirname", "sh", "python", "exec"))):
        path.write_text('#!/bin/sh\necho "$0" "$@" "$LD_LIBRARY_PATH"\n')
        path.chmod(0o755)
    (tmp_path / "barehub").symlink_to(prefix / "barehub")
    env = {"PATH": str(hostile), "LD_LIBRARY_PATH": "/mine"}
    for words, libraries in (("status", ""), ("run", "/mine"), ("--debug run", "/mine")):
        command = [str(tmp_path / "barehub"), *words.split()]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout == f"{prefix}/python -I -m barehub {words} {libraries}\n"
