"""Which advisories touch which packages, by the rules of OSV's format: https://ossf.github.io/osv-schema/#evaluation

release.py imports this file; the installer's --audit runs it from its payload, with the active release's python:

    python -I -B -c THIS_FILE PREFIX ACTIVE NEW < advisories.json, as `construct.advisories` writes it

So it imports nothing but the standard library and `packaging`, which JupyterHub brings.
"""

import functools
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

TRAEFIK = "github.com/traefik/traefik"
INTERPRETER = "python and the libraries in it"  # no ecosystem of OSV's has its versions
# At one version: what is fixed there and introduced again is affected, and so is the last affected version itself.
ORDER = ("fixed", "introduced", "last_affected")


@dataclass(frozen=True)
class Hit:
    """An advisory that touches a package. names: its identifier, then its aliases."""

    package: str
    version: str
    names: tuple[str, ...]
    severity: str
    summary: str

    @classmethod
    def of(cls, advisory: Mapping[str, Any], package: str, version: str) -> "Hit":
        names = (advisory["id"], *advisory["aliases"])
        return cls(package, version, names, advisory["severity"], advisory["summary"])

    def joined(self, other: "Hit") -> "Hit":
        """Return both as one."""
        names = tuple(sorted({*self.names, *other.names}, key=lambda name: (not name.startswith("GHSA"), name)))
        return replace(
            self, names=names, severity=self.severity or other.severity, summary=self.summary or other.summary
        )

    def among(self, known: Set[tuple[str, str]]) -> bool:
        return any((self.package, name) in known for name in self.names)

    @property
    def row(self) -> tuple[str, ...]:
        others = f" ({', '.join(self.names[1:])})" if self.names[1:] else ""
        return (f"{self.package.partition('/')[2]} {self.version}", self.names[0] + others, self.severity, self.summary)


def python_key(name: str) -> str:
    """Return what a package of PyPI is called here: its ecosystem and its normalised name (PEP 503)."""
    return f"PyPI/{canonicalize_name(name)}"


def traefik_key(version: str) -> str:
    """Return the same of traefik. Of a Go module the path has the major version from 2 on (go.dev/ref/mod)."""
    major = Version(version).major
    return f"Go/{TRAEFIK}/v{major}" if major > 1 else f"Go/{TRAEFIK}"


def judge(advisories: Sequence[Mapping[str, Any]], packages: Mapping[str, str]) -> tuple[list[Hit], list[str]]:
    """Return the advisories that touch `packages`, versions by key, and one line for each that cannot be decided.

    What several databases say of one thing, as their aliases tell, is one hit.
    """
    found: list[Hit] = []
    undecided = []
    for advisory in advisories:
        try:
            keys = touched(advisory, packages)
        except ValueError as error:
            undecided.append(str(error))
            continue
        for key in keys:
            hit = Hit.of(advisory, key, packages[key])
            same = [one for one in found if one.package == key and set(one.names) & set(hit.names)]
            found = [one for one in found if one not in same]
            found.append(functools.reduce(Hit.joined, same, hit))
    return sorted(found, key=lambda one: (one.package, one.names)), undecided


def touched(advisory: Mapping[str, Any], packages: Mapping[str, str]) -> list[str]:
    """Return the keys of `packages` that an advisory touches. Raises ValueError if it cannot be decided."""
    found = []
    for affected in advisory["affected"]:
        key = affected["key"]
        try:
            if key in packages and key not in found and includes(affected, Version(packages[key])):
                found.append(key)
        except ValueError as error:
            raise ValueError(f"{advisory['id']} for {key} {packages[key]}: {error}") from None
    return found


def includes(affected: Mapping[str, Any], version: Version) -> bool:
    """Return True if an entry of an advisory includes the version. Raises ValueError if it cannot be decided."""
    if not (affected["versions"] or affected["ranges"]):
        raise ValueError("it names commits and no versions")
    listed = any(is_same(one, version) for one in affected["versions"])
    return listed or any(in_range(events, version) for events in affected["ranges"])


def is_same(text: str, version: Version) -> bool:
    try:
        return Version(text) == version
    except InvalidVersion:  # from before PEP 440: no version that has one is the same
        return False


def in_range(events: Sequence[tuple[str, str]], version: Version) -> bool:
    """Return True if the events, each a kind and a version, leave the version affected. Raises InvalidVersion."""
    limits = [text == "*" or version < Version(text) for kind, text in events if kind == "limit"]
    steps = [(version_at(text), ORDER.index(kind)) for kind, text in events if kind in ORDER]
    affected = False
    for at, kind in sorted(steps):
        if ORDER[kind] == "introduced" and version >= at:
            affected = True
        elif (ORDER[kind] == "fixed" and version >= at) or (ORDER[kind] == "last_affected" and version > at):
            affected = False
    return affected and (not limits or any(limits))


def version_at(text: str) -> Version:
    """Return an event's version; "0" is before all versions."""
    return Version("0.dev0" if text == "0" else text)


def table(found: Sequence[Hit]) -> list[str]:
    """Return one line for each, in columns."""
    rows = [one.row for one in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    return [
        "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]


def installed(prefix: Path) -> dict[str, str]:
    """Return the packages in a prefix that advisories can be about, those added by hand as well: versions by key."""
    site = [str(path) for path in prefix.glob("lib/python3*/site-packages")]
    names = ((one.metadata.get("Name"), one.version) for one in importlib.metadata.distributions(path=site))
    found = {python_key(name): str(version) for name, version in names if name and not name.startswith("barehub")}
    for record in prefix.glob("conda-meta/traefik-*-*.json"):
        version = record.name.split("-")[1]
        found[traefik_key(version)] = version
    return found


def report(prefix: Path, active: str, new: str, known: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of --audit: what the active release has of what the new one knows, and what the new one has."""
    old, packages = installed(prefix), known["packages"]
    advisories = known["advisories"]
    (before, wrong), (after, also_wrong) = judge(advisories, old), judge(advisories, packages)
    yield f"{new} knows {len(advisories)} advisories about its packages, the newest of {known['newest']}"
    if known["skipped"]:
        yield f"  {known['skipped']} could not be read when it was built"
    had, has = names_of(before), names_of(after)
    fixed = [one for one in before if not one.among(has)]
    stay = [one for one in before if one.among(has)]
    fresh = [one for one in after if not one.among(had)]
    for title, found in (
        (f"the active release, {active}, has these, and {new} has not", fixed),
        (f"the active release, {active}, has these, and so has {new}", stay),
        (f"{new} has these, and the active release, {active}, has not", fresh),
    ):
        if found:
            yield from ("", f"{title}:", *(f"  {line}" for line in table(found)))
    if not (fixed or stay or fresh):
        yield f"the active release, {active}, has none of them, nor has {new}"
    yield ""
    yield from (f"not decided: {what}" for what in sorted({*wrong, *also_wrong}))
    more = sorted(key.removeprefix("PyPI/") for key in old.keys() - packages.keys() if TRAEFIK not in key)
    yield f"not looked for: {', '.join((INTERPRETER, *more))}"


def names_of(found: Sequence[Hit]) -> set[tuple[str, str]]:
    return {(one.package, name) for one in found for name in one.names}


def main() -> None:
    prefix, active, new = sys.argv[1:4]
    print("\n".join(report(Path(prefix), active, new, json.load(sys.stdin))))


if __name__ == "__main__":
    main()
