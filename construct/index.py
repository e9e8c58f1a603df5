"""The index of a static conda channel, repodata.json: written here, merged by add_to_channel.sh beside this file.

Both write the same lines, one for each package, so that POSIX tools can merge two channels where there is no Python.
tests/unit/test_index.py holds them together.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from rattler import RepoDataRecord
from rattler.index import index_fs

from recipe.errors import UserError
from recipe.files import file_sha256

ADD_TO_CHANNEL = Path(__file__).with_name("add_to_channel.sh")


def write_index(channel: Path, fetched: Mapping[str, RepoDataRecord] = MappingProxyType({})) -> None:
    """Write repodata.json of each subdir, one line a package, without the time of indexing.

    Two runs write the same bytes. `fetched` are records by file name as their own channel has them, where what a
    package depends on may have been corrected since it was made.
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


def write_archive_sums(channel: Path) -> None:
    """Write SHA256SUMS over the archives only, since the index changes with each release."""
    archives = sorted([*channel.glob("*/*.conda"), *channel.glob("*/*.tar.bz2")])
    lines = [f"{file_sha256(path)}  {path.relative_to(channel)}\n" for path in archives]
    (channel / "SHA256SUMS").write_text("".join(lines))


def add_to_channel(source: Path, target: Path) -> str:
    """Move one channel's packages into another and return what the script printed.

    Raises UserError, with nothing changed, if the two do not fit together.
    """
    done = subprocess.run(
        ["sh", ADD_TO_CHANNEL, source, target], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        what, _, fix = done.stderr.strip().removeprefix("error: ").partition("\n  fix: ")
        raise UserError(what, fix)
    return done.stdout.strip()
