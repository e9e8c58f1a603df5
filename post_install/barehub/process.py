"""The one door out to other programs, files that are written whole or not at all, and the lock on BASE.

Commands are argument lists, never shell strings. Stdin is closed, so that nothing can stop and ask, except for `run`
and `start`, which serve `barehub run`. With BAREHUB_DEBUG each command is echoed to stderr before it runs, in a form
that can be pasted; none holds a secret.
"""

import contextlib
import fcntl
import os
import pwd
import select
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from barehub.errors import Exit, UserError
from barehub.untrusted import LIMIT, holds

DEBUG = "BAREHUB_DEBUG"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def debugging() -> bool:
    """Return True if all commands and tracebacks are to be shown: `--debug`, or BAREHUB_DEBUG=1."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def command(*argv: str | Path) -> list[str]:
    """Return the words of a command that is about to run, and echo it if debugging."""
    words = [os.fspath(word) for word in argv]
    if debugging():
        print("+", shlex.join(words), file=sys.stderr, flush=True)
    return words


def attempt(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command quietly and return its result; a missing program is exit status 127."""
    words = command(*argv)
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: not found")


def output(*argv: str | Path) -> str:
    """Run a command quietly and return what it printed. Raises UserError with its stderr if it fails."""
    done = attempt(*argv)
    if done.returncode:
        raise UserError(f"{shlex.join(done.args)} exited with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def attempt_as(user: str, *argv: str | Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a command quietly as another account, with its groups and `text` on its stdin, and return its result.

    It sees nothing of our environment. Only root can change accounts; anyone else stays. Raises UserError if there is
    no such account.
    """
    words, environment = command(*argv), {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    account: dict[str, Any] = {}
    if found := to_become(user):
        groups = os.getgrouplist(user, found.pw_gid)
        account = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": groups}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with child_of(words, signal.SIGKILL, **account, **pipes, env=environment, cwd="/", text=True) as child:
        printed, complaints = child.communicate(text)
    return subprocess.CompletedProcess(words, child.returncode, printed, complaints)


def call_as(user: str, work: Callable[[], str], environment: Mapping[str, str], seconds: float) -> str:
    """Return what `work` returns in a child process of this account, with its groups and this environment.

    The child has none of our open files but stderr, which its output goes to. Only root can change accounts; anyone
    else stays. Returns an empty text if it ends before it has returned, has not after that time, or returns too much.
    Raises UserError if there is no such account.
    """
    account = to_become(user)
    reading, writing = os.pipe()
    text, deadline, child = b"", time.monotonic() + seconds, 0
    try:
        with signals_later():
            if (child := os.fork()) == 0:
                try:
                    _become(account, environment, keep=writing)
                    with open(writing, "w", closefd=False) as pipe:
                        pipe.write(work())
                except Exception:
                    traceback.print_exc()
                finally:
                    os._exit(0)  # whatever was raised: the parent's way out is not the child's
            os.close(writing)
        while select.select([reading], [], [], max(0, deadline - time.monotonic()))[0]:
            if not (part := os.read(reading, 65536)):
                return text.decode(errors="replace")
            text += part
            if len(text) > LIMIT:
                break
        return ""
    finally:
        os.close(reading)
        if child:
            os.kill(child, signal.SIGKILL)  # it has ended, or nobody waits for it any more
            os.waitpid(child, 0)


def to_become(user: str) -> pwd.struct_passwd | None:
    """Return the account to change to; None if this process is not root's. Raises UserError if there is none."""
    try:
        return pwd.getpwnam(user) if os.geteuid() == 0 else None
    except KeyError:
        raise UserError(f"there is no account {user}", f"useradd --system {user}", Exit.USAGE) from None


def _become(account: pwd.struct_passwd | None, environment: Mapping[str, str], keep: int) -> None:
    """Make this process, a child, one of that account, with nothing of ours but stderr and `keep`."""
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for descriptor in {int(entry.name) for entry in Path("/proc/self/fd").iterdir()} - {0, 1, 2, keep}:
        with contextlib.suppress(OSError):  # the one that listed them
            os.close(descriptor)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - as long as the process
    if account and account.pw_uid != os.geteuid():
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    os.chdir("/")
    os.environ.clear()
    os.environ.update(environment)


def run(*argv: str | Path, env: Mapping[str, str]) -> int:
    """Run a command where its output can be seen; return its exit status."""
    return subprocess.run(command(*argv), env=env, check=False).returncode


def start(*argv: str | Path, env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    """Start a command where its output can be seen, and return it while it runs."""
    return subprocess.Popen(command(*argv), env=env, cwd=cwd)


def run_to_its_end(*argv: str | Path) -> int:
    """Run a command that undoes its work when it gets SIGTERM; return its exit status.

    If this process is told to end, so is the command; then it is waited for.
    """
    with child_of(command(*argv), signal.SIGTERM, stdin=subprocess.DEVNULL, cwd="/") as child:
        return int(child.wait())


@contextlib.contextmanager
def child_of(words: list[str], end: signal.Signals, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A child process, which gets the signal `end` and is waited for if the block ends in an exception."""
    child = None
    try:
        with signals_later():
            child = subprocess.Popen(words, **options)
        yield child
    except BaseException:
        if child:
            with signals_later():
                child.send_signal(end)
                child.wait()
        raise


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """Let the signals that would end us take effect after the block, such as Popen(), which would lose its child.

    They are not blocked, which a child would inherit. Only the main thread handles signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in ENDING}
    handlers = {number: one for number, one in handlers.items() if one not in (signal.SIG_IGN, None)}
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for missed in came:
            signal.raise_signal(missed)


def write_atomically(path: Path, text: str, mode: int | None = None, owner: tuple[int, int] = (-1, -1)) -> bool:
    """Write `path` with this text and mode so that readers see the old or the new content, also after a power cut.

    Without a mode, that of the file that is there stays, with its owner and group; a new one gets 0644. The file gets
    all three before its first byte. Returns False if nothing differed and nothing was written.
    """
    if mode is None:
        mode, owner = kept(path)
    if holds(path, text.encode(), mode, owner):
        return False
    staged = path.with_name(f".{path.name}.new")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w") as file:
        os.fchmod(descriptor, mode)  # whatever the umask
        os.fchown(descriptor, *owner)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    staged.replace(path)
    sync_directory(path.parent)
    return True


def kept(path: Path) -> tuple[int, tuple[int, int]]:
    """Return the mode, and the owner and group, that a file keeps when it is written again."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            return stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid) if os.geteuid() == 0 else (-1, -1)
    return 0o644, (-1, -1)


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(base: Path) -> Iterator[None]:
    """Hold the lock that installers take (open_lock in steps.sh). Raises UserError if an installer holds it."""
    descriptor = os.open(base / ".lock", os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"an installer is at work in {base}", "wait until it has finished", Exit.BASE) from None
    finally:
        os.close(descriptor)
