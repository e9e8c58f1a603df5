"""Builds the recipe channel: a static conda channel with every package of the hub environment.

    recipe/wheels.txt --pip--> wheels --convert--> linux-64/*.conda --index--> repodata.json

A package depends on its source, the converter, the Python minor and what it says it needs. It is cached under a key
made of these, so a build that changes none of them compresses nothing.
"""

import asyncio
import ctypes
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from packaging.utils import canonicalize_name, parse_wheel_filename
from rattler import RepoDataRecord
from rattler.index import index_fs

from recipe import pins
from recipe.convert import assemble, build_noarch_package, build_package, compile_sources, owners
from recipe.elf import newest_glibc
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.interpreter import interpreter_files, stage_interpreter
from recipe.metadata import CondaMetadata, Target, conda_metadata
from recipe.overlay import Stack, build_overlay
from recipe.wheel import Wheel

PLATFORM = "linux-64"
# The time of every file in every package: one constant, so that an unchanged source gives an unchanged package in
# release after release, and a mirror never sees two files of one name.
TIMESTAMP = datetime(2020, 1, 1, tzinfo=UTC)

Report = Callable[[str], None]


def running_target() -> Target:
    """Packages are for the interpreter that is shipped: the running one."""
    return Target(python="{}.{}.{}".format(*sys.version_info), platform=PLATFORM)


def build_channel(stack: Stack, cache: Path, channel: Path, report: Report) -> None:
    """Fill `channel`, an empty directory, with the packages of `stack`.

    `cache` keeps wheels and packages between builds; it may be deleted at any time. `report` is told each package's
    name as it is done. Raises UserError if a source is not what is pinned, or cannot be had or shipped.
    """
    target = running_target()
    wheels = fetch_wheels(stack.wheels, cache / "wheels", target)
    subdir, noarch = channel / PLATFORM, channel / "noarch"
    subdir.mkdir(parents=True)
    noarch.mkdir()
    for package in build_packages(wheels, target, cache / "packages"):
        os.link(package, subdir / package.name)
        report(package.name)
    for package in build_own_packages(stack, cache, noarch):
        report(package.name)
    owners(sorted(channel.glob("*/*.conda")))
    write_index(channel)


def build_own_packages(stack: Stack, cache: Path, output: Path) -> Iterator[Path]:
    """Make the packages of this repository and of the overlays; yield each one's path.

    They are noarch, so that the same files fit the Python and the machine of any channel.
    """
    wheel = build_barehub(stack.root, cache)
    yield build_noarch_package(wheel, running_target(), output, TIMESTAMP, {})
    for overlay in stack.overlays:
        yield build_overlay(overlay, str(wheel.version), output, TIMESTAMP)


def build_packages(wheels: Mapping[str, Wheel], target: Target, cache: Path) -> Iterator[Path]:
    """Convert what is not in the cache, one process per core, the largest first; yield each package's path."""
    cache.mkdir(parents=True, exist_ok=True)
    converter = converter_digest()
    todo: list[tuple[str, Callable[..., Path], tuple[object, ...], int]] = []
    interpreter_key = digest(converter, interpreter_digest())
    todo.append((interpreter_key, build_interpreter, (target,), sys.maxsize))
    for wheel in wheels.values():
        # The dependencies are part of the key, since an extra of another wheel ends up among them.
        key = digest(converter, wheel.sha256, target.minor, *conda_metadata(wheel, target, wheels).depends)
        todo.append((key, build_wheel, (wheel, target, dict(wheels)), wheel.path.stat().st_size))

    # Not forked: rattler's threads may hold a lock at that moment, for which a forked worker would wait for ever.
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
    """Have a worker killed when a killed build leaves it behind, waiting for work: prctl(2), PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def into_cache(place: Path, build: Callable[..., Path], *arguments: object) -> Path:
    """Run `build(*arguments, directory)` and keep the package it makes at `place`, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".building-") as directory:
        package = build(*arguments, Path(directory))
        staged = Path(directory, "done")
        staged.mkdir()
        package.rename(staged / package.name)
        shutil.rmtree(place, ignore_errors=True)
        staged.rename(place)
        return place / package.name


