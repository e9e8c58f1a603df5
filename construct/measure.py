"""Fills a prefix on the building machine with what the installer will carry, checks it and measures it."""

import asyncio
import os
import runpy
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rattler import RepoDataRecord, install
from rattler.platform import Subdir

from construct.installer import COMPARISON
from construct.process import run_quietly
from recipe.elf import is_elf, newest_glibc
from recipe.errors import UserError
from recipe.libraries import Library, read_libraries
from recipe.metadata import MACHINES, PLATFORM
from recipe.report import say

BLOCK = 4096  # bytes: the usual unit of allocation
BARE = {"PATH": "/usr/bin:/bin"}
# The dynamic linker of each machine below its sysroot, which is /usr/MACHINE-linux-gnu with Debian's packages.
LOADERS = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}  # what Debian calls them
FIX = "python3 release.py lock, or correct construct/environment.yml"


@dataclass(frozen=True)
class Measured:
    """An installed prefix: its size in KiB, its number of files and directories, the glibc its programs need.

    `libraries` are those that its interpreter brings; `facts` are what `barehub.lifecycle.comparison` says of it.
    """

    kilobytes: int
    inodes: int
    glibc: tuple[int, int]
    libraries: tuple[Library, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def glibc_version(self) -> str:
        return "{}.{}".format(*self.glibc)


def measure(
    engine: Path, channel: Path, records: Sequence[RepoDataRecord], work: Path, platform: str = PLATFORM
) -> Measured:
    """Fill the prefix work/prefix with `engine` from `channel`, check it and measure it.

    For another machine's `platform`, what is measured is filled without the engine, so that no number depends on
    whether this machine emulates that one. Where it does, the engine is tried too. Raises UserError if the engine
    fails, if pip finds the environment inconsistent, or if the prefix holds other packages than `records`.
    """
    prefix = work / "prefix"
    if platform == PLATFORM:
        try_engine(engine, channel, records, prefix, BARE)
    else:
        link(records, prefix, platform)
        require_packages(records, prefix)
        if emulator := emulation(MACHINES[platform], [path for path in engine.iterdir() if is_elf(path)]):
            try_engine(engine, channel, records, work / "tried", BARE | emulator)
        else:
            say(f"WARNING: nothing of it was run: programs for {MACHINES[platform]} do not run on this machine")
            name = DEBIAN[MACHINES[platform]]
            say(
                f"  fix: apt-get install qemu-user-static libc6-{name}-cross libgcc-s1-{name}-cross, to try it here too"
            )
    entries = list(prefix.rglob("*"))
    return Measured(
        # Counted, since what a file system reports depends on its type and on whether it has written yet.
        kilobytes=sum(1 if entry.is_dir() else -(-entry.lstat().st_size // BLOCK) for entry in entries) * BLOCK // 1024,
        inodes=len(entries),
        glibc=newest_glibc(entries),
        libraries=tuple(read_libraries(prefix)),
        facts=runpy.run_path(str(COMPARISON))["facts"](prefix),
    )


def try_engine(
    engine: Path, channel: Path, records: Sequence[RepoDataRecord], prefix: Path, environment: Mapping[str, str]
) -> None:
    """Fill `prefix` with the engine, in this environment, and check it. Raises UserError as `measure` does."""
    stage = prefix.with_name("stage")
    stage.mkdir(parents=True)
    fill: list[str | Path] = [engine / "fill", channel, prefix, stage]
    run_quietly(fill, environment, problem="the engine cannot fill a prefix", fix=FIX)
    pip_check: list[str | Path] = [prefix / "bin/python", "-I", "-B", "-m", "pip", "check"]
    run_quietly(pip_check, environment, problem="the packages do not fit together", fix=FIX)
    require_packages(records, prefix)


def require_packages(records: Sequence[RepoDataRecord], prefix: Path) -> None:
    """Raise UserError if the prefix holds other packages than `records`."""
    wanted = {f"{record.name.normalized}-{record.version}-{record.build}.json" for record in records}
    found = {path.name for path in (prefix / "conda-meta").glob("*.json")}
    if wanted != found:
        raise UserError(f"the engine did not install exactly the locked packages: {', '.join(sorted(wanted ^ found))}")


def link(records: Sequence[RepoDataRecord], prefix: Path, platform: str) -> None:
    """Fill `prefix` with packages of another machine. It runs nothing of them."""
    cache = prefix.with_name("cache")
    asyncio.run(install([*records], prefix, cache, platform=Subdir(platform), show_progress=False))


def emulation(machine: str, programs: Sequence[Path]) -> dict[str, str]:
    """Return the variables with which `programs` of another machine run here; none if they do not run.

    The kernel hands them to qemu-user (binfmt_misc), which looks for their libraries in QEMU_LD_PREFIX.
    """
    found = {"QEMU_LD_PREFIX": os.environ.get("QEMU_LD_PREFIX", f"/usr/{machine}-linux-gnu")}
    loader = Path(found["QEMU_LD_PREFIX"], LOADERS[machine])
    try:
        tries = [
            subprocess.run([loader, "--list", one], env=found, capture_output=True, check=False) for one in programs
        ]
    except OSError:
        return {}
    return {} if any(one.returncode for one in tries) else found
