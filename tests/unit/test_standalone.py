"""recipe.standalone and recipe.python_pins: the portable interpreter is fetched once, checked, and pinned."""

import base64
import hashlib
import platform
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from recipe import python_pins, standalone
from recipe.errors import UserError
from recipe.standalone import UnavailableError, is_standalone, pinned_archive, read_pins, standalone_python
from recipe.venv import THIS, choose

NAME = "cpython-3.12.99+20991231-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an archive that the pins name; its interpreter is a script."""
    place = tmp_path / "mirror"
    program = tmp_path / "tree/python/bin/python3"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho portable\n")
    program.chmod(0o755)
    place.mkdir()
    subprocess.run(["tar", "-czf", place / NAME, "-C", tmp_path / "tree", "python"], check=True)
    pins = tmp_path / "pins.txt"
    digest = hashlib.sha256((place / NAME).read_bytes()).hexdigest()
    pins.write_text(f"# a comment\n{platform.machine()} {NAME} {digest}\n")
    monkeypatch.setenv("BAREHUB_PYTHON_PINS", str(pins))
    return place


def test_it_is_fetched_once(mirror: Path, tmp_path: Path) -> None:
    python = standalone_python(tmp_path / "cache", str(mirror))
    assert subprocess.run([python], capture_output=True, text=True, check=True).stdout == "portable\n"
    assert is_standalone(python.parents[1])
    assert pinned_archive(tmp_path / "cache") == tmp_path / "cache" / NAME  # for `release.py mirror`
    assert pinned_archive(tmp_path / "other") is None
    (mirror / NAME).unlink()
    assert standalone_python(tmp_path / "cache", str(mirror)) == python


def test_a_mirror_may_be_a_url(mirror: Path, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=mirror)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert standalone_python(tmp_path / "cache", url).is_file()
        with pytest.raises(UnavailableError, match="404"):
            standalone_python(tmp_path / "other", f"{url}/nowhere")
        server.shutdown()


def test_a_mirror_may_want_a_user_and_a_password(mirror: Path, tmp_path: Path) -> None:
    asked = []

    class Guarded(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            if asked[-1] != f"Basic {base64.b64encode(b'a user:p@ss').decode()}":
                self.send_error(401)
                return
            super().do_GET()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Guarded, directory=mirror)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        assert standalone_python(tmp_path / "cache", f"http://a%20user:p%40ss@{host}").is_file()
        with pytest.raises(UnavailableError, match="401") as refused:
            standalone_python(tmp_path / "other", f"http://a%20user:wrong@{host}")
        assert "wrong" not in str(refused.value)
        server.shutdown()
    assert len(asked) == 2


def test_a_token_is_a_user_without_a_password() -> None:
    words = f"Basic {base64.b64encode(b'token:').decode()}"
    assert standalone.request_for("https://token@example.org/python").get_header("Authorization") == words


def test_another_archive_than_the_pinned_one_is_refused(mirror: Path, tmp_path: Path) -> None:
    (mirror / NAME).write_bytes(b"something else")
    with pytest.raises(UserError, match="pinned is"):
        standalone_python(tmp_path / "cache", str(mirror))
    assert not list((tmp_path / "cache").iterdir())


def test_an_interrupted_fetch_is_not_used(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / NAME).write_bytes((mirror / NAME).read_bytes()[:-1])
    assert standalone_python(tmp_path / "cache", str(mirror)).is_file()


def test_a_place_that_does_not_answer_is_given_up(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone, "SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            standalone_python(tmp_path / "cache", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - began < 5


def test_which_interpreter_is_shipped(mirror: Path, tmp_path: Path) -> None:
    other = tmp_path / "tree/python/bin/python3"
    assert choose(str(other), "") == other
    assert choose(THIS, "") == Path(sys.executable)
    with pytest.raises(UserError, match="cannot be run"):
        choose(str(tmp_path / "none"), "")
    with pytest.raises(UserError, match="cannot be had"):  # who names a mirror means it
        choose(None, str(tmp_path / "none"))


def test_the_pins_of_the_repository_are_for_both_machines_and_recent_enough_for_el_8() -> None:
    pins = read_pins()
    assert list(pins) == ["x86_64", "aarch64"]
    for machine, archive in pins.items():
        assert f"-{machine}-unknown-linux-gnu-install_only" in archive.name
        assert archive.release >= "202604"  # before, its OpenSSL did not find EL 8's certificates


def test_a_line_that_is_no_pin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pins.txt").write_text("x86_64 archive.tar.gz 123\n")
    with pytest.raises(UserError, match="not a machine"):
        read_pins(tmp_path / "pins.txt")


def entry(micro: int, *machines: str, freethreaded: bool = False) -> dict[str, Any]:
    version = {"implementation": "cpython", "major": 3, "minor": 12, "micro": micro, "freethreaded": freethreaded}
    files = [
        {
            "platform": "linux",
            "arch": machine,
            "install_only": True,
            "filename": f"cpython-3.12.{micro}+1-{machine}-unknown-linux-gnu-install_only.tar.gz",
            "sha256": "0" * 64,
        }
        for machine in machines
    ]
    return {"python_version": version, "files": files}


def test_the_newest_patch_release_that_every_machine_has_is_pinned() -> None:
    both = ("x86_64", "aarch64")
    table = [entry(9, *both), entry(10, *both), entry(11, "x86_64"), entry(12, *both, freethreaded=True)]
    found = python_pins.newest(table, (3, 12))
    assert [archive.name.split("+")[0] for archive in found.values()] == ["cpython-3.12.10"] * 2
    with pytest.raises(UserError, match=r"no CPython 3\.13"):
        python_pins.newest(table, (3, 13))
