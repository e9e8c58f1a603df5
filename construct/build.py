"""`release.py build`: from the repository to dist/barehub-YYYY.MM.DD-Linux-x86_64.sh."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from rattler import RepoDataRecord

from construct.channels import pins_versions_only
from construct.engines import choose_engine
from construct.installer import MARGIN_KB, SCRIPTS, write_installer, write_sums
from construct.locked import render_lock, render_packages
from construct.packages import fill_channel
from construct.sbom import render_sbom
from construct.signing import check_command, require_signable, sign_release
from construct.trial import Measured, try_out
from recipe import pins
from recipe.channel import PLATFORM
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.metadata import MACHINES
from recipe.overlay import Stack
from recipe.report import say

NAME = "barehub"
SCHEMA = 1  # of release.json


def build_release(
    root: Path,
    date: str | None,
    output: Path,
    *,
    overlays: Sequence[Path] = (),
    name: str = NAME,
    channels: Sequence[str] = (),
    lock: Path | None = None,
    engine: str = "auto",
    sign: str | None = None,
) -> Path:
    """Build the installer and what goes with it into `output`; return its path.

    `overlays` are folders, the first one lowest; `name` is the distribution's. The packages come from `channels`, or
    from the recipe channel if there are none. `lock` is another lock than the repository's or the overlay's.
    `engine` is that of choose_engine, `sign` the key of sign_release. Nothing appears in `output` before all of it is
    done. Raises UserError for what the person can mend.
    """
    began = time.monotonic()
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise UserError(f"a distribution cannot be named {name}", "use a-z 0-9 - and start with a letter")
    stack = Stack.of(root, overlays)
    lock = lock or stack.lock_for(PLATFORM)
    release = release_label(date)
    filler = choose_engine(engine)
    moment = datetime(*map(int, release.split(".")[:3]), tzinfo=UTC)
    cache = root / ".cache"
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{name}-{release}-Linux-{MACHINES[PLATFORM]}.sh"
    if sign:
        require_signable(output, path.stem, sign)
    specs = stack.specs

    with tempfile.TemporaryDirectory(dir=cache_directory(cache), prefix="build-") as directory:
        work = Path(directory)
        payload = work / "payload"
        channel = payload / "channel"
        records = fill_channel(stack, lock, channels, cache, channel)

        beside = "The packages of this release. Beside ./channel: conda env create -f environment.lock.yml"
        (payload / "environment.lock.yml").write_text(render_lock(records, name, ["./channel"], beside))

        say(f"making the engine with {filler.NAME} and trying it")
        filler.build_engine(records, specs, PLATFORM, release, payload, work / "engine")
        measured = try_out(payload / "engine", channel, records, work / "trial")

        say("writing the installer")
        for script in SCRIPTS:
            shutil.copyfile(script, payload / script.name)
        pinned = pins.read(stack.wheels) if pins_versions_only(lock) else {}
        (payload / "packages.txt").write_text(render_packages(records))
        (payload / "sbom.cdx.json").write_text(render_sbom(name, release, moment, records, pinned))
        (payload / "release.json").write_text(render_release(stack, name, payload, release, moment, measured, filler))
        write_sums(payload)
        payload_kb = sum(one.stat().st_size for one in payload.rglob("*") if one.is_file()) // 1024
        write_installer(
            path,
            payload,
            {
                "NAME": name,
                "RELEASE": release,
                "MACHINE": MACHINES[PLATFORM],
                "GLIBC": "{}.{}".format(*measured.glibc),
                "INSTALLED_KB": measured.kilobytes,
                "NEEDED_KB": measured.kilobytes + filler.COPIES * payload_kb + MARGIN_KB,
                # What the engine unpacks has directories of its own, and a tmpfs counts each link to a file.
                "NEEDED_INODES": measured.inodes * 9 // 4,
            },
            moment,
        )
        write_beside(path, payload)
    signature = sign_release(output, sign) if sign else None
    summarise(path, measured, records, time.monotonic() - began)
    if signature:
        say(f"  check      {check_command(name, signature)}")
    return path


def cache_directory(cache: Path) -> Path:
    cache.mkdir(exist_ok=True)
    return cache


def release_label(date: str | None) -> str:
    """The release's label, today's in UTC if `date` is None. Raises UserError unless it is YYYY.MM.DD[.N]."""
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


def render_release(
    stack: Stack, name: str, payload: Path, release: str, moment: datetime, measured: Measured, engine: ModuleType
) -> str:
    """release.json: what this release is, for programs. It becomes the receipt of an installed release."""
    files = sorted(path for path in payload.rglob("*") if path.is_file())
    return (
        json.dumps(
            {
                "schema": SCHEMA,
                "name": name,
                "version": release,
                "date": moment.date().isoformat(),
                "commit": commit(stack.root),
                "overlays": [overlay.name for overlay in stack.overlays],
                "engine": {"name": engine.NAME, "version": engine.engine_version()},
                "platform": PLATFORM,
                "glibc": "{}.{}".format(*measured.glibc),
                "lock_sha256": file_sha256(payload / "environment.lock.yml"),
                "files": [
                    {
                        "path": str(path.relative_to(payload)),
                        "size": path.stat().st_size,
                        "sha256": file_sha256(path),
                    }
                    for path in files
                ],
            },
            indent=1,
        )
        + "\n"
    )


def commit(root: Path) -> str | None:
    """The commit that is built, with -dirty if there is more; None outside a git checkout."""
    done = subprocess.run(
        ["git", "-C", root, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def write_beside(path: Path, payload: Path) -> None:
    """Write the installer's checksum, package list and SBOM beside it."""
    stem = path.name.removesuffix(".sh")
    path.with_name(f"{path.name}.sha256").write_text(f"{file_sha256(path)}  {path.name}\n")
    shutil.copyfile(payload / "packages.txt", path.with_name(f"{stem}.packages.txt"))
    shutil.copyfile(payload / "sbom.cdx.json", path.with_name(f"{stem}.cdx.json"))


def summarise(path: Path, measured: Measured, records: Sequence[RepoDataRecord], seconds: float) -> None:
    """The last lines: what a release builder copies from."""
    shown = os.path.relpath(path)
    say(f"\nbuilt {len(records)} packages in {seconds:.0f} s")
    say(f"  installer  {shown}")
    say(f"  size       {path.stat().st_size / 1e6:.0f} MB, {measured.kilobytes / 1024:.0f} MiB installed")
    say(f"  needs      Linux {MACHINES[PLATFORM]} with glibc >= " + "{}.{}".format(*measured.glibc))
    say(f"  install    sudo sh {path.name}")
