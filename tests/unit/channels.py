"""Makes small conda channels, repositories and overlays for the tests."""

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from construct.index import write_index
from recipe.channel import TIMESTAMP
from recipe.convert import assemble
from recipe.metadata import CondaMetadata, Target

ROOT = Path(__file__).parents[2]
# What barehub's own package asks for.
BASE = ("bcrypt", "jupyterhub-base", "jupyterhub-traefik-proxy", "sqlalchemy", "tornado", "traitlets")
# Stands in for conda-forge: two versions of each package; the newer tornado needs a newer glibc than the usual target.
FORGE = [
    ("python", "3.12.1", ()),
    *((name, version, ()) for name in BASE[:4] for version in ("1.0", "2.0")),
    ("traitlets", "1.0", ()),
    ("traitlets", "2.0", ()),
    ("tornado", "6.0", ("__glibc >=2.17",)),
    ("tornado", "7.0", ("__glibc >=2.34",)),
    ("extra", "1.0", ()),
]

Packages = Sequence[tuple[str, str, tuple[str, ...]]]


def write_channel(
    channel: Path, packages: Packages, platform: str = "linux-64", timestamp: datetime = TIMESTAMP
) -> Path:
    """Add (name, version, dependencies) to the channel, each with one file that holds name and version."""
    for subdir in ("noarch", platform):
        (channel / subdir).mkdir(parents=True, exist_ok=True)
    scratch = channel.with_name(f"{channel.name}.scratch")
    for name, version, depends in packages:
        stage, licences = scratch / "stage", scratch / "licences"
        stage.mkdir(parents=True)
        licences.mkdir()
        (stage / name).write_text(f"{name} {version}")
        metadata = CondaMetadata(name, version, "", depends, license="MIT")
        assemble(metadata, Target("3.11", platform=platform), stage, licences, channel / platform, timestamp)
        shutil.rmtree(scratch)
    write_index(channel)
    return channel


def write_repository(root: Path) -> Path:
    """Write a repository like this one, whose environment FORGE has."""
    (root / "construct").mkdir(parents=True)
    (root / "recipe").mkdir()
    specs = ["python >=3.11", "jupyterhub-base", "barehub"]
    (root / "construct/environment.yml").write_text("dependencies:\n" + "".join(f"  - {one}\n" for one in specs))
    shutil.copytree(ROOT / "post_install", root / "post_install", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "LICENSE", root / "LICENSE")
    (root / ".cache").mkdir()
    return root


def write_overlay(folder: Path, *specs: str, **files: str) -> Path:
    """Write an overlay with an environment.yml if there are specs; in the name of a file `__` stands for a slash."""
    folder.mkdir(parents=True)
    if specs:
        (folder / "environment.yml").write_text("dependencies:\n" + "".join(f"  - {one}\n" for one in specs))
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
