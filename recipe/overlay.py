"""An overlay: a folder that turns barehub into a distribution with opinions. It becomes a conda package of its own.

The folder of an environment for users (construct/environments/) has the same parts. It is a release of its own.

    environment.yml         more specs, or tighter ones; conda-forge's names
    environment.lock.yml    written by `release.py lock --overlay DIR`, with wheels.txt where wheels are the source
    jupyterhub_config.d/    *.py, part of the release's configuration
    examples/               for administrators to copy
    python/                 modules for the configuration to import
    share/, etc/            anything else, below the prefix's share/ and etc/
    README.md               its guide, which `barehub help NAME` shows

Each of these is optional; other files are not packaged. Overlays stack: where two bring the same file, the later one's
is used. A stack is solved as a whole, so it has one lock, in the last overlay that brings specs.
"""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath

from recipe.convert import assemble, staging
from recipe.errors import UserError
from recipe.lock_file import LOCK_NAME
from recipe.metadata import CondaMetadata
from recipe.specs import environment_specs, merge_specs

# The platform whose lock has the plain name. A lock of wheels, which is for every machine, has it too.
PLAIN = "linux-64"

# Folder of an overlay: where its files go in a noarch package (conda moves site-packages to that of its Python).
PLACES = {
    "jupyterhub_config.d": PurePosixPath("share/barehub/jupyterhub_config.d"),
    "examples": PurePosixPath("share/barehub/examples"),
    "python": PurePosixPath("site-packages"),
    "share": PurePosixPath("share"),
    "etc": PurePosixPath("etc"),
}


@dataclass(frozen=True)
class Overlay:
    """One overlay. files: what it brings to a prefix, by the place there. specs: as in its environment.yml."""

    name: str
    path: Path
    specs: tuple[str, ...]
    files: dict[PurePosixPath, Path]

    kind: str = "overlay"

    @property
    def package(self) -> str:
        return f"barehub-{self.kind}-{self.name}"

    @property
    def brings_specs(self) -> bool:
        """Return whether there is an environment.yml, even one that asks for nothing."""
        return (self.path / "environment.yml").exists()


def read_overlays(paths: Sequence[Path]) -> list[Overlay]:
    """Read a stack of overlays, the first one lowest. A file that a later one replaces is left out.

    Raises UserError for a folder that is not an overlay, or for two of one name.
    """
    overlays: list[Overlay] = []
    taken: set[PurePosixPath] = set()
    for path in reversed(paths):
        overlay = read_overlay(path)
        if overlay.name in {other.name for other in overlays}:
            raise UserError(f"there are two overlays named {overlay.name}", "rename one of the folders")
        kept = {place: source for place, source in overlay.files.items() if place not in taken}
        taken |= overlay.files.keys()
        overlays.insert(0, Overlay(overlay.name, overlay.path, overlay.specs, kept))
    return overlays


def read_overlay(path: Path) -> Overlay:
    """Read one overlay. Raises UserError if the folder is not one."""
    path = path.resolve()
    if not path.is_dir():
        raise UserError(f"{path} is not a directory", "name an overlay's folder")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", path.name):
        raise UserError(f"an overlay cannot be named {path.name}", "rename the folder: a-z 0-9 -, a letter first")
    environment = path / "environment.yml"
    specs = tuple(environment_specs(environment)) if environment.exists() else ()
    files = {
        place / source.relative_to(path / folder).as_posix(): source
        for folder, place in PLACES.items()
        for source in sorted((path / folder).rglob("*"))
        if source.is_file() and "__pycache__" not in source.parts
    }
    if not environment.exists() and not files:
        raise UserError(f"{path} brings nothing", f"an overlay has environment.yml or one of {', '.join(PLACES)}")
    if (path / "README.md").is_file():
        files[PurePosixPath(f"share/barehub/guides/{path.name}.md")] = path / "README.md"
    return Overlay(path.name, path, specs, files)


