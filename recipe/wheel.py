"""Reads a wheel and refuses one that is damaged, malformed or not what was pinned.

Nothing in a wheel is trusted before it is checked: its hash against the pin, its name against its own metadata, its
members against its RECORD. The result is a `Wheel`, a plain value that can be passed to other processes.

The formats: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
and, in the same place, recording-installed-packages/ (RECORD), core-metadata/ and entry-points/.
"""

import base64
import configparser
import csv
import email
import hashlib
import io
import re
import stat
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn
from zipfile import BadZipFile, ZipFile

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, NormalizedName, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from recipe.errors import UserError

ANOTHER_VERSION = "ask for another version in construct/environment.yml, then: python3 release.py lock"

# RECORD cannot hold its own hash, and the signatures are made after it.
UNRECORDED = frozenset({"RECORD", "RECORD.jws", "RECORD.p7s"})
WEAK_HASHES = {"md5", "sha1"}
# What zipfile and csv raise for a damaged, encrypted or incomplete archive.
UNREADABLE = (BadZipFile, KeyError, IndexError, RuntimeError, UnicodeDecodeError, csv.Error, zlib.error)


@dataclass(frozen=True)
class Script:
    """A console or gui script: on Linux the two are the same."""

    name: str
    module: str
    attr: str


@dataclass(frozen=True)
class Wheel:
    """A wheel whose content has been checked.

    name: normalised as in PEP 503. dist_info: the name of that directory. members: its files. has_python: whether it
    brings anything that needs an interpreter.
    """

    path: Path
    sha256: str
    name: NormalizedName
    version: Version
    tags: frozenset[Tag]
    metadata: Metadata
    dist_info: str
    members: tuple[str, ...]
    scripts: tuple[Script, ...]
    has_python: bool

    @classmethod
    def open(cls, path: Path, sha256: str) -> "Wheel":
        """Read the wheel at `path` and check all of it. Raises UserError, naming the file, if anything is wrong."""
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise UserError(
                f"{path.name} has sha256 {found}, but {sha256} is pinned",
                fix="delete the file and run this again; if that changes nothing: python3 release.py lock",
            )
        try:
            name, version, _, tags = parse_wheel_filename(path.name)
        except (InvalidWheelFilename, InvalidVersion) as e:
            _refuse(path, str(e))
        try:
            with ZipFile(path) as archive:
                members = _checked_members(archive, path)
                dist_info = _find_dist_info(members, path, name, version)
                _check_record(archive, path, members, f"{dist_info}/RECORD")
                _check_wheel_version(archive, path, f"{dist_info}/WHEEL")
                metadata = _read_metadata(archive, path, f"{dist_info}/METADATA", name, version)
                scripts = _read_scripts(archive, path, members, f"{dist_info}/entry_points.txt")
                has_python = bool(scripts) or _has_python(archive, members, dist_info)
        except UNREADABLE as e:
            _refuse(path, str(e).strip("'\""))
        return cls(path, sha256, name, version, tags, metadata, dist_info, members, scripts, has_python)

    @property
    def data_dir(self) -> str:
        return _data_dir(self.dist_info)

    @property
    def requires(self) -> list[Requirement]:
        """Return its requirements, markers not yet evaluated."""
        return self.metadata.requires_dist or []


def _refuse(path: Path, why: str) -> NoReturn:
    raise UserError(f"{path.name} is not a valid wheel: {why}", fix=ANOTHER_VERSION)


def _data_dir(dist_info: str) -> str:
    return dist_info.removesuffix(".dist-info") + ".data"


def _checked_members(archive: ZipFile, path: Path) -> tuple[str, ...]:
    """Return the names of the files, none of which can land outside the directory it is unpacked to."""
    infos = archive.infolist()
    for member in infos:
        name = member.filename
        plain = PurePosixPath(name)
        if plain.is_absolute() or ".." in plain.parts or "\\" in name or str(plain) != name.rstrip("/"):
            _refuse(path, f"unsafe path {name!r}")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            _refuse(path, f"{name} is neither a file nor a directory")
    twice = [name for name, count in Counter(m.filename for m in infos).items() if count > 1]
    if twice:
        _refuse(path, f"{twice[0]} is in it twice")
    return tuple(m.filename for m in infos if not m.is_dir())


