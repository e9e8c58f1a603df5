"""`release.py verify`: checks that an installer is what it says and what was published. Offline; it installs nothing.

Standard library only: an administrator runs this on the air-gapped side, from a checkout, with any Python >= 3.11.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from construct.contents import SUFFIXES, Contents, indexed, read_directory, read_installer
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.lock_file import LOCK_NAME

SUMS = "SHA256SUMS"


def verify(target: Path, channel: Path | None) -> None:
    """Check an installer, packed or unpacked, and print what is in it.

    `channel` is a mirror or a channel that has to hold each of its packages as well. Raises UserError, naming
    everything that is wrong.
    """
    contents = read_directory(target) if target.is_dir() else read_installer(target)
    problems = [
        *([] if target.is_dir() else check_beside(target)),
        *check_sums(contents),
        *check_release(contents),
        *check_lock(contents),
        *check_index(contents),
        *check_sbom(contents),
    ]
    if channel:
        problems += check_channel(contents, channel)
    if problems:
        raise UserError(
            f"{target} cannot be trusted:\n" + "\n".join(f"  {problem}" for problem in problems),
            "copy it here again; if that changes nothing, get it from where it was published",
        )
    print_contents(contents)
    if not target.is_dir():
        print(compared_with(target))
    if channel:
        print(f"{channel} holds each of these packages with the locked sha256")


def check_beside(path: Path) -> Iterator[str]:
    """The checksums beside an installer name it with its hash, and signed ones what else belongs to it."""
    for one in sums_beside(path):
        wanted = read_sums(one).get(path.name)
        if wanted is None:
            yield f"{one.name} says nothing about {path.name}"
        elif wanted != file_sha256(path):
            yield f"{path.name} has the sha256 {file_sha256(path)}, {one.name} says {wanted}"
    signed = path.with_name(SUMS)
    listed = read_sums(signed) if signed.is_file() else {}
    stem = path.name.removesuffix(".sh")
    for name in (f"{stem}.packages.txt", f"{stem}.cdx.json", f"{stem}.release.json"):
        beside = path.with_name(name)
        if beside.is_file() and name in listed and listed[name] != file_sha256(beside):
            yield f"{name} is not what {SUMS} says"


def sums_beside(path: Path) -> list[Path]:
    """Return the files beside an installer that may hold its checksum."""
    return [one for one in (path.with_name(f"{path.name}.sha256"), path.with_name(SUMS)) if one.is_file()]


def compared_with(path: Path) -> str:
    """Return a line with an installer's sha256 and the files beside it that hold the same."""
    sha256 = file_sha256(path)
    sums = sums_beside(path)
    if not sums:
        return f"sha256 {sha256}; there is no {path.name}.sha256 beside it to compare it with"
    return f"sha256 {sha256}, as {' and '.join(one.name for one in sums)} beside it say{'s' if len(sums) == 1 else ''}"


def read_sums(path: Path) -> dict[str, str]:
    """Return the sha256 by file name that a file in the format of sha256sum(1) lists."""
    return parse_sums(path.read_text(errors="replace"))


def parse_sums(text: str) -> dict[str, str]:
    """Return the same from the text of such a file."""
    return {match[2]: match[1] for match in re.finditer(r"^([0-9a-f]{64}) [ *](.+)$", text, re.MULTILINE)}


def check_sums(contents: Contents) -> Iterator[str]:
    """SHA256SUMS names each file with its hash."""
    sums = parse_sums(contents.text(SUMS))
    members = {name: member.sha256 for name, member in contents.members.items() if name != SUMS}
    yield from differences(members, sums, SUMS)


def check_release(contents: Contents) -> Iterator[str]:
    """release.json names the lock, and each file except the two that are written after it."""
    release = contents.release
    try:
        listed = {file["path"]: (file["size"], file["sha256"]) for file in release["files"]}
        named = (release["name"], release["version"])
        lock_sha256 = release["lock_sha256"]
    except (KeyError, TypeError) as error:
        yield f"release.json lacks {error}"
        return
    members = {
        name: (member.size, member.sha256)
        for name, member in contents.members.items()
        if name not in (SUMS, "release.json")
    }
    yield from differences(members, listed, "release.json")
    if lock_sha256 != contents.members[LOCK_NAME].sha256:
        yield f"release.json was made with another {LOCK_NAME}"
    if contents.path.suffix == ".sh" and not contents.path.name.startswith("-".join(named)):
        yield f"it is {named[0]} {named[1]}, which its file name does not say"


