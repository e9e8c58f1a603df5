"""Builds the recipe channel: a static conda channel with every package of the hub environment.

    recipe/wheels.txt --pip--> wheels --convert--> linux-64/*.conda

A package depends on its source, the converter, the Python minor and the dependencies it states. It is cached under a
key made of these, so a build that changes none of them compresses nothing. construct/index.py writes the index.
"""

import ctypes
import functools
import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename

from recipe import pins
from recipe.convert import assemble, build_noarch_package, build_package, compile_sources, owners, staging
from recipe.elf import newest_glibc
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.interpreter import interpreter_files, stage_interpreter
from recipe.libraries import TEXTS
from recipe.metadata import CondaMetadata, Target, conda_metadata
from recipe.overlay import Stack, build_overlay
from recipe.shipped import Interpreter, running_target
from recipe.wheel import Wheel

# The time of every file in every package: one constant, so that an unchanged source gives an unchanged package in
# each release, and a mirror never sees two files of one name.
TIMESTAMP = datetime(2020, 1, 1, tzinfo=UTC)

Report = Callable[[str], None]


def build_channel(stack: Stack, interpreter: Interpreter, cache: Path, channel: Path, report: Report) -> None:
    """Fill `channel`, an empty directory, with the packages of `stack` for the machine and Python of `interpreter`.

    `cache` keeps wheels and packages between builds; it may be deleted at any time. `report` is called with the name of
    each finished package. Raises UserError if a source is not what is pinned, or cannot be fetched or shipped.
    """
    wheels = fetch_wheels(stack.wheels, cache / "wheels", interpreter.target)
    subdir, noarch = channel / interpreter.target.platform, channel / "noarch"
    subdir.mkdir(parents=True)
    noarch.mkdir()
    for package in build_packages(wheels, interpreter, cache / "packages"):
        os.link(package, subdir / package.name)
        report(package.name)
    for package in build_own_packages(stack, cache, noarch):
        report(package.name)
    owners(sorted(channel.glob("*/*.conda")))


def build_own_packages(stack: Stack, cache: Path, output: Path) -> Iterator[Path]:
    """Make the packages of this repository and of the overlays, or of the environment; yield each one's path.

    They are noarch: the same files fit the Python and the machine of any channel.
    """
    if stack.environment:
        if stack.own:
            yield build_overlay(stack.environment, "1", output, TIMESTAMP)
        return
    wheel = build_barehub(stack.root, cache)
    yield build_noarch_package(wheel, running_target(), output, TIMESTAMP, {})
    for overlay in stack.overlays:
        yield build_overlay(overlay, str(wheel.version), output, TIMESTAMP)


def build_packages(wheels: Mapping[str, Wheel], interpreter: Interpreter, cache: Path) -> Iterator[Path]:
    """Yield the path of each package, from the cache or made now: one process per core, the largest wheel first."""
    cache.mkdir(parents=True, exist_ok=True)
    target, converter = interpreter.target, converter_digest()
    todo: list[tuple[str, Callable[..., Path], tuple[object, ...], int]] = []
    interpreter_key = digest(converter, interpreter_digest(interpreter))
    todo.append((interpreter_key, build_interpreter, (interpreter,), sys.maxsize))
    for wheel in wheels.values():
        # The dependencies are part of the key, since those of another wheel's extra are among them.
        depends = conda_metadata(wheel, target, wheels).depends
        key = digest(converter, wheel.sha256, target.platform, target.minor, *depends)
        todo.append((key, build_wheel, (wheel, target, dict(wheels)), wheel.path.stat().st_size))

    # Not forked: rattler's threads may hold a lock at that moment, and a forked worker would wait for it forever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, initializer=end_with_parent) as pool:
        pending = []
        for key, build, arguments, _ in sorted(todo, key=lambda one: -one[3]):
            if found := next((cache / key).glob("*.conda"), None):
                yield found
            else:
                pending.append(pool.submit(into_cache, cache / key, build, *arguments))
        try:
            for future in as_completed(pending):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def end_with_parent() -> None:
    """Arrange that a worker is killed when its parent dies, instead of waiting for work: prctl(2), PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def into_cache(place: Path, build: Callable[..., Path], *arguments: object) -> Path:
    """Run `build(*arguments, directory)` and move the package it makes to `place`, all or nothing; return its path."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".building-") as directory:
        package = build(*arguments, Path(directory))
        staged = Path(directory, "done")
        staged.mkdir()
        package.rename(staged / package.name)
        shutil.rmtree(place, ignore_errors=True)
        staged.rename(place)
        return place / package.name