def read_environment(path: Path) -> Overlay:
    """Read the folder of an environment for users. Raises UserError if it is not one."""
    folder = replace(read_overlay(path), kind="environment")
    if not folder.brings_specs:
        raise UserError(f"{path} has no environment.yml", "see construct/environments/lab")
    return folder


@dataclass(frozen=True)
class Stack:
    """What a release is made from.

    A hub's: the repository at `root` and overlays on top of it, the first one lowest. One for users: `environment`
    alone, a folder like an overlay's.
    """

    root: Path
    overlays: tuple[Overlay, ...] = ()
    environment: Overlay | None = None

    @classmethod
    def of(cls, root: Path, overlays: Sequence[Path] = (), environment: Path | None = None) -> "Stack":
        """Return the stack of these folders. Raises UserError as `read_overlays` and `read_environment` do."""
        if environment is None:
            return cls(root, tuple(read_overlays(overlays)))
        if overlays:
            raise UserError("an environment for users has no overlays", "leave out --overlay or --environment")
        return cls(root, environment=read_environment(environment))

    @property
    def specs(self) -> list[str]:
        """Return what the environment is asked to hold, one spec a name, including the folders' own packages."""
        if self.environment:
            return merge_specs([*self.environment.specs, *self.own])
        base = environment_specs(self.root / "construct/environment.yml")
        on_top = [spec for overlay in self.overlays for spec in (*overlay.specs, overlay.package)]
        return merge_specs([*base, *on_top])

    @property
    def own(self) -> set[str]:
        """Return the packages made from this repository and the folders. They are in no lock: a commit pins them."""
        if self.environment:
            return {self.environment.package} if self.environment.files else set()
        return {"barehub", *(overlay.package for overlay in self.overlays)}

    @property
    def locked_in(self) -> Overlay | None:
        """Return the folder that holds the lock of the whole stack; None if the repository holds it."""
        return self.environment or next((overlay for overlay in reversed(self.overlays) if overlay.brings_specs), None)

    @property
    def title(self) -> str:
        """Return the stack in words: "hub environment", "hub environment with slurm" or "environment lab"."""
        if self.environment:
            return f"environment {self.environment.name}"
        return "hub environment" + "".join(f" with {overlay.name}" for overlay in self.overlays)

    @property
    def name(self) -> str:
        """Return what the environment of the lock is named."""
        return self.environment.name if self.environment else "barehub"

    @property
    def options(self) -> str:
        """Return the options that name the folders, for a command to copy."""
        if self.environment:
            return f" --environment {os.path.relpath(self.environment.path)}"
        return "".join(f" --overlay {os.path.relpath(overlay.path)}" for overlay in self.overlays)

    def lock_for(self, platform: str) -> Path:
        """Return the lock of one platform; that of x86_64 has the plain name that other programs look for."""
        if platform == PLAIN:
            return (self.locked_in.path if self.locked_in else self.root) / LOCK_NAME
        return (self.locked_in.path if self.locked_in else self.root / "construct") / f"environment.{platform}.lock.yml"

    @property
    def wheels(self) -> Path:
        """Return wheels.txt, the pinned wheels of the lock's packages."""
        return self.locked_in.path / "wheels.txt" if self.locked_in else self.root / "recipe/wheels.txt"


def build_overlay(overlay: Overlay, version: str, output: Path, timestamp: datetime) -> Path:
    """Make the folder's package in `output` and return its path. It depends on the folder's specs.

    That of an overlay depends on barehub, too.
    """
    with staging() as (stage, licences):
        for text in overlay.path.glob("LICEN[CS]E*"):
            shutil.copyfile(text, licences / text.name)
        for place, source in sorted(overlay.files.items()):
            target = stage / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
        metadata = CondaMetadata(
            name=overlay.package,
            version=version,
            build="py",
            depends=("python >=3.11", *(["barehub"] if overlay.kind == "overlay" else []), *overlay.specs),
            summary=f"The {overlay.kind} {overlay.name} of barehub",
        )
        return assemble(metadata, None, stage, licences, output, timestamp)