def check_lock(contents: Contents) -> Iterator[str]:
    """The channel holds each locked package with the locked sha256, and nothing else."""
    locked = {}
    for line in contents.lock.lines.values():
        if line.sha256:
            locked[line.archive_stem] = line.sha256
        else:
            yield f"{LOCK_NAME} pins no build and sha256 of {line.name}"
    found = {stem(name): member.sha256 for name, member in contents.archives.items()}
    yield from differences(found, locked, LOCK_NAME)


def stem(archive: str) -> str:
    """Return NAME-VERSION-BUILD of SUBDIR/NAME-VERSION-BUILD.conda."""
    name = archive.partition("/")[2]
    return next(name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix))


def check_index(contents: Contents) -> Iterator[str]:
    """The channel's repodata.json files list each package with its size and hash."""
    listed: dict[str, tuple[object, object]] = {}
    for name in contents.texts:
        if name.startswith("channel/") and name.endswith("/repodata.json"):
            for file_name, record in indexed(contents.document(name)).items():
                subdir = name.split("/")[1]
                listed[f"{subdir}/{file_name}"] = (record.get("size"), record.get("sha256"))
    found = {name: (member.size, member.sha256) for name, member in contents.archives.items()}
    yield from differences(found, listed, "repodata.json")


def check_sbom(contents: Contents) -> Iterator[str]:
    """The SBOM is of this release, and lists what is locked."""
    sbom = contents.document("sbom.cdx.json")
    try:
        about = sbom["metadata"]["component"]
        listed = {
            f"{one['name']} {one['version']}": next(
                (h["content"] for h in one["hashes"] if h["alg"] == "SHA-256"), None
            )
            for one in sbom["components"]
        }
        of = (about["name"], about["version"])
    except (KeyError, TypeError) as error:
        yield f"sbom.cdx.json lacks {error}"
        return
    if of != (contents.release.get("name"), contents.release.get("version")):
        yield f"sbom.cdx.json is of {' '.join(map(str, of))}"
    locked = {f"{one.name} {one.version}": one.sha256 for one in contents.lock.lines.values()}
    yield from differences(locked, listed, "sbom.cdx.json")


def check_channel(contents: Contents, directory: Path) -> Iterator[str]:
    """A mirror, or the channel of an unpacked release, holds and lists each package of this release."""
    root = directory / "channel" if (directory / "channel").is_dir() else directory
    listed: dict[str, object] = {}
    for path in sorted(root.glob("*/repodata.json")):
        try:
            packages = indexed(json.loads(path.read_text()))
        except ValueError:
            yield f"{path} is not JSON"
            continue
        listed |= {f"{path.parent.name}/{name}": record.get("sha256") for name, record in packages.items()}
    if not listed:
        raise UserError(f"{directory} is not a conda channel", "name a mirror, or a directory that --extract has made")
    for name, member in contents.archives.items():
        archive = root / name
        if not archive.is_file():
            yield f"{directory} lacks {name}"
        elif file_sha256(archive) != member.sha256:
            yield f"{archive} is not the locked package: its sha256 differs"
        elif listed.get(name) != member.sha256:
            yield f"{archive.parent / 'repodata.json'} does not list {archive.name} with its sha256"


def differences(found: Mapping[str, object], wanted: Mapping[str, object], where: str) -> Iterator[str]:
    """Yield what is missing, what is surplus, and what differs from what `where` says."""
    for name in sorted(wanted.keys() - found.keys()):
        yield f"{name} is in {where} but missing"
    for name in sorted(found.keys() - wanted.keys()):
        yield f"{name} is not in {where}"
    for name in sorted(found.keys() & wanted.keys()):
        if found[name] != wanted[name]:
            yield f"{name} is not what {where} says"


def print_contents(contents: Contents) -> None:
    """Print the packages, then what the release is."""
    release = contents.release
    engine = release.get("engine") or {}
    overlays = release.get("overlays") or []
    size = sum(member.size for member in contents.members.values())
    print(contents.text("packages.txt"), end="")
    print()
    print(f"{release['name']} {release['version']} for {release.get('platform')}, glibc >= {release.get('glibc')}")
    print(f"engine {engine.get('name')} {engine.get('version')}, commit {release.get('commit')}")
    if overlays:
        print(f"overlays {', '.join(overlays)}")
    packages, files = len(contents.lock.lines), len(contents.members)
    print(f"{packages} packages, {files} files, {size / 1e6:.0f} MB: all as locked and listed")
