"""The portable interpreter: a CPython of python-build-standalone, which runs on any Linux with glibc >= 2.17.

python.txt pins one archive a machine by sha256. It is fetched once into .cache/python, from the project's own place or
from a mirror. Standard library only: release.py makes its .venv with this interpreter.
"""

import base64
import hashlib
import os
import platform
import queue
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from recipe.errors import UserError, masked
from recipe.files import file_sha256

SOURCE = "https://github.com/astral-sh/python-build-standalone/releases/download"
PINS = Path(__file__).with_name("python.txt")
SECONDS = 10  # for a place that does not answer, in all
THIS_MACHINE = platform.machine()
PROGRAM = "python/bin/python3"  # in every archive
STAMP = "standalone"  # beside the unpacked prefix


class UnavailableError(Exception):
    """The archive cannot be had; says why."""

    def __init__(self, why: str) -> None:
        super().__init__(masked(why))


@dataclass(frozen=True)
class Archive:
    """A pinned archive, with all of the prefix below python/."""

    name: str
    sha256: str

    @property
    def release(self) -> str:
        """The upstream release, which its name states: cpython-VERSION+RELEASE-MACHINE-..."""
        return self.name.partition("+")[2].partition("-")[0]

    @property
    def version(self) -> str:
        """The version of CPython, stated there too."""
        return self.name.removeprefix("cpython-").partition("+")[0]


def read_pins(path: Path = PINS) -> dict[str, Archive]:
    """Return the pinned archive of each machine, as uname(1) names machines. Raises UserError for anything else."""
    pins = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            words = line.split()
            if len(words) != 3 or len(words[2]) != 64:
                raise UserError(f"{path}: not a machine, an archive and its sha256: {line}", "git checkout it")
            pins[words[0]] = Archive(words[1], words[2])
    return pins


def pinned(machine: str) -> Archive | None:
    """Return the archive for a machine, by the pins in BAREHUB_PYTHON_PINS if that is set; None if there is none."""
    return read_pins(Path(os.environ.get("BAREHUB_PYTHON_PINS") or PINS)).get(machine)


def standalone_python(cache: Path, mirror: str, machine: str = THIS_MACHINE) -> Path:
    """Return the program of the pinned interpreter, which is fetched and unpacked into `cache` if it is not there.

    `mirror` is the URL or the directory that has the archive; empty for the project's own place. `machine` is what it
    runs on. Raises UnavailableError if the archive cannot be had, UserError if it is not what is pinned.
    """
    archive = pinned(machine)
    if archive is None:
        raise UnavailableError(f"none is pinned for {machine}")
    place = cache / archive.sha256[:16]
    if not (place / STAMP).exists():
        unpack(fetched(archive, cache, mirror), place)
    return place / PROGRAM


def pinned_archive(cache: Path, machine: str = THIS_MACHINE) -> Path | None:
    """Return the pinned archive, which a build has fetched into `cache`; None if it has not."""
    archive = pinned(machine)
    return kept(archive, cache) if archive else None


def kept(archive: Archive, cache: Path) -> Path | None:
    """Return the path of an archive in `cache`; None if it is not there, or is another file."""
    path = cache / archive.name
    return path if path.is_file() and file_sha256(path) == archive.sha256 else None


def unpacked_from(prefix: Path) -> Archive | None:
    """Return the archive that `standalone_python` has unpacked `prefix` from, without its sha256; None for another."""
    stamp = prefix.parent / STAMP
    return Archive(stamp.read_text().strip(), "") if stamp.is_file() else None


def is_standalone(prefix: Path) -> bool:
    """Return whether `prefix` is one that `standalone_python` has unpacked."""
    return unpacked_from(prefix) is not None


def unpack(archive: Path, place: Path) -> None:
    """Unpack the archive into `place`, all or nothing."""
    staged = place.with_name(f".{place.name}.new")
    for old in (staged, place):
        shutil.rmtree(old, ignore_errors=True)
    staged.mkdir(parents=True)
    done = subprocess.run(
        ["tar", "-xzf", archive, "--no-same-owner", "-C", staged], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(
            f"{archive} cannot be unpacked: {done.stderr.strip()}", f"check the room in {staged.parent}: df -h"
        )
    if not (staged / PROGRAM).is_file():
        raise UserError(f"{archive} has no {PROGRAM}", "pin an `install_only` archive in recipe/python.txt")
    (staged / STAMP).write_text(f"{archive.name}\n")
    staged.rename(place)


def fetched(archive: Archive, cache: Path, mirror: str) -> Path:
    """Return the archive's path in `cache`, where it is put if it is not there."""
    if path := kept(archive, cache):
        return path
    path = cache / archive.name
    cache.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.new")
    found = hashlib.sha256()
    where = address(archive, mirror)
    try:
        with staged.open("wb") as file:
            for block in blocks(where):
                file.write(block)
                found.update(block)
        if found.hexdigest() != archive.sha256:
            raise UserError(
                f"{where} has the sha256 {found.hexdigest()}, pinned is {archive.sha256}",
                "find out who changed it; --python this builds with the interpreter that runs release.py",
            )
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return path


def address(archive: Archive, mirror: str) -> str:
    """Return the URL or the path of the archive."""
    if not mirror:
        return f"{SOURCE}/{archive.release}/{urllib.parse.quote(archive.name)}"
    if "://" in mirror:
        return f"{mirror.rstrip('/')}/{urllib.parse.quote(archive.name)}"
    return os.fspath(Path(mirror) / archive.name)


def blocks(where: str) -> Iterator[bytes]:
    """Yield the content of a file or a URL. Raises UnavailableError if it cannot be read."""
    try:
        with open_within(where, SECONDS) if "://" in where else Path(where).open("rb") as source:
            while block := source.read(1 << 20):
                yield block
    except (OSError, HTTPException) as error:
        raise UnavailableError(f"{where}: {error}") from error


def open_within(url: str, seconds: float) -> BinaryIO:
    """Open a URL, or raise TimeoutError. A thread of its own, since looking up a name has no time limit."""
    answer: queue.Queue[BinaryIO | Exception] = queue.Queue()

    def ask() -> None:
        try:
            answer.put(urllib.request.urlopen(request_for(url), timeout=seconds))  # noqa: S310 - pinned by sha256
        except Exception as error:
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        got = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if isinstance(got, Exception):
        raise got
    return got


def request_for(url: str) -> urllib.request.Request:
    """Return the request for a URL whose user and password, if it has them, go to its host alone (RFC 7617).

    To urllib they are a part of the host's name. A user without a password has an empty one, as pip has it for tokens.
    """
    parts = urllib.parse.urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())  # noqa: S310 - pinned by sha256
    if login:
        user, _, password = map(urllib.parse.unquote_to_bytes, login.partition(":"))
        words = base64.b64encode(user + b":" + password).decode()
        request.add_unredirected_header("Authorization", f"Basic {words}")
    return request