def _find_dist_info(members: tuple[str, ...], path: Path, name: str, version: Version) -> str:
    """Return the one *.dist-info directory, named like the file; a *.data directory must have the same stem."""
    tops = {m.partition("/")[0] for m in members if "/" in m}
    found = sorted(top for top in tops if top.endswith(".dist-info"))
    if len(found) != 1:
        _refuse(path, f"it has {len(found)} .dist-info directories instead of one")
    its_name, _, its_version = found[0].removesuffix(".dist-info").rpartition("-")
    if not _same(its_name, its_version, name, version):
        _refuse(path, f"the file's name disagrees with {found[0]}")
    strange = {top for top in tops if top.endswith(".data")} - {_data_dir(found[0])}
    if strange:
        _refuse(path, f"{min(strange)} does not belong to {found[0]}")
    return found[0]


def _same(its_name: str, its_version: str, name: str, version: Version) -> bool:
    try:
        return canonicalize_name(its_name) == name and Version(its_version) == version
    except InvalidVersion:
        return False


def _check_record(archive: ZipFile, path: Path, members: tuple[str, ...], record: str) -> None:
    """Check that RECORD lists every file with a strong hash that matches, and nothing else."""
    rows = {row[0]: row[1] for row in csv.reader(io.StringIO(archive.read(record).decode())) if row}
    unrecorded = {record.removesuffix("RECORD") + name for name in UNRECORDED}
    if strays := (set(members) ^ set(rows)) - unrecorded:
        _refuse(path, f"RECORD and content disagree about {min(strays)}")
    for member in members:
        if member in unrecorded:
            continue
        algorithm, _, expected = rows[member].partition("=")
        if algorithm in WEAK_HASHES or algorithm not in hashlib.algorithms_guaranteed:
            _refuse(path, f"RECORD has no strong hash for {member}")
        digest = hashlib.new(algorithm, archive.read(member)).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != expected:
            _refuse(path, f"{member} does not have the hash in RECORD")


def _check_wheel_version(archive: ZipFile, path: Path, wheel_file: str) -> None:
    version = email.message_from_string(archive.read(wheel_file).decode())["Wheel-Version"]
    if not version or version.partition(".")[0] != "1":
        _refuse(path, f"its Wheel-Version is {version}, and only 1.x is known")


def _read_metadata(archive: ZipFile, path: Path, file: str, name: str, version: Version) -> Metadata:
    """Return METADATA. The fields in use are parsed here, so that an invalid one is found here."""
    # validate=False: many published wheels break a rule in fields that are not read here.
    metadata = Metadata.from_email(archive.read(file), validate=False)
    try:
        if not _same(metadata.name, str(metadata.version), name, version):
            _refuse(path, f"the file's name disagrees with METADATA ({metadata.name} {metadata.version})")
        requires = metadata.requires_dist or []
        _ = metadata.requires_python, metadata.license_expression
    except ValueError as e:
        _refuse(path, f"METADATA: {e}")
    if urls := [r for r in requires if r.url]:
        _refuse(path, f"it requires {urls[0].name} from a URL, which no channel can serve")
    return metadata


class CaseSensitiveParser(configparser.ConfigParser):
    """Keeps the case of names, which configparser lowers by default."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def _read_scripts(archive: ZipFile, path: Path, members: tuple[str, ...], entry_points: str) -> tuple[Script, ...]:
    """Return the console and gui scripts that entry_points.txt asks for."""
    if entry_points not in members:
        return ()
    parser = CaseSensitiveParser(delimiters=("=",), interpolation=None)
    try:
        parser.read_string(archive.read(entry_points).decode())
    except configparser.Error as e:
        _refuse(path, f"entry_points.txt: {e}")
    scripts = []
    for group in {"console_scripts", "gui_scripts"} & set(parser.sections()):
        for name, value in parser.items(group):
            parts = re.fullmatch(r"([\w.]+)\s*:\s*([\w.]+)\s*(\[.*\])?", value)
            if not parts or not re.fullmatch(r"\w[\w.-]*", name):
                _refuse(path, f"entry_points.txt: {name} = {value} makes no script")
            scripts.append(Script(name, parts[1], parts[2]))
    return tuple(sorted(scripts, key=lambda script: script.name))


def _has_python(archive: ZipFile, members: tuple[str, ...], dist_info: str) -> bool:
    """Return whether there is a module, a header or a Python script, and not only data and binaries."""
    data = _data_dir(dist_info)
    for member in members:
        if member.startswith(f"{data}/scripts/"):
            with archive.open(member) as file:
                if file.read(8) == b"#!python":
                    return True
        elif not member.startswith((f"{dist_info}/", f"{data}/data/")):
            return True
    return False
