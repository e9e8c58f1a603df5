"""The packages that an administrator has added to a release by hand, and that another release lacks.

    python -m barehub.lifecycle.added_packages

lists those in the prefix of this python.
"""

import base64
import contextlib
import csv
import json
import posixpath
import sys
from collections.abc import Callable
from pathlib import Path

from barehub.errors import Exit, UserError
from barehub.lifecycle.comparison import Package, added, sources


def added_files(prefix: Path) -> dict[str, str]:
    """Return the files of these packages by their paths below the prefix, with the sha256 that their tool wrote down.

    The sha256 is empty where it wrote none, as of bytecode. A list that is damaged or missing counts for nothing.
    """
    files: dict[str, str] = {}
    for _, source in sources(prefix):
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError, csv.Error):
            files |= from_conda(source) if source.suffix == ".json" else from_pip(source, prefix)
    return files


def from_conda(record: Path) -> dict[str, str]:
    """Return the files in one of conda's records; see `added_files`."""
    paths = json.loads(record.read_bytes())["paths_data"]["paths"]
    return {one["_path"]: one.get("sha256_in_prefix") or one.get("sha256") or "" for one in paths}


def from_pip(directory: Path, prefix: Path) -> dict[str, str]:
    """Return the files in a wheel's RECORD; see `added_files`.

    https://packaging.python.org/en/latest/specifications/recording-installed-packages/#the-record-file
    """
    files, site = {}, directory.parent.relative_to(prefix)
    with (directory / "RECORD").open(newline="") as record:
        for path, encoded, *_ in csv.reader(record):
            _, _, digest = encoded.partition("sha256=")
            sha256 = base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()
            files[posixpath.normpath(posixpath.join(site, path))] = sha256
    return files


def has(prefix: Path, package: Package) -> bool:
    """Return True if this package, in any version, is in a prefix."""
    stem = package.name.replace("-", "_")
    return any(prefix.glob(f"conda-meta/{package.name}-[0-9]*.json")) or any(
        directory.name.lower().startswith(f"{stem.lower()}-")
        for directory in prefix.glob("lib/python3*/site-packages/*.dist-info")
    )


def report_added(old: Path, new: Path, *, required: bool, say: Callable[[str], None]) -> None:
    """List the packages that were added to the prefix `old` and are missing in `new`, and how to carry them over.

    Raises UserError if there are any and they are `required`.
    """
    missing = [package for package in added(old) if not has(new, package)]
    if not missing:
        return
    what = f"added to {old.name} by hand and not in {new.name}: " + ", ".join(
        f"{one.name} {one.version} ({one.installer})" for one in missing
    )
    specs = " ".join(f"{one.name}=={one.version}" for one in missing)
    command = f"{new}/bin/python -m pip install {specs}"
    without_network = "with no network: --no-index --find-links=DIR-OF-WHEELS"
    if required:
        raise UserError(what, f"{command} ({without_network}); then run this again", Exit.HOOK)
    say(what)
    say(f"  to carry them over: {command}")
    say(f"  ({without_network})")


def main() -> None:
    print(", ".join(f"{one.name} {one.version} ({one.installer})" for one in added(Path(sys.prefix))))


if __name__ == "__main__":
    main()
