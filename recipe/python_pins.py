"""`release.py lock --update python`: pins the newest patch release of the portable interpreter in python.txt.

Every archive's name and sha256 is in the table that the distribution `pbs-installer` carries. pip fetches it for this
command only; the build needs python.txt and nothing else.
"""

import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from recipe import pins
from recipe.errors import UserError
from recipe.report import say
from recipe.standalone import PINS, Archive, read_pins

MINOR = (3, 12)  # used if nothing is pinned yet
HEAD = """\
# The portable interpreter: an archive of python-build-standalone for each machine, and its sha256.
# Written by `python3 release.py lock --update python`; do not edit.
"""


def update_python(path: Path = PINS) -> None:
    """Write the newest patch release of the minor version pinned in `path` to it."""
    minor = MINOR
    if path.exists() and (old := read_pins(path)):
        major, second = next(iter(old.values())).name.removeprefix("cpython-").split(".")[:2]
        minor = (int(major), int(second))
    with tempfile.TemporaryDirectory() as directory:
        pins.pip("download", "--quiet", "--no-deps", "--only-binary=:all:", f"--dest={directory}", "pbs-installer")
        [wheel] = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            table = json.loads(archive.read("pbs_installer/versions.json"))
    path.write_text(HEAD + "".join(f"{m} {a.name} {a.sha256}\n" for m, a in newest(table, minor).items()))
    say(f"wrote {os.path.relpath(path)}; review it: git diff")


def newest(table: list[dict[str, Any]], minor: tuple[int, int]) -> dict[str, Archive]:
    """Return the archives of the newest patch release that the table has for every machine.

    Raises UserError if it has none.
    """
    found = {}
    for entry in table:
        version = entry["python_version"]
        if (version["implementation"], version["freethreaded"]) != ("cpython", False):
            continue
        if (version["major"], version["minor"]) != minor:
            continue
        archives = {
            file["arch"]: Archive(file["filename"], file["sha256"])
            for file in entry["files"]
            if file["install_only"] and file["platform"] == "linux" and "linux-gnu-" in file["filename"]
        }
        if all(machine in archives and archives[machine].sha256 for machine in pins.MACHINES):
            found[version["micro"]] = {machine: archives[machine] for machine in pins.MACHINES}
    if not found:
        raise UserError("the table has no CPython {}.{} for Linux".format(*minor), "pin another minor version")
    return found[max(found)]
