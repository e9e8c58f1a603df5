"""Channels that cannot be read: what the server said, about which, and never a user, a password or a token."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from construct.channels import open_channel
from construct.lock import lock_environment
from construct.packages import fill_channel, read_lock, relock
from recipe.debug import show
from recipe.errors import UserError, masked
from recipe.overlay import Stack
from recipe.report import say
from recipe.standalone import UnavailableError, blocks
from tests.unit.channels import FORGE, write_channel, write_repository

ROOT = Path(__file__).parents[2]
HIDDEN = ("sam", "hunter2", "t0ken", "k3y")  # of the URLs in this file


@contextlib.contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that answers each request with this status; its host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def require_hidden(*texts: str) -> None:
    for text in texts:
        assert not [one for one in HIDDEN if one in text], text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://sam:hunter2@host/team/main", "https://host/team/main"),
        ("https://sam@host:8443/team", "https://host:8443/team"),
        ("https://sam:hunter2%40%2F@host/x", "https://host/x"),
        ("https://sam:hunter2/@host/x", "https://host/x"),
        ("https://sam:hunter2@t0ken@host/x", "https://host/x"),
        ("https://host/t/t0ken/team/main", "https://host/t/***/team/main"),
        ("https://sam:hunter2@host/get/t/t0ken", "https://host/get/t/***"),
        ("https://host/main?access_key=k3y&x=t0ken", "https://host/main?***"),
        ("s3://sam:hunter2@bucket/main", "s3://bucket/main"),
        ("conda-forge and /t/home/team", "conda-forge and /t/home/team"),
        ("user@host, https://host/main: 404", "user@host, https://host/main: 404"),
    ],
)
def test_no_secret_of_a_url_gets_out(url: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert masked(url) == shown
    say(url)
    assert capsys.readouterr().err == f"{shown}\n"
    error = UserError(f"cannot read ({url})", f"--channel '{url}', or not")
    assert (str(error), error.fix) == (f"cannot read ({shown})", f"--channel '{shown}', or not")
    assert str(UnavailableError(f"{url} has none")) == f"{shown} has none"


def lock(stack: Stack, channels: Sequence[str]) -> None:
    lock_environment(stack, "linux-64", (), None, channels)


def build(stack: Stack, channels: Sequence[str]) -> None:
    """What a build and a mirror do first."""
    fill_channel(stack, read_lock(stack, None, channels), channels, stack.root / ".cache", stack.root / "channel")


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (lock, 401, "401 Unauthorized"),
        (lock, 403, "403 Forbidden"),
        (lock, 503, "503 Service Unavailable"),
        (build, 401, "401 Unauthorized"),
        (build, 404, "404 Not Found"),
    ],
)
def test_the_servers_answer_is_told(
    tmp_path: Path, command: Callable[[Stack, Sequence[str]], None], status: int, said: str
) -> None:
    stack = Stack(write_repository(tmp_path / "repository"))
    forge = str(write_channel(tmp_path / "forge", FORGE))
    lock(stack, [forge])
    with answering(status) as host, pytest.raises(UserError) as caught:
        command(stack, [forge, f"http://sam:hunter2@{host}/t/t0ken/team"])
    told = str(caught.value)
    assert "a channel cannot be read" in told
    assert said in told
    assert f"http://{host}/t/" in told
    assert "fit together" not in told
    assert "password or token" in caught.value.fix
    require_hidden(told, caught.value.fix)


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)a channel cannot be read.*http://127\.0\.0\.1:9/.*refused") as caught:
        lock_environment(
            Stack(write_repository(tmp_path / "repository")), "linux-64", (), None, ["http://sam:hunter2@127.0.0.1:9/x"]
        )
    require_hidden(str(caught.value))


def test_packages_that_do_not_fit_are_still_that(tmp_path: Path) -> None:
    few = write_channel(tmp_path / "few", FORGE[:1])
    with pytest.raises(UserError, match="the packages do not fit together"):
        lock_environment(Stack(write_repository(tmp_path / "repository")), "linux-64", (), None, [str(few)])


def test_what_is_no_channel_is_named_without_its_secret() -> None:
    with pytest.raises(UserError, match="is not a channel") as caught:
        open_channel("https://sam:hunter2@host:port/x")
    require_hidden(str(caught.value))


def test_a_fix_and_a_mirror_of_the_interpreter_tell_no_secret(tmp_path: Path) -> None:
    stack = Stack(write_repository(tmp_path / "repository"))
    require_hidden(UserError("x", relock(stack, ["https://sam:hunter2@host/t/t0ken/x"])).fix)
    with pytest.raises(UnavailableError) as caught:
        list(blocks("http://sam:hunter2@127.0.0.1:9/python.tar.gz"))
    require_hidden(str(caught.value))


@pytest.mark.parametrize("how", ["a traceback of --debug", "a traceback of a bug"])
def test_a_traceback_tells_no_secret(how: str) -> None:
    """The error that a UserError comes from is not masked, and a bug's text may have anything."""
    kind = "UserError" if how == "a traceback of --debug" else "RuntimeError"
    program = f"""
import sys, release
from recipe.errors import UserError
def fail(arguments):
    try:
        raise OSError("https://sam:hunter2@host/t/t0ken/x?key=k3y")
    except OSError as error:
        raise {kind}("http://sam:hunter2@host") from error
release.verify = fail
release.sys.argv = ["release.py", "--debug", "verify", "x"]
sys.exit(release.main())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "OSError: https://host/t/***/x?***" in done.stderr
    assert f"{kind}: http://host" in done.stderr
    require_hidden(done.stderr)


def test_a_program_that_debug_shows_tells_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    show("subprocess.Popen", (None, ["pip", "--index-url=https://sam:hunter2@host/simple"], None, None))
    assert capsys.readouterr().err == "+ pip --index-url=https://host/simple\n"
