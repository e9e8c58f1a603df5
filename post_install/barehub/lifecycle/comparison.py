"""What a newer release would change of the active one: the installer's --diff, and the facts that it needs.

The installer runs this file from its payload, with the active release's python:

    python -I -B -c THIS_FILE PREFIX BASE PLACE < release.json of the newer release

So it imports the standard library alone, works on releases that lack it, and writes nothing. A build asks it for the
`facts` of what it has filled, and release.json carries them.
"""

import ast
import difflib
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SITE_PACKAGES = "lib/python3*/site-packages"
ARCHIVE = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)-(?P<build>[^-]+?)(\.conda|\.tar\.bz2)")
# What the proxy's unit runs, beside the modules in barehub/proxy_unit/ and the rules that they share with the hub.
PROXY_PACKAGES = re.compile(r"(traefik|python)-\d")
PROXY_MODULES = ("proxy_unit/*.py", "proxy_unit/*.html", "notices.py", "rules.py")


@dataclass(frozen=True, order=True)
class Package:
    """A package, its version, and the tool that installed it: pip, conda, uv, ..."""

    name: str
    version: str
    installer: str


def shipped(receipt: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return version and build of each conda package that a release.json lists, by name."""
    names = (Path(file["path"]).name for file in receipt.get("files") or [])
    return {match["name"]: (match["version"], match["build"]) for match in map(ARCHIVE.fullmatch, names) if match}


def added(prefix: Path) -> list[Package]:
    """Return the packages in a release's prefix that did not come with it, sorted by name.

    What came with it is in its receipt. conda's packages are found by their records in conda-meta, pip's by the
    INSTALLER file of the recording-installed-packages specification.
    """
    return sorted({package for package, _ in sources(prefix)})


def sources(prefix: Path) -> Iterator[tuple[Package, Path]]:
    """Yield these packages, each with what tells of it: a record in conda-meta, or a .dist-info directory."""
    ours = {f"{name}-{version}-{build}" for name, (version, build) in shipped(read_receipt(prefix)).items()}
    for record in (prefix / "conda-meta").glob("*.json"):
        if record.stem not in ours and record.stem.count("-") > 1:
            name, version, _ = record.stem.rsplit("-", 2)
            yield Package(name, version, "conda"), record
    for directory in prefix.glob(f"{SITE_PACKAGES}/*.dist-info"):
        installer = directory / "INSTALLER"
        who = installer.read_text(errors="replace").strip() if installer.is_file() else "pip"
        if who != "conda":
            name, _, version = directory.name.removesuffix(".dist-info").partition("-")
            yield Package(name.replace("_", "-"), version, who or "pip"), directory


def read_receipt(prefix: Path) -> dict[str, Any]:
    return dict(json.loads((prefix / "share/barehub/release.json").read_text()))


def facts(prefix: Path) -> dict[str, Any]:
    """Return the names of the Python packages in a prefix.

    For a hub's prefix, return also the schema of its database, a hash of what the proxy runs, and the units' templates.
    """
    site = next(prefix.glob(SITE_PACKAGES), prefix)
    wheels = sorted({plain(one.name.partition("-")[0]) for one in site.glob("*.dist-info")})
    if not (site / "barehub").is_dir():
        return {"wheels": wheels}
    proxy = hashlib.sha256()
    for one in sorted(proxy_programs(prefix), key=repr):
        proxy.update(repr(one).encode())
    return {
        "wheels": wheels,
        "schema": newest_schema(site / "jupyterhub/alembic/versions"),
        "proxy": proxy.hexdigest(),
        "units": {path.name: path.read_text() for path in sorted((site / "barehub/units").glob("*.*"))},
    }


def proxy_programs(prefix: Path) -> set[str | bytes]:
    """Return what tells the programs of a prefix's proxy from those of another: packages, and modules' contents."""
    packages = {one.name for one in prefix.glob("conda-meta/*.json") if PROXY_PACKAGES.match(one.name)}
    modules = (one for name in PROXY_MODULES for one in prefix.glob(f"{SITE_PACKAGES}/barehub/{name}"))
    return packages | {one.read_bytes() for one in modules}


def newest_schema(versions: Path) -> str:
    """Return the revision of alembic's scripts that no other one follows; "" if there is not one.

    https://alembic.sqlalchemy.org/en/latest/tutorial.html#create-a-migration-script
    """
    found: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for script in versions.glob("*.py"):
        for node in ast.parse(script.read_bytes()).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                words = {one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant)}
                found.get(ast.unparse(target), set()).update(word for word in words if isinstance(word, str))
    newest = found["revision"] - found["down_revision"]
    return newest.pop() if len(newest) == 1 else ""


def report(prefix: Path, base: Path, place: str, new: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of --diff, for the active release in `prefix` and the release.json of the new one.

    `place` is the installer's file, for the commands.
    """
    receipt = read_receipt(prefix)
    old, label, name = prefix.resolve().name, str(new.get("version")), str(new.get("name"))
    yield from relation(str(receipt.get("name", name)), old, name, label, base, place)
    before, after = shipped(receipt), shipped(new)
    both = sorted(before.keys() & after.keys())
    moved = [one for one in both if before[one][0] != after[one][0]]
    yield from table("changed", [(one, f"{before[one][0]} -> {after[one][0]}") for one in moved])
    yield from table("added", [(one, after[one][0]) for one in sorted(after.keys() - before.keys())])
    yield from table("removed", [(one, before[one][0]) for one in sorted(before.keys() - after.keys())])
    built = [one for one in both if before[one][0] == after[one][0] and before[one] != after[one]]
    yield from table("the same version, built again", [(one, before[one][0]) for one in built])
    coming = new.get("facts") or {}
    names = {*coming.get("wheels", ()), *map(plain, after)}
    lost = [(one.name, f"{one.version} ({one.installer})") for one in added(prefix) if plain(one.name) not in names]
    yield from table("added by hand, and not carried over", lost)
    if before == after:
        yield from ("", "the packages are the same")
    if "schema" in coming:
        yield from effects(facts(prefix), coming, switches=old != label)


def relation(theirs: str, old: str, name: str, label: str, base: Path, place: str) -> Iterator[str]:
    """Yield what the new release is to the active one, and what could be done with it."""
    what, active = f"{name} {label}", f"{'' if theirs == name else f'{theirs} '}{old}, which is active in {base}"
    if key(label) < key(old):
        yield f"{what} is older than {active}: an upgrade to it is refused"
    elif theirs != name:
        yield f"{what} is another distribution than {active}; to replace that:"
        yield f"  sh {place} -u --from {theirs} -p {base}"
    elif label == old:
        yield f"{what} is active in {base}; to write its files again: sh {place} -f -p {base}"
    else:
        yield f"{what} is newer than {active}; to upgrade: sh {place} -u -p {base}"


def key(label: str) -> tuple[int, ...]:
    return tuple(int(number) for number in label.split(".") if number.isdigit())


def plain(name: str) -> str:
    """Return a package's name as PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def table(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    if rows:
        yield from ("", f"{title}:")
        width = max(len(name) for name, _ in rows)
        yield from (f"  {name:{width}}  {rest}" for name, rest in rows)


def effects(old: Mapping[str, Any], new: Mapping[str, Any], *, switches: bool) -> Iterator[str]:
    """Yield what of units, database, hub, proxy, and servers an upgrade changes or restarts.

    Both are `facts`. An upgrade goes by the same (barehub.lifecycle.switchover).
    """
    units, new_units = old.get("units") or {}, new["units"]
    if different := list(unit_changes(units, new_units)):
        yield from ("", "units:", *different)
    yield ""
    if not switches:
        yield "nothing restarts: this release is active"
        return
    if old.get("schema") == new["schema"]:
        yield f"database  schema {new['schema']}, as before: a backup is made, nothing is migrated"
    else:
        schemas = f"{old.get('schema') or 'unknown'} -> {new['schema']}"
        yield f"database  schema {schemas}: a backup is made, and a copy is migrated;"
        yield "          a database server (c.JupyterHub.db_url) is migrated in place; PostgreSQL is dumped first,"
        yield "          any other is yours to back up"
    yield "hub       restarts: it is away for 5 to 20 s, longer with a large database or a slow disk"
    if old.get("proxy") == new["proxy"] and units.get("proxy.service") == new_units.get("proxy.service"):
        yield "proxy     goes on"
    else:
        yield "proxy     restarts: new requests wait for up to 5 s, none is refused; open websockets reconnect"
    yield "servers   go on, with their kernels"


def unit_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Yield each unit whose template differs, with the lines that do, other than comments."""
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            yield f"  {name} {'is new' if name in new else 'goes'}"
        elif old[name] != new[name]:
            lines = list(difflib.ndiff(directives(old[name]), directives(new[name])))
            changed = [f"    {line}" for line in lines if line.startswith(("- ", "+ "))]
            yield from (f"  {name}" + ("" if changed else ": comments only"), *changed)


def directives(unit: str) -> list[str]:
    """Return the lines of a template that set something; those that depend on the hub's account as well."""
    lines = (re.sub(r"^@IF_\w+@", "", line) for line in unit.splitlines())
    return [line for line in lines if line.strip() and not line.startswith("#")]


def main() -> None:
    prefix, base, place = sys.argv[1:4]
    try:
        print("\n".join(report(Path(prefix), Path(base), place, json.load(sys.stdin))))
    except (OSError, ValueError) as error:
        sys.exit(f"error: the active release cannot be read: {error}\n  fix: repair it with its own installer and -f")


if __name__ == "__main__":
    main()