def build_wheel(wheel: Wheel, target: Target, wheels: Mapping[str, Wheel], output: Path) -> Path:
    """Make the package of a wheel in `output` and return its path."""
    return build_package(wheel, target, output, TIMESTAMP, wheels)


def build_interpreter(interpreter: Interpreter, output: Path) -> Path:
    """Make the `python` package from the interpreter; its __glibc is what its ELF files need."""
    target = interpreter.target
    with staging() as (stage, licences):
        stage_interpreter(stage, interpreter)
        compile_sources(stage, stage / f"lib/python{target.minor}", target, TIMESTAMP)
        for text in (stage / f"lib/python{target.minor}").glob("LICENSE*"):
            shutil.copyfile(text, licences / "LICENSE")
        metadata = CondaMetadata(
            name="python",
            version=target.python,
            build="",
            depends=("__glibc >={}.{}".format(*newest_glibc(stage.rglob("*"))),),
            license="Python-2.0",
            summary="CPython, with the shared libraries it needs",
            homepage="https://www.python.org/",
        )
        return assemble(metadata, target, stage, licences, output, TIMESTAMP)


def fetch_wheels(requirements: Path, cache: Path, target: Target) -> dict[str, Wheel]:
    """Download the pinned wheels that `cache` lacks; return all of them, opened and checked, by PEP 503 name.

    Raises UserError if pip cannot get one, or gets one with another hash.
    """
    wanted = pins.read(requirements)
    cache.mkdir(parents=True, exist_ok=True)
    missing = [name for name, pin in wanted.items() if not find_wheel(cache, name, pin, target)]
    for name in missing:
        for path in usable_wheels(cache, name, wanted[name], target):
            path.unlink()  # truncated or of an older pin; pip would keep it
    if missing:
        pins.download(requirements, cache, target.minor, target.machine)
    wheels = {}
    for name, pin in wanted.items():
        found = find_wheel(cache, name, pin, target)
        if found is None:
            raise UserError(
                f"no wheel of {name} {pin.version} for Python {target.minor} is pinned",
                f"build with one of Python {', '.join(pins.PYTHONS)}, or: python3 release.py lock",
            )
        wheels[name] = Wheel.open(found, file_sha256(found))
    return wheels


def find_wheel(cache: Path, name: str, pin: pins.Pin, target: Target) -> Path | None:
    """Return the pinned wheel in `cache`; None if there is none with a pinned sha256."""
    return next((path for path in usable_wheels(cache, name, pin, target) if file_sha256(path) in pin.sha256), None)


def usable_wheels(cache: Path, name: str, pin: pins.Pin, target: Target) -> Iterator[Path]:
    """Yield the wheels in `cache` that by their file name are of the pinned version and fit this Python."""
    for path in sorted(cache.glob("*.whl")):
        its_name, version, _, tags = parse_wheel_filename(path.name)
        if (its_name, str(version)) == (canonicalize_name(name), pin.version) and tags & target.tags():
            yield path


def build_barehub(root: Path, cache: Path) -> Wheel:
    """Build the wheel of post_install/ with flit, which is reproducible and needs no network; keep it in `cache`.

    By its sha256, so that another build at the same time does not remove it.
    """
    with tempfile.TemporaryDirectory() as directory:
        source, made = Path(directory, "post_install"), Path(directory, "wheel")
        shutil.copytree(root / "post_install", source, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        shutil.copyfile(root / "LICENSE", source / "LICENSE")
        os.environ.setdefault("SOURCE_DATE_EPOCH", str(int(TIMESTAMP.timestamp())))
        pins.pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={made}", source)
        [path] = made.glob("*.whl")
        sha256 = file_sha256(path)
        place = cache / "own" / sha256[:16] / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        staged = place.with_name(f".{os.getpid()}-{threading.get_ident()}")
        shutil.copyfile(path, staged)
        staged.replace(place)
    return Wheel.open(place, sha256)


@functools.cache
def interpreter_digest(interpreter: Interpreter) -> str:
    """Return a hash of what the `python` package is made from: the interpreter's files and the libraries they load."""
    files = [f"{path.name} {file_sha256(path)}" for path in interpreter_files(interpreter)]
    return digest(str(interpreter.is_of_the_same_build), *files)


def converter_digest() -> str:
    """Return a hash of the code that decides what is in a package."""
    modules = ("wheel", "metadata", "convert", "shipped", "interpreter", "libraries", "elf", "channel")
    files = [Path(__file__).with_name(f"{module}.py") for module in modules]
    return digest(*(path.read_text() for path in (*files, *sorted(TEXTS.iterdir()))))


def digest(*parts: str) -> str:
    """Return a hash of `parts` and of where one ends."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
