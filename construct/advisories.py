"""Reads advisories in OSV's format, offline: for `release.py audit`, and for what an installer knows (`--audit`).

The format: https://ossf.github.io/osv-schema/. A mirror of OSV's exports has ECOSYSTEM/all.zip, with a file for each
advisory (https://google.github.io/osv.dev/data/).
"""

import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from construct import osv
from construct.diff import read_side
from recipe.errors import UserError
from recipe.lock_file import Line
from recipe.metadata import pypi_name
from recipe.report import say

FILE = "advisories.json"  # in the payload
NAME_SOURCE = "name a .json file, a .zip of such files as OSV exports it, or a directory of them"


@dataclass
class Advisories:
    """Advisories about some packages.

    about: as `construct.osv` reads them. read: how many advisories there were. newest: the date of the last change to
    any of them. skipped: what could not be read, and why.
    """

    about: list[dict[str, Any]] = field(default_factory=list)
    read: int = 0
    newest: str = ""
    skipped: list[str] = field(default_factory=list)


def audit(source: Path, target: Path, *, fail: bool) -> int:
    """Print which advisories in `source` touch `target`, a lock or an installer, packed or unpacked.

    Returns 1 if `fail` is set and one does, or could not be read or decided; else 0. Raises UserError if `source` holds
    no advisories, or `target` is something else.
    """
    packages, others = packages_of(read_side(target).packages)
    known = read_advisories(source, packages)
    found, undecided = osv.judge(known.about, packages)
    print(f"{target}: {len(packages)} packages")
    newest = f"the newest of {known.newest}"
    print(f"{source}: {known.read} advisories, {newest}, {len(known.about)} of them about these packages")
    print("\n".join(["", *osv.table(found), ""]) if found else "none of them touches these versions")
    for what in undecided:
        print(f"not decided: {what}")
    print(f"not looked for: {', '.join((osv.INTERPRETER, *others))}")
    return int(fail and bool(found or undecided or known.skipped))


def packages_of(lines: Mapping[str, Line]) -> tuple[dict[str, str], list[str]]:
    """Return the versions of the packages that advisories can be about, by `osv`'s key, and the names of the others.

    What conda builds for a Python, or as noarch Python, has `py` in its build; a lock of wheels has no builds.
    """
    found, others = {}, []
    for name, line in sorted(lines.items()):
        if name == "python" or name.startswith("barehub"):
            continue
        if name == "traefik":
            found[osv.traefik_key(line.version)] = line.version
        elif line.build is None or "py" in line.build:
            found[osv.python_key(pypi_name(name))] = line.version
        else:
            others.append(name)
    return found, others


def known_to_installer(source: Path, lines: Mapping[str, Line]) -> str:
    """Return the text of FILE: the advisories in `source` about the locked packages, of whatever version.

    The same advisories give the same text. Raises UserError as `read_advisories` does.
    """
    packages, _ = packages_of(lines)
    known = read_advisories(source, packages)
    say(f"{len(known.about)} of {known.read} advisories are about these packages")
    document = {
        "newest": known.newest,
        "skipped": len(known.skipped),
        "packages": packages,
        "advisories": known.about,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"


def read_advisories(source: Path, packages: Mapping[str, str]) -> Advisories:
    """Return the advisories about `packages`, of any version of theirs, that were not withdrawn, sorted by identifier.

    What is no advisory is named in a line each. Raises UserError if there is nothing else.
    """
    found = Advisories()
    for name, text in documents(source):
        try:
            advisory = json.loads(text)
            found.newest = max(found.newest, read_date(advisory))
            found.read += 1
            if about := relevant(advisory, packages):
                found.about.append(about)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found.skipped.append(name)
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            say(f"WARNING: skipped {clean(name)}, which is no advisory in OSV's format: {clean(why)}")
    if not found.read:
        raise UserError(f"{source} holds no advisories in OSV's format", NAME_SOURCE)
    found.about.sort(key=lambda one: str(one["id"]))
    return found


def documents(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each JSON file in a directory or a zip, or of the one file. Raises UserError."""
    try:
        if source.is_dir():
            for path in sorted(path for path in source.rglob("*") if path.suffix in (".json", ".zip")):
                yield from documents(path)
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                for name in sorted(name for name in archive.namelist() if name.endswith(".json")):
                    yield f"{source}/{name}", archive.read(name)
        else:
            yield str(source), source.read_bytes()
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:  # damaged, or encrypted
        raise UserError(f"{source} cannot be read: {error}", NAME_SOURCE) from error


def read_date(advisory: Mapping[str, Any]) -> str:
    """Return the day of an advisory's last change. Raises ValueError if it is not one."""
    if match := re.match(r"\d{4}-\d\d-\d\d(?=T)", advisory["modified"]):
        return match[0]
    raise ValueError(f"modified is {advisory['modified']!r}")


def relevant(advisory: Mapping[str, Any], packages: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what `osv` reads of an advisory, if it is about one of the packages and was not withdrawn."""
    identifier, names = clean(advisory["id"]), [*map(clean, advisory.get("aliases") or ())]
    if advisory.get("withdrawn"):
        return None
    affected = [one for one in map(read_affected, advisory.get("affected") or ()) if is_about(one["key"], packages)]
    if not affected:
        return None
    severity = clean((advisory.get("database_specific") or {}).get("severity") or "")
    summary = clean(advisory.get("summary") or str(advisory.get("details") or "").partition("\n")[0])
    return {"id": identifier, "aliases": names, "severity": severity, "summary": summary, "affected": affected}


def read_affected(affected: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `osv` reads of an entry: the package's key, versions, and the events of ranges of versions."""
    package = affected.get("package") or {}
    ecosystem, name = str(package.get("ecosystem", "")).partition(":")[0], str(package.get("name", ""))
    ranges = [one for one in affected.get("ranges") or () if one["type"] in ("ECOSYSTEM", "SEMVER")]
    return {
        "key": osv.python_key(name) if ecosystem == "PyPI" else f"{ecosystem}/{name}",
        "versions": [str(one) for one in affected.get("versions") or ()],
        "ranges": [[(kind, str(at)) for event in one["events"] for kind, at in event.items()] for one in ranges],
    }


def is_about(key: str, packages: Mapping[str, str]) -> bool:
    """Return True for what is about one of the packages: of traefik about any major version, which an older had."""
    return key in packages or f"{key}/".startswith(f"Go/{osv.TRAEFIK}/")


def clean(text: str) -> str:
    """Return the beginning of a text as one line for a terminal. Raises TypeError if it is no text."""
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no text")
    line = "".join(one if one.isprintable() else " " for one in text[:200])
    return line if len(line) <= 100 else f"{line[:99]}…"
