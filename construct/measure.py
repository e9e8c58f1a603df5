"""Fills a prefix on the building machine with what the installer will carry, checks it and measures it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rattler import RepoDataRecord

from construct.process import run_quietly
from recipe.elf import newest_glibc
from recipe.errors import UserError
from recipe.libraries import Library, read_libraries

BLOCK = 4096  # bytes: the usual unit of allocation
BARE = {"PATH": "/usr/bin:/bin"}
FIX = "python3 release.py lock, or correct construct/environment.yml"


@dataclass(frozen=True)
class Measured:
    """An installed prefix: its size in KiB, its number of files and directories, the glibc its programs need.

    `libraries` are those that its interpreter brings.
    """

    kilobytes: int
    inodes: int
    glibc: tuple[int, int]
    libraries: tuple[Library, ...] = ()

    @property
    def glibc_version(self) -> str:
        return "{}.{}".format(*self.glibc)


def measure(engine: Path, channel: Path, records: Sequence[RepoDataRecord], work: Path) -> Measured:
    """Fill a prefix below `work` with `engine` from `channel`, check it and measure it.

    Raises UserError if the engine fails, if pip finds the environment inconsistent, or if the prefix holds other
    packages than `records`.
    """
    prefix, stage = work / "prefix", work / "stage"
    stage.mkdir(parents=True)
    run_quietly([engine / "fill", channel, prefix, stage], BARE, problem="the engine cannot fill a prefix", fix=FIX)
    pip_check: list[str | Path] = [prefix / "bin/python", "-I", "-B", "-m", "pip", "check"]
    run_quietly(pip_check, BARE, problem="the packages do not fit together", fix=FIX)
    wanted = {f"{record.name.normalized}-{record.version}-{record.build}.json" for record in records}
    found = {path.name for path in (prefix / "conda-meta").glob("*.json")}
    if wanted != found:
        raise UserError(f"the engine did not install exactly the locked packages: {', '.join(sorted(wanted ^ found))}")
    entries = list(prefix.rglob("*"))
    return Measured(
        # Counted, since what a file system reports depends on its type and on whether it has written yet.
        kilobytes=sum(1 if entry.is_dir() else -(-entry.lstat().st_size // BLOCK) for entry in entries) * BLOCK // 1024,
        inodes=len(entries),
        glibc=newest_glibc(entries),
        libraries=tuple(read_libraries(prefix)),
    )
