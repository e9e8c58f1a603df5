"""`release.py build`: from the repository to dist/barehub-YYYY.MM.DD-Linux-x86_64.sh."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rattler import RepoDataRecord

from construct.advisories import FILE as ADVISORIES
from construct.advisories import known_to_installer
from construct.delta import require_base, write_delta
from construct.engines import build_engine, choose_engine
from construct.floor import is_reach_lost, parse_limit, require_floor, warn_at_first, warn_at_last
from construct.installer import write_installer
from construct.measure import Measured, measure
from construct.packages import fill_channel, read_lock
from construct.payload import Release, header_values, write_descriptions, write_locked, write_manifest
from construct.signing import check_command, require_signable, sign_release
from construct.systems import runs_on
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.metadata import PLATFORM
from recipe.overlay import Stack
from recipe.report import say


def build_release(
    root: Path,
    date: str | None,
    output: Path,
    *,
    overlays: Sequence[Path] = (),
    environment: Path | None = None,
    name: str | None = None,
    channels: Sequence[str] = (),
    lock: Path | None = None,
    engine: str = "auto",
    sign: str | None = None,
    glibc: str | None = None,
    any_python: bool = False,
    platform: str = PLATFORM,
    python_mirror: str = "",
    advisories: Path | None = None,
    delta: Path | None = None,
) -> Path:
    """Build the installer and the files beside it into `output`; return its path.

    `overlays` are folders, the first one lowest; `environment` is one that replaces the hub; `name` is the
    distribution's, by default barehub or the environment's. The packages come from `channels`, or from the recipe
    channel if there are none. `lock` replaces the repository's or the overlay's. `engine` is as for `choose_engine`,
    `sign` is the key for `sign_release`. The build fails if anything needs a newer `glibc`. With `any_python` nothing
    is said about an interpreter that is not the portable one. The installer is for `platform`; `python_mirror` may have
    the interpreter of another machine than this. The installer knows those of the `advisories` that are about its
    packages. `delta` is an older installer: what the new one has beside it becomes a file, too. Nothing appears in
    `output` before the installer is complete. Raises UserError for what the operator can fix.
    """
    began, limit = time.monotonic(), parse_limit(glibc)
    reach_lost = platform == PLATFORM and is_reach_lost(channels, any_python)
    if reach_lost:
        warn_at_first()
    stack = Stack.of(root, overlays, environment)
    release = Release(stack, distribution_name(name or stack.name), release_label(date), platform)
    locked, filler = read_lock(stack, lock, channels, platform), choose_engine(engine, platform)
    old_label = require_base(delta, release.name, release.label, platform) if delta else ""
    known = known_to_installer(advisories, locked.lines) if advisories else ""
    cache, path = root / ".cache", output / release.file_name
    cache.mkdir(exist_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    if sign:
        require_signable(output, path.stem, sign)

    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as directory:
        work = Path(directory)
        payload = work / "payload"
        records = fill_channel(stack, locked, channels, cache, payload / "channel", platform, python_mirror)
        write_locked(payload, release, records)
        if known:
            (payload / ADVISORIES).write_text(known)

        say(f"making the engine with {filler.NAME} and testing it")
        filled = build_engine(filler, records, stack.specs, platform, release.label, payload, work / "engine")
        measured = measure(filled, payload / "channel", records, work / "trial", platform)
        require_floor(work / "trial/prefix", limit)

        say("writing the installer")
        if release.kind == "hub":
            write_manifest(payload, work / "trial/prefix")
        write_descriptions(payload, release, locked, records, filler, measured)
        write_installer(path, payload, header_values(payload, release, filler, measured), release.moment)
        write_beside(path, payload)
    smaller = write_delta(delta, path, release.name, release.label, old_label) if delta else None
    signature = sign_release(output, sign) if sign else None
    summarise(path, release, measured, records, time.monotonic() - began)
    if smaller:
        size, whole = (one.stat().st_size / 1e6 for one in (smaller, path))
        say(f"  delta      {os.path.relpath(smaller)}: {size:.1f} MB instead of {whole:.1f} MB, over {old_label}")
    if signature:
        say(f"  check      {check_command(release.name, signature)}")
    if reach_lost:
        warn_at_last(measured)
    return path


def distribution_name(name: str) -> str:
    """Return `name`. Raises UserError if it cannot be a distribution's."""
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise UserError(f"a distribution cannot be named {name}", "use a-z 0-9 - and start with a letter")
    return name


def release_label(date: str | None) -> str:
    """Return the release's label, by default today's date in UTC. Raises UserError unless it is YYYY.MM.DD[.N]."""
    if date is None:
        return datetime.now(UTC).strftime("%Y.%m.%d")
    match = re.fullmatch(r"(\d{4}\.\d{2}\.\d{2})(\.[1-9]\d*)?", date)
    try:
        if match:
            datetime.strptime(match[1], "%Y.%m.%d")
            return date
    except ValueError:
        pass
    raise UserError(f"{date} is not a release date", "write it like 2026.11.24, a second one that day 2026.11.24.1")


def write_beside(path: Path, payload: Path) -> None:
    """Write the installer's checksum, package list, SBOM, and receipt beside it. What is installed has the receipt."""
    stem = path.name.removesuffix(".sh")
    path.with_name(f"{path.name}.sha256").write_text(f"{file_sha256(path)}  {path.name}\n")
    shutil.copyfile(payload / "packages.txt", path.with_name(f"{stem}.packages.txt"))
    shutil.copyfile(payload / "sbom.cdx.json", path.with_name(f"{stem}.cdx.json"))
    shutil.copyfile(payload / "release.json", path.with_name(f"{stem}.release.json"))


def summarise(
    path: Path, release: Release, measured: Measured, records: Sequence[RepoDataRecord], seconds: float
) -> None:
    """Print the last lines, which a release builder copies from."""
    say(f"\nbuilt {len(records)} packages in {seconds:.0f} s")
    say(f"  installer  {os.path.relpath(path)}")
    say(f"  size       {path.stat().st_size / 1e6:.0f} MB, {measured.kilobytes / 1024:.0f} MiB installed")
    say(f"  needs      Linux {release.machine} with glibc >= {measured.glibc_version}")
    say(f"  runs on    {runs_on(measured.glibc)} (glibc {measured.glibc_version}, {release.machine})")
    if from_here := [f"{one.name} {one.version} (glibc {one.glibc})" for one in measured.libraries if one.glibc]:
        say(f"  from here  {', '.join(from_here)}")
    how = f"sh {path.name} -b -p BASE" if release.kind == "environment" else f"sudo sh {path.name}"
    say(f"  install    {how}")
