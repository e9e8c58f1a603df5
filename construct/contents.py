"""Reads what is in a release from its installer, packed or unpacked.

Standard library only: `release.py verify` and `diff` run on a bare Python.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from construct.installer import HEADER_BYTES, NO_SHA256
from recipe.errors import UserError
from recipe.lock_file import LOCK_NAME, Lock

TEXTS = ("SHA256SUMS", LOCK_NAME, "packages.txt", "release.json", "sbom.cdx.json")
SUFFIXES = (".conda", ".tar.bz2")  # of conda packages
COPY_AGAIN = "copy it here again from where it was published, with its .sha256"


@dataclass(frozen=True)
class Member:
    """A file of the payload as it was read."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """A release: the size and hash of each file by path, and the text of the files that describe it."""

    path: Path
    members: Mapping[str, Member]
    texts: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return one of TEXTS, or a repodata.json. Raises UserError if the release lacks it."""
        if name not in self.texts:
            raise UserError(f"{self.path} has no {name}", COPY_AGAIN)
        return self.texts[name]

    def document(self, name: str) -> dict[str, Any]:
        """Return one of these parsed as a JSON object. Raises UserError if it is not one."""
        try:
            found = json.loads(self.text(name))
        except ValueError as error:
            raise UserError(f"{name} in {self.path} is not JSON: {error}", COPY_AGAIN) from error
        if not isinstance(found, dict):
            raise UserError(f"{name} in {self.path} is not a JSON object", COPY_AGAIN)
        return found

    @property
    def release(self) -> dict[str, Any]:
        return self.document("release.json")

    @property
    def lock(self) -> Lock:
        return Lock.parse(self.text(LOCK_NAME), f"{LOCK_NAME} in {self.path}")

    @property
    def archives(self) -> dict[str, Member]:
        """Return the packages of the channel by `SUBDIR/FILE`."""
        return {
            name.removeprefix("channel/"): member
            for name, member in self.members.items()
            if name.startswith("channel/") and name.endswith(SUFFIXES)
        }


def indexed(repodata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the records of a repodata.json by file name, for both archive formats."""
    return {**(repodata.get("packages") or {}), **(repodata.get("packages.conda") or {})}


def read_installer(path: Path) -> Contents:
    """Read an installer. Raises UserError if it is not one, is cut off, or is not what its header says."""
    with open_file(path) as file:
        size, sha256 = read_header(path, file)
        actual = path.stat().st_size
        if actual != size:
            raise UserError(f"{path} is damaged: it has {actual} bytes instead of {size}", COPY_AGAIN)
        file.seek(HEADER_BYTES)
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise UserError(f"{path} is damaged: its payload is not what its header says", COPY_AGAIN)
        file.seek(HEADER_BYTES)
        members: dict[str, Member] = {}
        texts: dict[str, str] = {}
        try:
            for name, content in tar_members(path, file):
                read_member(name, content, members, texts)
        except tarfile.TarError as error:
            raise UserError(f"the payload of {path} is not a tar: {error}", COPY_AGAIN) from error
    return Contents(path, members, texts)


def open_file(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "name an installer, a .sh file") from error


def read_header(path: Path, file: IO[bytes]) -> tuple[int, str]:
    """Return the size of the whole file and the sha256 of its payload, which a comment of construct/header.sh gives."""
    header = file.read(HEADER_BYTES)
    given = re.search(
        rb"\n# file_bytes=([0-9]+) payload_sha256=([0-9a-f]{64})\n(?:# header_sha256=([0-9a-f]{64})\n)?", header
    )
    if not header.startswith(b"#!/bin/sh\n") or not given:
        raise UserError(f"{path} is not an installer that release.py made, or its beginning is damaged", COPY_AGAIN)
    own = given[3] or b""
    actual = hashlib.sha256(header.replace(own, NO_SHA256.encode()) if own else header).hexdigest()
    if b"header_sha256" in header and actual != own.decode():  # older installers have none
        raise UserError(f"{path} is damaged: its first part, the script, was changed", COPY_AGAIN)
    return int(given[1]), given[2].decode()


def tar_members(path: Path, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield each file of the tar. Raises UserError for one that would land elsewhere, or is not a regular file."""
    seen = set()
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.isdir():
                continue
            name = member.name
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or name.startswith("/") or ".." in name.split("/") or name in seen:
                raise UserError(f"{path} holds a member that no release has: {name}", "do not use this file")
            seen.add(name)
            yield name, content


def read_directory(path: Path) -> Contents:
    """Read an unpacked installer (`tail -c +32769 X.sh | tar -x`). Raises UserError if it is not one."""
    if not (path / "release.json").is_file():
        raise UserError(f"{path} is not an unpacked release", "name an installer, or what its tar was unpacked to")
    members: dict[str, Member] = {}
    texts: dict[str, str] = {}
    for one in sorted(path.rglob("*")):
        if one.is_file():
            with one.open("rb") as content:
                read_member(one.relative_to(path).as_posix(), content, members, texts)
    return Contents(path, members, texts)


def read_member(name: str, content: IO[bytes], members: dict[str, Member], texts: dict[str, str]) -> None:
    """Add a file's size and hash to `members`, and to `texts` its text if it describes the release."""
    if name in TEXTS or name.endswith("/repodata.json"):
        data = content.read()
        texts[name] = data.decode(errors="replace")
        members[name] = Member(len(data), hashlib.sha256(data).hexdigest())
        return
    sha256 = hashlib.sha256()
    size = 0
    while block := content.read(1 << 20):
        sha256.update(block)
        size += len(block)
    members[name] = Member(size, sha256.hexdigest())
