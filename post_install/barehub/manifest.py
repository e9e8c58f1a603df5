"""The manifest: what the packages of a release leave in its prefix, so that `barehub verify` can find what has changed.

Its lines are those of sha256sum(1), which can check it; a `*` before a path marks a program. What sha256sum cannot
check are comments to it, `# link PATH -> TARGET` and, for a file that holds the path of its prefix, the same line with
`# prefix` before it, with the hash of the file as it is with PLACEHOLDER for that path.

`release.py build` runs `describe` on the prefix that it has filled, so this needs nothing but the standard library.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PLACEHOLDER = b"/@PREFIX@"  # shorter than any prefix

# What engines write, of times and places. Nothing there is run.
RECORDS = re.compile(r"conda-meta/[^/]+|\.[a-z][a-z0-9-]*\.json|CACHEDIR\.TAG")
LINE = re.compile(r"(?P<relocated># prefix )?(?P<sha256>[0-9a-f]{64}) (?P<mark>[ *])(?P<path>.+)")
LINK = re.compile(r"# link (?P<path>.+) -> (?P<target>.+)")


@dataclass(frozen=True)
class Entry:
    """A file, by the sha256 of its content, or a link, by its target.

    relocated: the content holds the prefix's path, and the hash is that with PLACEHOLDER in its place.
    """

    sha256: str = ""
    program: bool = False
    relocated: bool = False
    target: str = ""


class NoManifestError(ValueError):
    """A text that is no manifest."""


def describe(prefix: Path) -> str:
    """Return the manifest of a prefix that an engine has just filled.

    Bytecode that no package brings is left out: it holds times and paths. Raises ValueError for a name with a new line
    or a backslash, which sha256sum writes in a way of its own.
    """
    packaged = set(from_packages(prefix))
    lines = []
    for path, found in sorted(walk(prefix)):
        if set(path) & set("\n\\") or " -> " in path:
            raise ValueError(f"a package has a file of this name: {path!r}")
        if path.endswith("/") or RECORDS.fullmatch(path) or (path.endswith(".pyc") and path not in packaged):
            continue
        if stat.S_ISLNK(found.st_mode):
            lines.append(f"# link {path} -> {(prefix / path).readlink()}")
            continue
        content = (prefix / path).read_bytes()
        relocated = os.fsencode(prefix) in content
        sha256 = hashlib.sha256(without_prefix(content, prefix) if relocated else content).hexdigest()
        lines.append(f"{'# prefix ' * relocated}{sha256} {'*' if found.st_mode & 0o100 else ' '}{path}")
    return "".join(f"{line}\n" for line in lines)


def from_packages(prefix: Path) -> Iterator[str]:
    """Yield the files that came out of packages, as opposed to those that an engine makes: conda's records tell."""
    for record in (prefix / "conda-meta").glob("*.json"):
        for one in json.loads(record.read_text())["paths_data"]["paths"]:
            if one["path_type"] in ("hardlink", "softlink"):
                yield one["_path"]


def parse(text: str) -> dict[str, Entry]:
    """Return a manifest's entries by path. Raises NoManifestError if it is none."""
    entries = {}
    for line in text.removesuffix("\n").split("\n"):  # a name may hold what else ends a line for splitlines()
        if link := LINK.fullmatch(line):
            entries[link["path"]] = Entry(target=link["target"])
        elif match := LINE.fullmatch(line):
            entries[match["path"]] = Entry(match["sha256"], match["mark"] == "*", bool(match["relocated"]))
        else:
            raise NoManifestError(line)
    return entries


def walk(prefix: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path below `prefix` and the status of everything in it; that of a directory ends with a slash.

    Links are not followed. `onerror` gets what cannot be listed.
    """
    todo = [""]
    while todo:
        directory = todo.pop()
        try:
            with os.scandir(prefix / directory) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # it was removed meanwhile
                    path = f"{directory}{entry.name}"
                    if stat.S_ISDIR(found.st_mode):
                        path += "/"
                        todo.append(path)
                    yield path, found
        except OSError as error:
            if onerror is None:
                raise
            onerror(error)


def without_prefix(content: bytes, prefix: Path) -> bytes:
    """Return a file's content with PLACEHOLDER where a conda tool has put the path of the prefix.

    In a binary file, a string that got shorter is filled up with zeros to the length that it had in the package.
    """
    path = os.fsencode(prefix)
    if b"\0" not in content:
        return content.replace(path, PLACEHOLDER)

    def replaced(match: re.Match[bytes]) -> bytes:
        string = match[0].replace(path, PLACEHOLDER)
        return string + bytes(len(match[0]) - len(string))

    return re.sub(re.escape(path) + rb"[^\0]*\0+", replaced, content)