def build_wheel(wheel: Wheel, target: Target, wheels: Mapping[str, Wheel], output: Path) -> Path:
    return build_package(wheel, target, output, TIMESTAMP, wheels)


def build_interpreter(target: Target, output: Path) -> Path:
    """The `python` package, made of the running interpreter; its __glibc is what its ELF files ask for."""
    with tempfile.TemporaryDirectory() as directory:
        stage, licences = Path(directory, "stage"), Path(directory, "licences")
        stage.mkdir()
        licences.mkdir()
        stage_interpreter(stage)
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
    """Have every pinned wheel in `cache`; return them, opened and checked, by PEP 503 name.

    Raises UserError if pip cannot get one, or gets one with another hash.
    """
    wanted = pins.read(requirements)
    cache.mkdir(parents=True, exist_ok=True)
    if not all(find_wheel(cache, name, pin, target) for name, pin in wanted.items()):
        pins.download(requirements, cache, target.minor)
    wheels = {}
    for name, pin in wanted.items():
        path = find_wheel(cache, name, pin, target)
        if path is None:
            raise UserError(
                f"no wheel of {name} {pin.version} for Python {target.minor} is pinned",
                f"build with one of Python {', '.join(pins.PYTHONS)}, or: python3 release.py lock",
            )
        wheels[name] = Wheel.open(path, file_sha256(path))
    return wheels


def find_wheel(cache: Path, name: str, pin: pins.Pin, target: Target) -> Path | None:
    """The wheel in `cache` that this pin means and this Python can use."""
    for path in cache.glob("*.whl"):
        its_name, version, _, tags = parse_wheel_filename(path.name)
        if (its_name, str(version)) == (canonicalize_name(name), pin.version) and tags & target.tags():
            if file_sha256(path) in pin.sha256:
                return path
            path.unlink()  # truncated or of an older pin; pip gets it again
    return None


def build_barehub(root: Path, cache: Path) -> Wheel:
    """The wheel of post_install/, made without network by flit, which is reproducible."""
    output = cache / "barehub"
    shutil.rmtree(output, ignore_errors=True)
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "post_install")
        shutil.copytree(root / "post_install", source, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        shutil.copyfile(root / "LICENSE", source / "LICENSE")
        os.environ.setdefault("SOURCE_DATE_EPOCH", str(int(TIMESTAMP.timestamp())))
        pins.pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={output}", source)
    [path] = output.glob("*.whl")
    return Wheel.open(path, file_sha256(path))


def write_index(channel: Path, fetched: Mapping[str, RepoDataRecord] = MappingProxyType({})) -> None:
    """Write repodata.json of each subdir, one line a package, without the time of indexing.

    Two builds give the same bytes, and construct/add_to_channel.sh can merge two such files. `fetched` are records by
    file name as their own channel has them, where what a package depends on may have been corrected since it was made.
    """
    asyncio.run(index_fs(channel, write_zst=False, write_shards=False))
    shutil.rmtree(channel / ".tmp", ignore_errors=True)
    for path in channel.glob("*/repodata.json"):
        repodata = json.loads(path.read_text())
        sections = []
        for section in ("packages", "packages.conda"):
            for name, record in repodata[section].items():
                record.pop("indexed_timestamp", None)
                if name in fetched:
                    record |= {"depends": fetched[name].depends, "constrains": fetched[name].constrains}
            rows = [f'  "{name}": {json.dumps(r, sort_keys=True)}' for name, r in sorted(repodata[section].items())]
            sections.append("\n".join([f' "{section}": {{', *([",\n".join(rows)] if rows else []), " },"]))
        info = f' "info": {{"subdir": "{path.parent.name}"}},'
        path.write_text("\n".join(["{", info, *sections, ' "removed": [],', ' "repodata_version": 1', "}"]) + "\n")


@functools.cache
def interpreter_digest() -> str:
    """Identifies what the `python` package is made of: the interpreter's files and the libraries that they load."""
    files = interpreter_files()
    return digest(*(f"{path.name} {file_sha256(path)}" for path in files))


def converter_digest() -> str:
    """Identifies the code that decides what is in a package."""
    modules = ("wheel", "metadata", "convert", "interpreter", "elf", "channel")
    return digest(*((Path(__file__).parent / f"{module}.py").read_text() for module in modules))


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
