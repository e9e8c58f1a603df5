"""Pins Python wheels: from requirements to exact versions and sha256 for every supported CPython.

pip resolves the requirements. Two of its habits need care:

- it evaluates environment markers for the interpreter that runs it, whatever `--python-version` says, so the additional
  requirements of other Pythons are found here;
- of several wheels it prefers the one for the newest glibc, so the platforms are listed oldest first.

The result is written in pip's own format (https://pip.pypa.io/en/stable/reference/requirements-file-format/), which
`pip install --require-hashes` and `pip download --require-hashes` enforce.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from recipe import metadata
from recipe.errors import UserError
from recipe.standalone import THIS_MACHINE

# The first one decides the versions; for the others there must be a wheel of exactly these.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")

# The first one decides here, too. A lock has the wheels of both.
MACHINES = tuple(metadata.MACHINES.values())

# https://peps.python.org/pep-0600/ and its legacy aliases, oldest glibc first. 2.28 is Enterprise Linux 8.
MANYLINUX = (
    *("manylinux1", "manylinux_2_5", "manylinux2010", "manylinux_2_12", "manylinux2014", "manylinux_2_17"),
    *("manylinux_2_24", "manylinux_2_26", "manylinux_2_27", "manylinux_2_28"),
)


@dataclass
class Pin:
    """One distribution of the resolved set: its version, the sha256 of its wheels, and its dependencies."""

    version: str
    sha256: set[str]
    requires: list[Requirement] = field(default_factory=list)
    extras: frozenset[str] = frozenset()


def wheel_platform_options(python: str, machine: str) -> list[str]:
    """Return pip's options that select wheels for CPython `python` ("3.12") on Linux with glibc on `machine`."""
    platforms = (f"--platform={tag}_{machine}" for tag in MANYLINUX)
    return ["--only-binary=:all:", f"--python-version={python}", *platforms]


def pip(*arguments: str | os.PathLike[str]) -> str:
    """Run this interpreter's pip, quietly, with the machine's pip configuration; return its stdout.

    Raises UserError with the last lines that pip printed if it fails.
    """
    words = [sys.executable, "-m", "pip", "--disable-pip-version-check", *(os.fspath(one) for one in arguments)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        fix = "check the network and pip's configuration (pip config list); changed pins: python3 release.py lock"
        if "upload-time metadata" in done.stderr:
            fix = "choose versions of any age: python3 release.py lock --days-old 0"
        raise UserError("pip failed:\n  " + "\n  ".join(errors[-12:]), fix)
    return done.stdout


def download(requirements: Path, directory: Path, python: str, machine: str = THIS_MACHINE) -> None:
    """Download the wheels that a hash-pinned requirements file lists, for CPython `python` on `machine`."""
    pip(
        *("download", "--quiet", "--no-deps", "--require-hashes"),
        *(f"--dest={directory}", f"--requirement={requirements}"),
        *wheel_platform_options(python, machine),
    )


def resolve(
    requirements: Iterable[str],
    python: str,
    machine: str = MACHINES[0],
    *,
    dependencies: bool = True,
    held: Mapping[str, Pin] | None = None,
) -> dict[str, Pin]:
    """Return the wheel that pip chooses for each requirement, and for their `dependencies` unless that is False.

    Of the distributions in `held` pip can choose only these versions.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(f"{name}=={pin.version}\n" for name, pin in (held or {}).items())
        constraints.flush()
        report = pip(
            *("install", "--quiet", "--dry-run", "--ignore-installed", "--report=-", "--target=unused"),
            *wheel_platform_options(python, machine),
            *(() if dependencies else ("--no-deps",)),
            f"--constraint={constraints.name}",
            *requirements,
        )
    return {
        canonicalize_name(item["metadata"]["name"]): Pin(
            version=item["metadata"]["version"],
            sha256={item["download_info"]["archive_info"]["hashes"]["sha256"]},
            requires=[Requirement(text) for text in item["metadata"].get("requires_dist", ())],
            extras=frozenset(item.get("requested_extras", ())),
        )
        for item in json.loads(report)["install"]
    }


def missing_for(python: str, machine: str, pins: Mapping[str, Pin]) -> list[str]:
    """Return the requirements of `pins` that apply to CPython `python` on `machine` and that none of `pins` meets."""
    target = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine}
    return [
        str(requirement)
        for pin in pins.values()
        for requirement in pin.requires
        if canonicalize_name(requirement.name) not in pins
        and (
            requirement.marker is None
            or any(requirement.marker.evaluate({**target, "extra": extra}) for extra in ("", *pin.extras))
        )
    ]


def pin(
    requirements: Sequence[str],
    *,
    alone: Sequence[str] = (),
    held: Mapping[str, Pin] | None = None,
    machines: Sequence[str] = MACHINES,
) -> dict[str, Pin]:
    """Pin `requirements` and all they depend on, and the distributions `alone` without their dependencies.

    A pin in `held` that is needed stays as it is. Returns the pins by PEP 503 name, sorted; each holds the sha256 of
    the wheel for every Python in PYTHONS on each of `machines`. Raises UserError if one of these has no wheel of the
    chosen version.
    """
    held = held or {}
    targets = [(python, machine) for machine in machines for python in PYTHONS]
    wanted = list(requirements)
    while True:
        pins = resolve(wanted, PYTHONS[0], held=held)
        missing = sorted({text for target in targets for text in missing_for(*target, pins)})
        if not missing:
            break
        wanted += [text.split(";")[0].strip() for text in missing]
    if alone:
        pins |= resolve(alone, PYTHONS[0], dependencies=False)
    exact = [f"{name}=={pin.version}" for name, pin in pins.items()]
    for target in targets[1:]:
        for name, other in resolve(exact, *target, dependencies=False).items():
            pins[name].sha256 |= other.sha256
    for name in pins.keys() & held.keys():  # more wheels of a version may have been published since
        pins[name].sha256 = held[name].sha256
    return dict(sorted(pins.items()))


def render(pins: Mapping[str, Pin], title: str) -> str:
    """Return the text of a requirements file in pip's hash-checking format."""
    lines = [f"# {title}", "# Written by `python3 release.py lock`; do not edit."]
    for name, one in pins.items():
        lines.append(f"{name}=={one.version} \\")
        lines += [f"    --hash=sha256:{digest} \\" for digest in sorted(one.sha256)]
        lines[-1] = lines[-1].removesuffix(" \\")
    return "\n".join(lines) + "\n"


def read(path: Path) -> dict[str, Pin]:
    """Read what `render` wrote. Raises UserError for anything else."""
    pins: dict[str, Pin] = {}
    for line in path.read_text().replace(" \\\n", " ").splitlines():
        if not line or line.startswith("#"):
            continue
        spec, *hashes = line.split()
        name, equal, version = spec.partition("==")
        digests = {word.removeprefix("--hash=sha256:") for word in hashes}
        if not equal or not digests or any(len(digest) != 64 for digest in digests):
            raise UserError(f"{path}: not a pinned requirement: {spec}", "python3 release.py lock")
        pins[name] = Pin(version, digests)
    return pins
