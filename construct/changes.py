"""`release.py diff`: what changed between two locks or two installers, in words; also as a release's notes.

Standard library only, as construct/verify.py.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from construct.contents import Package, read_directory, read_installer, read_lock_file

# What an admin looks for first.
LEADING = ("jupyterhub-base", "jupyterhub-traefik-proxy", "traefik", "python")


@dataclass(frozen=True)
class Side:
    """One of the two: what it is called, its packages by name, and for an installer what it asks of a machine."""

    title: str
    packages: dict[str, Package]
    facts: dict[str, str]


@dataclass(frozen=True)
class Change:
    """A package that is on both sides, but not the same; `kind` is a word for it."""

    name: str
    old: str
    new: str
    kind: str


def diff(old: Path, new: Path, *, markdown: bool) -> str:
    """The changes from `old` to `new`, each a lock, an installer or an unpacked one. UserError for others."""
    before, after = read_side(old), read_side(new)
    return render_markdown(before, after) if markdown else render_plain(before, after)


def read_side(path: Path) -> Side:
    if path.suffix in (".yml", ".yaml"):
        return Side(str(path), read_lock_file(path), {})
    contents = read_directory(path) if path.is_dir() else read_installer(path)
    release = contents.release
    engine = release.get("engine") or {}
    facts = {
        "distribution": str(release.get("name")),
        "platform": str(release.get("platform")),
        "needs glibc": f">= {release.get('glibc')}",
        "engine": f"{engine.get('name')} {engine.get('version')}",
        "overlays": ", ".join(release.get("overlays") or []) or "none",
        "size": f"{sum(file['size'] for file in release.get('files') or []) / 1e6:.0f} MB",
    }
    return Side(f"{release.get('name')} {release.get('version')}", contents.lock, facts)


def changes(old: Side, new: Side) -> list[Change]:
    """What is on both sides in another version or build, what an admin looks for first at the top."""
    found = []
    for name in old.packages.keys() & new.packages.keys():
        before, after = old.packages[name], new.packages[name]
        if before.version != after.version:
            found.append(Change(name, before.version, after.version, kind(name, before.version, after.version)))
        elif before.build and after.build and (before.build, before.sha256) != (after.build, after.sha256):
            found.append(Change(name, f"{before.version} {before.build}", f"{after.version} {after.build}", "rebuilt"))
    return sorted(found, key=lambda one: (not_leading(one.name), one.kind == "rebuilt", one.name))


def not_leading(name: str) -> int:
    return LEADING.index(name) if name in LEADING else len(LEADING)


def kind(name: str, old: str, new: str) -> str:
    """Either "older", "major" or "" for two versions that differ; only their numbers are looked at.

    Many packages have a year in front, so only of those that an admin knows a new major version is worth a word.
    """
    before, after = numbers(old), numbers(new)
    if after < before:
        return "older"
    return "major" if name in LEADING and after[:1] > before[:1] else ""


def numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"[0-9]+", version.partition("!")[2] or version)]


def only_in(one: Side, other: Side) -> list[Package]:
    return [one.packages[name] for name in sorted(one.packages.keys() - other.packages.keys())]


def words(old: Side, new: Side) -> Iterator[str]:
    """Sentences for an admin about what these changes mean."""
    for change in changes(old, new):
        if change.name == "jupyterhub-base" and change.kind == "major":
            yield f"JupyterHub {change.old} -> {change.new} is a new major version: read its upgrade notes."
            yield "Updating migrates the hub's database, of which a copy is kept; `barehub rollback` goes back to it."
    for fact in old.facts.keys() & new.facts.keys():
        if fact in ("distribution", "platform") and old.facts[fact] != new.facts[fact]:
            yield f"These are for another {fact}: {old.facts[fact]} and {new.facts[fact]}."


def facts(old: Side, new: Side) -> list[tuple[str, str, str]]:
    """Name, old and new value of what is not the same about two installers."""
    return [(name, old.facts[name], value) for name, value in new.facts.items() if old.facts.get(name, value) != value]


def render_plain(old: Side, new: Side) -> str:
    changed, added, removed = changes(old, new), only_in(new, old), only_in(old, new)
    lines = [f"from {old.title} to {new.title}"]
    lines += table("changed", [(one.name, f"{one.old} -> {one.new}", one.kind) for one in changed])
    lines += table("added", [(one.name, one.version) for one in added])
    lines += table("removed", [(one.name, one.version) for one in removed])
    lines += table("the installer", [(name, f"{before} -> {after}") for name, before, after in facts(old, new)])
    if len(lines) == 1:
        lines += ["", "no differences: the same packages, version by version"]
    if said := list(words(old, new)):
        lines += ["", *said]
    return "\n".join(lines) + "\n"


def table(title: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines with aligned columns under a title; none without rows."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    cells = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return ["", f"{title}:", *(f"  {line}" for line in cells)]


def render_markdown(old: Side, new: Side) -> str:
    changed, added, removed = changes(old, new), only_in(new, old), only_in(old, new)
    lines = [f"## Changes since {old.title}", ""]
    if said := list(words(old, new)):
        lines += [*said, ""]
    if different := facts(old, new):
        lines += [*(f"- {name}: {before} -> {after}" for name, before, after in different), ""]
    if changed:
        lines += ["| package | from | to | |", "| --- | --- | --- | --- |"]
        lines += [f"| {one.name} | {one.old} | {one.new} | {one.kind} |" for one in changed] + [""]
    for title, packages in (("Added", added), ("Removed", removed)):
        if packages:
            lines += [f"{title}: {', '.join(f'{one.name} {one.version}' for one in packages)}.", ""]
    if not (changed or added or removed):
        lines += ["The packages are the same, version by version.", ""]
    return "\n".join(lines).rstrip() + "\n"
