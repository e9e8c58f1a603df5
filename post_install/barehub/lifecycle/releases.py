"""The releases side by side in BASE/releases: which is active, how another becomes it, which may go."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from barehub.layout import Layout
from barehub.process import sync_directory
from barehub.settings import Settings
from barehub.systemd import ensure_link, property_of

# What the proxy's unit runs, beside the modules in barehub/proxy_unit/.
PROXY_PACKAGES = re.compile(r"(traefik|python)-\d")


def switch(layout: Layout, release: str) -> None:
    """Make `release` the active one. Readers see the old or the new, never neither."""
    ensure_link(layout.hub, layout.release(release).relative_to(layout.base))


def proxy_differs(old: Path, new: Path) -> bool:
    """True if the proxy of one prefix runs other programs than the one of the other."""

    def programs(prefix: Path) -> set[str | bytes]:
        packages = {one.name for one in prefix.glob("conda-meta/*.json") if PROXY_PACKAGES.match(one.name)}
        modules = prefix.glob("lib/python3*/site-packages/barehub/proxy_unit/*.py")
        return packages | {one.read_bytes() for one in modules}

    return programs(old) != programs(new)


def remove_older(layout: Layout, settings: Settings, previous: str, *, keep: int, say: Callable[[str], None]) -> None:
    """Remove the oldest releases and their backups, so that `keep` releases stay; say what is gone.

    The active release stays, then the one before it, then the newest ones. So does one that the proxy still runs from.
    """
    others = [label for label in reversed(layout.complete) if label not in (layout.active, previous)]
    kept = [layout.active, previous, *others][: max(keep, 1)]
    for label in layout.complete:
        if label in kept:
            continue
        if label == proxy_release(layout, settings):
            say(f"kept {label}: the proxy runs from it until its next restart")
            continue
        say(f"removing release {label}")
        # Without its receipt it is no release any more; what a power cut leaves of it is removed by the next installer.
        layout.receipt(label).unlink()
        sync_directory(layout.receipt(label).parent)
        shutil.rmtree(layout.release(label))
    for backup in layout.backups.glob("jupyterhub-[0-9]*.sqlite"):
        if backup.stem.removeprefix("jupyterhub-") not in layout.complete:
            say(f"removing backup {backup}")
            backup.unlink()


def proxy_release(layout: Layout, settings: Settings) -> str | None:
    """The release that the running proxy was started from; None if it does not run."""
    pid = property_of(settings.proxy_unit, "MainPID")
    try:
        return Path(f"/proc/{pid}/exe").readlink().relative_to(layout.releases.resolve()).parts[0]
    except (OSError, ValueError):
        return None
