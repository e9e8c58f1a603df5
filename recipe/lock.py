"""`release.py lock`: chooses versions anew and writes them down.

Three files come of it: recipe/wheels.txt with the wheels of the hub environment, environment.lock.yml with the
environment they make, and the requirements of the tools that build and test it.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path

import yaml
from packaging.version import Version

from recipe import pins
from recipe.metadata import conda_name, conda_version, pypi_name
from recipe.report import say

NOT_WHEELS = ("python", "barehub")  # the interpreter that runs release.py, and post_install/
ALONE = ("conda-ship",)  # declares conda, which its `cs` does not need and PyPI does not have

HEADER = """\
# The hub environment: the version of every package. Written by `python3 release.py lock`; do not edit.
# The wheels are pinned by sha256 in recipe/wheels.txt, whose own sha256 is
#   {wheels_sha256}
# Python is the interpreter that release.py runs on: CPython {pythons}.
# Builds and sha256 of the packages made from these are in the copy of this file in each installer.
"""


def lock_all(root: Path) -> None:
    """Write all of the locks. Raises UserError if there is no set of versions that work together."""
    groups = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]
    for group, path in (("tools", root / "recipe/tools.txt"), ("test", root / "tests/requirements.txt")):
        say(f"pinning the {group} group of pyproject.toml")
        wanted = [one for one in groups[group] if one not in ALONE]
        pinned = pins.pin(wanted, alone=[one for one in groups[group] if one in ALONE])
        path.write_text(pins.render(pinned, f"The `{group}` group of pyproject.toml, for release.py's .venv."))

    say("pinning the hub environment")
    roots = [spec.split()[0] for spec in environment_specs(root / "construct/environment.yml")]
    pinned = pins.pin([pypi_name(name) for name in roots if name not in NOT_WHEELS])
    wheels = root / "recipe/wheels.txt"
    wheels.write_text(pins.render(pinned, "The wheels that the hub environment is made of."))
    lock = root / "environment.lock.yml"
    lock.write_text(render(versions_of(pinned, own_version(root)), wheels))
    say(f"wrote {lock.name} and {wheels.relative_to(root)} with {len(pinned)} wheels; look at: git diff")


def environment_specs(path: Path) -> list[str]:
    """The loose specs of construct/environment.yml."""
    return list(yaml.safe_load(path.read_text())["dependencies"])


def own_version(root: Path) -> str:
    """barehub's version, read without importing it."""
    for line in (root / "post_install/barehub/__init__.py").read_text().splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise AssertionError("post_install/barehub/__init__.py has no __version__")


def versions_of(pinned: Mapping[str, pins.Pin], barehub: str) -> dict[str, str]:
    """Conda name and version of every package that is not python."""
    versions = {conda_name(name): conda_version(Version(pin.version)) for name, pin in pinned.items()}
    return dict(sorted({**versions, "barehub": barehub}.items()))


def render(versions: Mapping[str, str], wheels: Path) -> str:
    """The text of environment.lock.yml: a plain conda environment file."""
    sha256 = hashlib.sha256(wheels.read_bytes()).hexdigest()
    header = HEADER.format(wheels_sha256=sha256, pythons=", ".join(pins.PYTHONS))
    lines = ["name: barehub", "channels:", "  - ./channel", "dependencies:", "  - python>=3.11"]
    lines += [f"  - {name}=={version}" for name, version in versions.items()]
    return header + "\n".join(lines) + "\n"
