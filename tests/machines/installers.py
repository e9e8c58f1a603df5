"""The installers under test, kept in .cache/test-dist/KEY/ as long as KEY, a hash of their sources, is the same."""

import fcntl
import hashlib
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from construct import conda_constructor
from construct.build import build_release
from construct.payload import commit

ROOT = Path(__file__).parents[2]
SOURCES = ("construct", "post_install", "recipe", "environment.lock.yml")
CACHE = ROOT / ".cache/test-dist"
KEPT = 12  # builds, of some 150 MB each


def older() -> Path:
    """An installer of the same code with JupyterHub 5 and its schema, by a lock of its own."""
    return ready("auto", date="2026.10.24", overlays=[ROOT / "tests/overlays/jupyterhub-5"])


def with_overlay(name: str) -> Path:
    """An installer with one of the overlays, named like it."""
    return ready("auto", name=name, overlays=[ROOT / "construct/overlays" / name])


def campus(login: str, date: str | None = None) -> Path:
    """An installer for one machine whose people log in with the overlay `login`."""
    overlays = [ROOT / "construct/overlays" / one for one in ("single-node", login)]
    return ready("auto", date=date, name="campus", overlays=overlays)


def environment(name: str) -> Path:
    """An installer of one of the environments for users, named like it."""
    return ready("auto", name=name, environment=ROOT / "construct/environments" / name)


def ready(
    engine: str,
    *,
    date: str | None = None,
    name: str = "barehub",
    overlays: Sequence[Path] = (),
    environment: Path | None = None,
) -> Path:
    """The installer that build_release makes of these, built now if it is not there. Safe from several processes."""
    release = date or datetime.now(UTC).strftime("%Y.%m.%d")
    folders = [*overlays, environment] if environment else overlays
    home = CACHE / key(engine, release, name, folders)
    CACHE.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            staging = home.with_suffix(".new")
            shutil.rmtree(staging, ignore_errors=True)
            build_release(
                ROOT,
                date=release,
                output=staging,
                overlays=overlays,
                environment=environment,
                name=name,
                engine=engine,
            )
            staging.rename(home)
            remove_oldest()
    (installer,) = home.glob("*.sh")
    return installer


def key(engine: str, release: str, name: str, folders: Sequence[Path]) -> str:
    """A hash of all that a build reads."""
    digest = hashlib.sha256()
    # A build names its commit. test_build.py compares, so what it compares has to be of the commit there is now.
    built = None if folders else commit(ROOT)
    said = (engine, release, name, sys.version, conda_constructor.command(), built, [str(one) for one in folders])
    digest.update(repr(said).encode())
    for source in (*(ROOT / one for one in SOURCES), *folders):
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
        for path in files:
            if "__pycache__" not in path.parts:
                digest.update(f"{path} {path.stat().st_mode}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def remove_oldest() -> None:
    """Keep the newest builds and remove the others."""
    homes = sorted(
        (one for one in CACHE.iterdir() if one.is_dir() and not one.suffix), key=lambda one: one.stat().st_mtime
    )
    for home in homes[:-KEPT]:
        shutil.rmtree(home, ignore_errors=True)
