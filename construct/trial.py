"""Fills a prefix on the build machine with what the installer will carry: does it work, how large is it, what does it
ask of the system?"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rattler import RepoDataRecord

from recipe.elf import newest_glibc
from recipe.errors import UserError

BLOCK = 4096  # bytes: the usual unit of allocation


@dataclass(frozen=True)
class Measured:
    """Of an installed prefix: its size in KiB, its files and directories, and the glibc that its programs need."""

    kilobytes: int
    inodes: int
    glibc: tuple[int, int]


def try_out(engine: Path, channel: Path, records: Sequence[RepoDataRecord], work: Path) -> Measured:
    """Fill a prefix below `work` with `engine` from `channel`, check it and measure it.

    Raises UserError if the engine fails, if pip finds the environment inconsistent, or if conda's records and pip's do
    not agree with `records`.
    """
    prefix, stage = work / "prefix", work / "stage"
    stage.mkdir(parents=True)
    run([engine / "fill", channel, prefix, stage], "the engine cannot fill a prefix")
    python = prefix / "bin/python"
    run([python, "-I", "-B", "-m", "pip", "check"], "the packages do not fit together")
    wanted = sorted(f"{record.name.normalized}-{record.version}-{record.build}.json" for record in records)
    found = sorted(path.name for path in (prefix / "conda-meta").glob("*.json"))
    if wanted != found:
        raise UserError(f"the engine installed {set(found) ^ set(wanted)} too much or not at all")
    entries = list(prefix.rglob("*"))
    return Measured(
        # Counted, since what a file system says depends on which it is and whether it has written yet.
        kilobytes=sum(1 if entry.is_dir() else -(-entry.lstat().st_size // BLOCK) for entry in entries) * BLOCK // 1024,
        inodes=len(entries),
        glibc=newest_glibc(entries),
    )


def run(command: Sequence[str | Path], problem: str) -> None:
    """Run a command in an empty environment. Raises UserError with what it printed if it fails."""
    done = subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(
            f"{problem}:\n{done.stdout.strip()}", "python3 release.py lock, or mend construct/environment.yml"
        )
