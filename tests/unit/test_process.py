"""barehub.process: how programs are run, files written, and BASE locked."""

import fcntl
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from traceback import extract_stack

import pytest
from barehub import process
from barehub.accounts import current_user
from barehub.errors import Exit, UserError
from barehub.process import write_atomically


def test_a_file_is_written_whole_with_its_mode_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    old = os.umask(0o002)
    try:
        assert write_atomically(path, "one", 0o600)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not write_atomically(path, "one", 0o600)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("barehub.process.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "two", 0o600)
    assert path.read_text() == "one"


def test_a_command_that_fails_is_named_with_what_it_said() -> None:
    assert process.output("sh", "-c", "echo fine") == "fine\n"
    with pytest.raises(UserError, match="sh -c 'echo why >&2; exit 3' exited with 3: why"):
        process.output("sh", "-c", "echo why >&2; exit 3")
    assert process.attempt("no-such-program").returncode == 127


def test_debugging_echoes_commands_as_they_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    process.attempt("true", "a b")
    monkeypatch.setenv(process.DEBUG, "0")
    process.attempt("true", "a b")
    assert capfd.readouterr().err == ""
    monkeypatch.setenv(process.DEBUG, "1")
    process.attempt("true", "a b")
    process.attempt_as(current_user(), "cat", text="a secret")
    assert capfd.readouterr().err == "+ true 'a b'\n+ cat\n"


def test_another_account_sees_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    user = "daemon" if os.geteuid() == 0 else current_user()
    done = process.attempt_as(user, "sh", "-c", "cat; env; id -u; id -G", text="input\n")
    lines = done.stdout.splitlines()
    assert lines[0] == "input"
    account = pwd.getpwnam(user)
    assert lines[-2] == str(account.pw_uid)
    assert "SECRET" not in done.stdout
    assert {*map(int, lines[-1].split())} == {*os.getgrouplist(user, account.pw_gid)}  # as its unit has them


def test_a_command_that_undoes_its_work_is_told_to_end_and_waited_for(tmp_path: Path) -> None:
    """SIGTERM reaches the command when we are interrupted, and it has ended before the interruption goes on."""
    ready, undone = tmp_path / "ready", tmp_path / "undone"

    def interrupt() -> None:
        main = threading.main_thread().ident or 0
        while not ready.exists() or "wait" not in [one.name for one in extract_stack(sys._current_frames()[main])]:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    script = f"trap 'touch {undone}; exit' TERM; touch {ready}; while :; do sleep 0.05; done"
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        process.run_to_its_end("sh", "-c", script)
    thread.join()
    assert undone.exists()
    assert process.run_to_its_end("sh", "-c", "exit 7") == 7


@pytest.mark.parametrize(
    "run",
    [
        process.run_to_its_end,
        lambda *words: process.attempt_as(current_user(), *words, text=""),
        lambda *_: process.call_as(current_user(), lambda: time.sleep(60) or "", {}, 60),
    ],
    ids=["run_to_its_end", "attempt_as", "call_as"],
)
@pytest.mark.parametrize("number", process.ENDING)
def test_a_signal_while_a_child_is_started_leaves_none(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., object], number: signal.Signals
) -> None:
    """It comes when there is a child that the call has not returned; and once more while the child is waited for."""
    children: list[int] = []
    start, wait, fork = subprocess.Popen._execute_child, subprocess.Popen.wait, os.fork

    def interrupted_start(self: subprocess.Popen[bytes], *rest: object) -> None:
        start(self, *rest)
        children.append(self.pid)
        os.kill(os.getpid(), number)

    def interrupted_wait(self: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        os.kill(os.getpid(), number)
        return wait(self, timeout)

    def interrupted_fork() -> int:
        if child := fork():
            children.append(child)
            os.kill(os.getpid(), number)
        return child

    def end(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", interrupted_start)
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted_wait)
    monkeypatch.setattr(os, "fork", interrupted_fork)
    before = signal.signal(number, end)
    try:
        with pytest.raises(KeyboardInterrupt):
            run("sleep", "60")
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)
    [child] = children
    with pytest.raises(ChildProcessError):  # it has ended, and was waited for
        os.waitpid(child, 0)


def test_a_command_inherits_nothing_of_that(tmp_path: Path) -> None:
    status = tmp_path / "status"
    assert process.run_to_its_end("sh", "-c", f"grep Sig /proc/self/status >{status}") == 0
    masks = dict(line.split() for line in status.read_text().splitlines() if line[3:6] in ("Blk", "Ign"))
    ours = sum(1 << (number - 1) for number in process.ENDING if signal.getsignal(number) is not signal.SIG_IGN)
    assert [int(mask, 16) & ours for mask in masks.values()] == [0, 0]


def test_foreground_commands_see_the_environment_and_directory_they_are_given(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "CODE": "5"}
    assert process.run("sh", "-c", "exit $CODE", env=environment) == 5
    child = process.start("sh", "-c", "pwd >where; exec sleep 60", env=environment, cwd=tmp_path)
    child.send_signal(signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM


def test_a_base_that_an_installer_has_locked_is_refused(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / ".lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="an installer is at work") as caught, process.locked(tmp_path):
        pass
    assert caught.value.code == Exit.BASE
    os.close(descriptor)
    with process.locked(tmp_path):
        pass
