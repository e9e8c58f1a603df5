"""What an installer carries beside its packages and its engine: the files that describe the release."""

import gzip
import json
import os
import runpy
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rattler import RepoDataRecord

from construct.engines import Engine
from construct.installer import ENVIRONMENT, MARGIN_KB, SCRIPTS, write_sums
from construct.measure import Measured
from construct.sbom import render_sbom
from construct.solve import lock_lines, sha256_of
from construct.systems import MINIMUM_SYSTEMD, runs_on
from recipe import pins
from recipe.files import file_sha256
from recipe.lock_file import LOCK_NAME, Lock
from recipe.metadata import MACHINES, PLATFORM
from recipe.overlay import Stack

SCHEMA = 1  # of release.json


@dataclass(frozen=True)
class Release:
    """What is built: the packages of `stack` as a distribution of this name, with the label YYYY.MM.DD[.N].

    platform: a conda subdir, of the machine that it is for.
    """

    stack: Stack
    name: str
    label: str
    platform: str = PLATFORM

    @property
    def moment(self) -> datetime:
        """The time of every file, so that the same release has the same bytes."""
        year, month, day = map(int, self.label.split(".")[:3])
        return datetime(year, month, day, tzinfo=UTC)

    @property
    def machine(self) -> str:
        return MACHINES[self.platform]

    @property
    def kind(self) -> str:
        """What it is: a hub, or an environment for its users."""
        return "environment" if self.stack.environment else "hub"

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.label}-Linux-{self.machine}.sh"


def write_locked(payload: Path, release: Release, records: Sequence[RepoDataRecord]) -> None:
    """Write the lock of exactly `records`, for the engine and for `conda env create -f` with the channel beside it."""
    comment = f"The packages of this release. Beside ./channel: conda env create -f {LOCK_NAME}"
    lock = Lock(lock_lines(records), release.name, comments=(comment,))
    (payload / LOCK_NAME).write_text(lock.render())


def write_manifest(payload: Path, prefix: Path) -> None:
    """Add the manifest of `prefix`, which the engine has filled, as the release's own code describes it."""
    script = next(prefix.glob("lib/python3*/site-packages/barehub/manifest.py"))
    manifest = runpy.run_path(str(script))["describe"](prefix)
    (payload / "manifest.gz").write_bytes(gzip.compress(os.fsencode(manifest), mtime=0))


def write_descriptions(
    payload: Path, release: Release, lock: Lock, records: Sequence[RepoDataRecord], engine: Engine, measured: Measured
) -> None:
    """Add the files that describe the payload, last those that list all others: release.json and SHA256SUMS."""
    wheels = pins.read(release.stack.wheels) if lock.pins_versions_only else {}
    for script in (*SCRIPTS, *([ENVIRONMENT] if release.kind == "environment" else [])):
        shutil.copyfile(script, payload / script.name)
    (payload / "packages.txt").write_text(render_packages(records))
    sbom = render_sbom(release.name, release.label, release.moment, records, wheels, measured.libraries)
    (payload / "sbom.cdx.json").write_text(sbom)
    (payload / "release.json").write_text(render_release(payload, release, engine, measured))
    write_sums(payload)


def render_packages(records: Sequence[RepoDataRecord]) -> str:
    """Return one line a package for people and `grep`: name, version, build, subdir, sha256."""
    rows = [(r.name.normalized, str(r.version), str(r.build), r.subdir, sha256_of(r)) for r in records]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "".join(
        "  ".join([*(f"{cell:{w}}" for cell, w in zip(row, widths, strict=False)), row[4]]) + "\n" for row in rows
    )


def render_release(payload: Path, release: Release, engine: Engine, measured: Measured) -> str:
    """Return release.json: what this release is, for programs. It becomes the receipt of an installed release."""
    document = {
        "schema": SCHEMA,
        "kind": release.kind,
        "name": release.name,
        "version": release.label,
        "date": release.moment.date().isoformat(),
        "commit": commit(release.stack.root),
        "overlays": [overlay.name for overlay in release.stack.overlays],
        "engine": {"name": engine.NAME, "version": engine.version()},
        "platform": release.platform,
        "glibc": measured.glibc_version,
        "systemd": MINIMUM_SYSTEMD,
        "facts": measured.facts,
        "lock_sha256": file_sha256(payload / LOCK_NAME),
        "files": [
            {"path": str(path.relative_to(payload)), "size": path.stat().st_size, "sha256": file_sha256(path)}
            for path in sorted(payload.rglob("*"))
            if path.is_file()
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def commit(root: Path) -> str | None:
    """Return the commit that is built, with -dirty if files differ from it; None outside a git checkout."""
    done = subprocess.run(
        ["git", "-C", root, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def header_values(payload: Path, release: Release, engine: Engine, measured: Measured) -> Mapping[str, object]:
    """Return what the installer's header has to know about the release: the values of its @NAME@ placeholders."""
    payload_kb = sum(one.stat().st_size for one in payload.rglob("*") if one.is_file()) // 1024
    return {
        "KIND": release.kind,
        "NAME": release.name,
        "RELEASE": release.label,
        "MACHINE": release.machine,
        "GLIBC": measured.glibc_version,
        "SYSTEMS": runs_on(measured.glibc),
        "SYSTEMD": MINIMUM_SYSTEMD,
        "INSTALLED_KB": measured.kilobytes,
        "NEEDED_KB": measured.kilobytes + engine.COPIES * payload_kb + MARGIN_KB,
        # What the engine unpacks has directories of its own, and a tmpfs counts each link to a file.
        "NEEDED_INODES": measured.inodes * 9 // 4,
    }
