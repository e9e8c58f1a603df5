"""`release.py diff`: what changed between two locks or two installers, for a reader or as release notes.

Standard library only: it runs on a bare Python.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from construct.contents import read_directory, read_installer
from recipe.lock_file import Line, Lock

ROOT = Path(__file__).parents[1]
# What an administrator looks for first.
LEADING = ("jupyterhub-base", "jupyterhub-traefik-proxy", "traefik", "python")


@dataclass(frozen=True)
class Side:
    """One of the two: its title, its packages by name, and for an installer what it needs and consists of.

    commit: what an installer was built from, without the mark of uncommitted changes; empty if that is not known.
    """

    title: str
    packages: Mapping[str, Line]
    facts: dict[str, str]
    commit: str = ""


@dataclass(frozen=True)
class Change:
    """A package that differs between the two sides. kind: "older", "major", "rebuilt" or ""."""

    name: str
    old: str
    new: str
    kind: str


def diff(old: Path, new: Path, *, markdown: bool) -> str:
    """Return the changes from `old` to `new`. Each is a lock or an installer, packed or unpacked.

    Raises UserError for anything else.
    """
    before, after = read_side(old), read_side(new)
    if not markdown:
        return render_plain(before, after)
    return render_markdown(before, after, commit_subjects(ROOT, before.commit, after.commit))


def read_side(path: Path) -> Side:
    """Read a lock or an installer. Raises UserError for anything else."""
    if path.suffix in (".yml", ".yaml"):
        return Side(str(path), Lock.read(path).lines, {})
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
    commit = str(release.get("commit") or "").removesuffix("-dirty")
    return Side(f"{release.get('name')} {release.get('version')}", contents.lock.lines, facts, commit)


def commit_subjects(root: Path, old: str, new: str) -> list[str]:
    """Return the subjects of the commits from `old` to `new`, newest first; none if the checkout lacks one."""
    if not (old and new):
        return []
    words = ["git", "-C", str(root), "log", "--no-merges", "--format=%s", f"{old}..{new}", "--"]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git here
        return []
    return done.stdout.splitlines()


def changes(old: Side, new: Side) -> list[Change]:
    """Return what differs in version or build, with what an administrator looks for first at the top."""
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
    """Return "older", "major" or "" for two versions that differ, judged by their numbers only.

    Many packages begin with the year, so a new major version is reported only of what an administrator knows by name.
    """
    before, after = version_numbers(old), version_numbers(new)
    if after < before:
        return "older"
    return "major" if name in LEADING and after[:1] > before[:1] else ""


def version_numbers(version: str) -> list[int]:
    """Return the numbers in a version, without its epoch."""
    return [int(part) for part in re.findall(r"[0-9]+", version.partition("!")[2] or version)]


def only_in(one: Side, other: Side) -> list[Line]:
    return [one.packages[name] for name in sorted(one.packages.keys() - other.packages.keys())]


def words(old: Side, new: Side) -> Iterator[str]:
    """Yield sentences for an administrator about what these changes mean."""
    for change in changes(old, new):
        if change.name == "jupyterhub-base" and change.kind == "major":
            yield f"JupyterHub {change.old} -> {change.new} is a new major version: read its upgrade notes."
            yield "An upgrade migrates the hub's database and keeps a copy; `barehub rollback` goes back to that."
    for fact in old.facts.keys() & new.facts.keys():
        if fact in ("distribution", "platform") and old.facts[fact] != new.facts[fact]:
            yield f"These are for another {fact}: {old.facts[fact]} and {new.facts[fact]}."


def facts(old: Side, new: Side) -> list[tuple[str, str, str]]:
    """Return name, old and new value of each fact that differs between two installers."""
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
    """Return lines with aligned columns under a title; none if there are no rows."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    cells = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return ["", f"{title}:", *(f"  {line}" for line in cells)]


def render_markdown(old: Side, new: Side, commits: Sequence[str]) -> str:
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
    if commits:
        lines += ["### Changes to barehub itself", "", *(f"- {subject}" for subject in commits), ""]
    return "\n".join(lines).rstrip() + "\n"
