"""The overlay `slurm`: the last lines of a job's log, on the page of a start that has failed."""

import asyncio
import dataclasses
import os
import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest
from barehub_slurm import joblog
from barehub_slurm.following import JobError

from tests.unit.slurm_commands import RUNS, SHOWN, USER, Commands
from tests.unit.test_slurm_following import follow, run

TOKEN = "s3cretOfTheJob"


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Slurm's commands, and a home whose job 17 has failed."""
    home = tmp_path / "home"
    (home / ".jupyterhub").mkdir(parents=True)
    entry = pwd.getpwuid(os.getuid())
    account = SimpleNamespace(pw_dir=str(home), pw_uid=entry.pw_uid, pw_shell=entry.pw_shell)
    monkeypatch.setattr("pwd.getpwnam", lambda name: account)
    new = Commands(tmp_path)
    new.say("squeue", RUNS.replace("RUNNING", "FAILED"))
    new.say("scontrol", SHOWN.format("FAILED").replace("ExitCode=0:0", "ExitCode=1:0"))
    return new


def log(commands: Commands) -> Path:
    return commands.directory / "home/.jupyterhub/job-17.log"


def failure(commands: Commands) -> JobError:
    with pytest.raises(JobError) as error:
        run(follow(commands).wait_until_up(), 30)
    return error.value


def test_the_page_shows_the_logs_end_escaped_and_without_secrets(commands: Commands) -> None:
    lines = [f"line {number}" for number in range(500)]
    lines += [f"<script>alert('{TOKEN}')</script>", "\x1b[31mImportError: no module named <b>\x1b[0m"]
    log(commands).write_text("\n".join(["job 17 on c1", *lines, ""]))
    error = failure(commands)
    assert "it failed with exit status 1. Its log is ~/.jupyterhub/job-17.log on the node c1" in str(error)
    assert "ImportError" not in error.jupyterhub_message
    page = error.jupyterhub_html_message
    assert (
        "&lt;script&gt;alert(&#x27;(left out)&#x27;)&lt;/script&gt;\nImportError: no module named &lt;b&gt;</pre>"
        in page
    )
    assert "line 499" in page
    assert "line 400" not in page
    assert page.count("\n") < joblog.LINES


def test_a_log_that_is_not_here_adds_nothing(commands: Commands) -> None:
    assert not hasattr(failure(commands), "jupyterhub_html_message")


def test_it_is_read_as_the_user_and_not_waited_for(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblog, "PATIENCE", 0.2)
    os.mkfifo(log(commands))
    assert not hasattr(failure(commands), "jupyterhub_html_message")
    log(commands).unlink()
    log(commands).write_text("job 17 on c1\nmine\n")
    slurm = commands.slurm()
    monkeypatch.setattr(joblog, "PATIENCE", 30)
    assert asyncio.run(joblog.last_lines(slurm, "17", {})) == "mine"
    refused = dataclasses.replace(slurm, prefix="false {username}")
    assert asyncio.run(joblog.last_lines(refused, "17", {})) == ""


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("ModuleNotFoundError: No module named 'x'", "ModuleNotFoundError: No module named 'x'"),
        ("    http://c1:40123/user/ada/?token=abc def", "    http://c1:40123/user/ada/?token=(left out)"),
        ("Authorization: token abc", "Authorization: (left out)"),
        ("'Set-Cookie': 'a=1; b=2'", "'Set-Cookie': (left out)"),
        ("+ export JUPYTERHUB_API_TOKEN=abc", "+ export JUPYTERHUB_API_TOKEN=(left out)"),
        ("declare -x AWS_SECRET_ACCESS_KEY=\"a b\"", "declare -x AWS_SECRET_ACCESS_KEY=(left out)"),
        ("jupyter lab --IdentityProvider.token abc", "jupyter lab --IdentityProvider.token (left out)"),
        ("curl -H 'X: Bearer abc'", "curl -H 'X: Bearer (left out)"),
        ("_xsrf=2|abc", "_xsrf=(left out)"),
        ("AWS_ACCESS_KEY_ID: abc", "AWS_ACCESS_KEY_ID: (left out)"),
        ("--passphrase abc", "--passphrase (left out)"),
        ("proxy http://ada:pass@w0rd@proxy:3128/ is away", "proxy http://(left out)@proxy:3128/ is away"),
        ("http://c1:40123/user/ada@site/lab", "http://c1:40123/user/ada@site/lab"),
        ("took 0123456789abcdef0123456789ABCDEF", "took (left out)"),
        ("a" * 25 + "." + "b" * 25 + "." + "c" * 25, "(left out)"),
        ("x" * 5000, "x" * 200 + "…"),
        ("a\x00b\x07\x9bc\tü", "abc\tü"),
        ("first\rsecond", "firstsecond"),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_left_out(line: str, shown: str) -> None:
    assert joblog.presentable(f"job 17 on c1\n{line}\n\n", []) == shown


def test_a_line_whose_beginning_is_cut_is_not_shown(commands: Commands) -> None:
    log(commands).write_text("password=" + "a" * joblog.BYTES + "\nlast\n")
    assert asyncio.run(joblog.last_lines(commands.slurm(), "17", {})) == "last"
    assert pwd.getpwnam(USER).pw_dir == str(commands.directory / "home")
