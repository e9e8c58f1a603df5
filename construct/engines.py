"""The engines: what fills a release's prefix on the target.

All that makes the difference between two engines is in their directories, construct/conda_ship/ and
construct/conda_constructor/; the rest of the build, the installer and the target know this contract only.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rattler import RepoDataRecord

from construct import conda_constructor, conda_ship
from recipe.errors import UserError
from recipe.metadata import PLATFORM
from recipe.report import say


class Engine(Protocol):
    """A module that makes payload/engine, a directory with an executable `fill`, from a lock and its channel.

    The installer runs `fill CHANNEL PREFIX STAGE`, which promises:

    - It makes PREFIX, which does not exist, and fills it with exactly the locked packages of CHANNEL, offline. CHANNEL
      and engine/ are only read. STAGE is an empty directory on the file system of PREFIX for whatever is temporary.
    - Where RATTLER_CACHE_DIR is set, it may unpack into that directory too, which the installer removes.
    - It does not use an archive whose sha256 is not the locked one.
    - It exits with 0 if PREFIX is complete, otherwise with another status and a message on its output.
    - After a TERM no process of its own is left that writes to PREFIX or STAGE: the installer then removes both.
    - It needs POSIX tools and what the header of the installer has checked; it leaves nothing elsewhere.
    """

    NAME: str
    COPIES: int  # of the payload that exist while `fill` runs, for the check of free space
    FILL: Path  # the source of `fill`

    def command(self) -> list[str] | None:
        """Return the words that run the engine's builder; None if it is not installed."""

    def require_command(self) -> list[str]:
        """Return the same. Raises UserError, with the way to install it, if it is not installed."""

    def version(self) -> str:
        """Return the version for release.json. Raises UserError as `require_command` does."""

    def build(
        self,
        records: Sequence[RepoDataRecord],
        specs: Sequence[str],
        platform: str,
        release: str,
        payload: Path,
        work: Path,
    ) -> None:
        """Write to payload/engine, an empty directory, what `fill` needs beside it.

        `records` are the locked packages of payload/channel, `specs` what the environment was asked to hold; `work`
        is a directory, not yet there, for temporary files. Raises UserError if the builder fails.
        """


ENGINES: dict[str, Engine] = {conda_ship.NAME: conda_ship, conda_constructor.NAME: conda_constructor}


def choose_engine(name: str, platform: str = PLATFORM) -> Engine:
    """Return the engine of that name; "auto" is constructor where it is installed and runs, else conda-ship.

    For another machine's `platform` it is conda-ship. Raises UserError if it is not installed, or does not run.
    """
    if platform != PLATFORM:
        if name == conda_constructor.NAME:
            raise UserError(
                f"constructor makes installers for {PLATFORM} here, not for {platform}", "--engine conda-ship"
            )
        return conda_ship
    if name == "auto":
        try:
            conda_constructor.require_command()
        except conda_constructor.NotInstalledError:
            return conda_ship
        except UserError as error:
            say(f"building with {conda_ship.NAME}, since {error}")
            return conda_ship
        return conda_constructor
    ENGINES[name].require_command()
    return ENGINES[name]


def build_engine(
    engine: Engine,
    records: Sequence[RepoDataRecord],
    specs: Sequence[str],
    platform: str,
    release: str,
    payload: Path,
    work: Path,
) -> Path:
    """Make payload/engine and return it. The parameters are those of `Engine.build`. Raises UserError as that does."""
    place = payload / "engine"
    place.mkdir()
    engine.build(records, specs, platform, release, payload, work)
    shutil.copyfile(engine.FILL, place / "fill")
    (place / "fill").chmod(0o755)
    return place
