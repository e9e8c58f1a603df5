"""The oldest glibc that a release runs on, and what raises it."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from construct.measure import Measured
from construct.systems import lost, parse_glibc
from recipe.elf import glibc_version, is_elf
from recipe.errors import UserError
from recipe.report import say
from recipe.standalone import is_standalone


def parse_limit(text: str | None) -> tuple[int, int] | None:
    """Return the limit that --glibc states, None if it states none. Raises UserError if it is not a version."""
    try:
        return parse_glibc(text) if text else None
    except ValueError:
        raise UserError(f"{text} is not a version of glibc", "write it like --glibc 2.28") from None


def require_floor(prefix: Path, limit: tuple[int, int] | None) -> None:
    """Check that nothing in the filled prefix needs a newer glibc than `limit`.

    Raises UserError that names the files that do, with their packages.
    """
    if limit is None:
        return
    above = {path: version for path in prefix.rglob("*") if is_elf(path) and (version := glibc_version(path)) > limit}
    if not above:
        return
    packages = owners_of(prefix)
    rows = [
        "  {}.{}  {} ({})".format(*version, path.relative_to(prefix), packages.get(str(path.relative_to(prefix)), "?"))
        for path, version in sorted(above.items(), key=lambda one: (one[1], one[0]), reverse=True)[:10]
    ]
    raise UserError(
        "\n".join([f"{len(above)} files need a newer glibc than {limit[0]}.{limit[1]}:", *rows]),
        "build with the portable interpreter (--python-mirror), or lock an older version of the package",
    )


def owners_of(prefix: Path) -> dict[str, str]:
    """Return the package that brings each file of a prefix, by its path there."""
    owners: dict[str, str] = {}
    for path in (prefix / "conda-meta").glob("*.json"):
        record = json.loads(path.read_text())
        owners |= dict.fromkeys(record["files"], f"{record['name']} {record['version']}")
    return owners


def is_reach_lost(channels: Sequence[str], any_python: bool) -> bool:
    """Return whether this build ships the interpreter that happens to run it, unasked."""
    return not channels and not any_python and not is_standalone(Path(sys.base_prefix))


def warn_at_first() -> None:
    """Say at the start of a build what it costs that the portable interpreter is missing."""
    say(
        f"WARNING: this build ships the interpreter of this machine, {sys.base_prefix}/bin/python3, which decides how "
        "old a system may be. The portable one: --python-mirror DIR; to be asked nothing: --python this"
    )


def warn_at_last(measured: Measured) -> None:
    """Say at the end of a build what it did cost."""
    out = lost(measured.glibc)
    if out:
        say(f"WARNING: runs on glibc >= {measured.glibc_version} only: not on {out}.")
        say("  fix: build with the portable interpreter: --python-mirror, or BAREHUB_PYTHON_MIRROR")
