"""The releases side by side in BASE/releases: how another becomes active, and which are removed."""

import contextlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from barehub.layout import Layout
from barehub.process import sync_directory
from barehub.settings import Installation
from barehub.systemd import ensure_link, property_of

# What the proxy's unit runs, beside the modules in barehub/proxy_unit/ and the rules that they share with the hub.
PROXY_PACKAGES = re.compile(r"(traefik|python)-\d")


def switch(layout: Layout, release: str) -> None:
    """Make `release` the active one. Readers see the old or the new, never neither."""
    ensure_link(layout.hub, layout.release(release).relative_to(layout.base))


def proxy_differs(old: Path, new: Path) -> bool:
    """Return True if the proxies of two prefixes run different programs."""

    def programs(prefix: Path) -> set[str | bytes]:
        packages = {one.name for one in prefix.glob("conda-meta/*.json") if PROXY_PACKAGES.match(one.name)}
        names = ("proxy_unit/*.py", "proxy_unit/*.html", "notices.py", "rules.py")
        modules = (one for name in names for one in prefix.glob(f"lib/python3*/site-packages/barehub/{name}"))
        return packages | {one.read_bytes() for one in modules}

    return programs(old) != programs(new)


def remove_older(installation: Installation, previous: str, *, keep: int, say: Callable[[str], None]) -> None:
    """Remove the oldest releases and their backups, so that `keep` releases stay; report what is removed.

    The active release stays, then `previous`, then the newest ones; and the one that the proxy still runs from.
    """
    layout = installation.layout
    others = [label for label in reversed(layout.complete) if label not in (layout.active, previous)]
    kept = [layout.active, previous, *others][: max(keep, 1)]
    for label in layout.complete:
        if label in kept:
            continue
        if label == proxy_release(installation):
            say(f"kept {label}: the proxy runs from it until its next restart")
            continue
        say(f"removing release {label}")
        # Without its receipt it is not complete, and the next installer removes what a power cut leaves of it.
        layout.receipt(label).unlink()
        sync_directory(layout.receipt(label).parent)
        shutil.rmtree(layout.release(label))
    remove_backups(layout, say)


def remove_backups(layout: Layout, say: Callable[[str], None]) -> None:
    """Remove the backups of releases that are gone. The directory is the hub's account's: no link is followed."""
    try:
        directory = os.open(layout.backups, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        for name in sorted(os.listdir(directory)):  # noqa: PTH208 - of a descriptor
            found = re.fullmatch(r"jupyterhub-([0-9][0-9.]*)\.(sqlite|dump)", name)
            if found and found[1] not in layout.complete:
                with contextlib.suppress(OSError):  # a directory, say
                    os.unlink(name, dir_fd=directory)
                    say(f"removed backup {layout.backups / name}")
    finally:
        os.close(directory)


def proxy_release(installation: Installation) -> str | None:
    """Return the release that the running proxy was started from; None if it does not run."""
    pid = property_of(installation.settings.proxy_unit, "MainPID")
    try:
        return Path(f"/proc/{pid}/exe").readlink().relative_to(installation.layout.releases.resolve()).parts[0]
    except (OSError, ValueError):
        return None
