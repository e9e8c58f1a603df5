"""The packages that an administrator has added to a release by hand, and that another release lacks.

    python -m barehub.lifecycle.added_packages

lists those in the prefix of this python.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from barehub.errors import Exit, UserError
from barehub.lifecycle.comparison import Package, added


def has(prefix: Path, package: Package) -> bool:
    """Return True if this package, in any version, is in a prefix."""
    stem = package.name.replace("-", "_")
    return any(prefix.glob(f"conda-meta/{package.name}-[0-9]*.json")) or any(
        directory.name.lower().startswith(f"{stem.lower()}-")
        for directory in prefix.glob("lib/python3*/site-packages/*.dist-info")
    )


def report_added(old: Path, new: Path, *, required: bool, say: Callable[[str], None]) -> None:
    """List the packages that were added to the prefix `old` and are missing in `new`, and how to carry them over.

    Raises UserError if there are any and they are `required`.
    """
    missing = [package for package in added(old) if not has(new, package)]
    if not missing:
        return
    what = f"added to {old.name} by hand and not in {new.name}: " + ", ".join(
        f"{one.name} {one.version} ({one.installer})" for one in missing
    )
    specs = " ".join(f"{one.name}=={one.version}" for one in missing)
    command = f"{new}/bin/python -m pip install {specs}"
    without_network = "with no network: --no-index --find-links=DIR-OF-WHEELS"
    if required:
        raise UserError(what, f"{command} ({without_network}); then run this again", Exit.HOOK)
    say(what)
    say(f"  to carry them over: {command}")
    say(f"  ({without_network})")


def main() -> None:
    print(", ".join(f"{one.name} {one.version} ({one.installer})" for one in added(Path(sys.prefix))))


if __name__ == "__main__":
    main()
