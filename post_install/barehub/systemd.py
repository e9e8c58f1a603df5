"""The systemd units: rendered from the real files in barehub/units into BASE/systemd, and linked from there."""

import os
import re
from pathlib import Path

from barehub.errors import USAGE, UserError
from barehub.layout import Layout
from barehub.process import attempt, output, sync_directory, write_atomically
from barehub.settings import Settings

TEMPLATES = Path(__file__).parent / "units"

MARK = "Part of barehub"  # stands at the top of each unit

# A unit with a User= and any of these gets NoNewPrivileges (systemd.exec(5)), and then sudo no longer works in it.
WITHOUT_ROOT = "# not for a hub that may call sudo: "


def systemd_runs(layout: Layout) -> bool:
    """True if systemd is the machine's init (sd_booted(3)) and this process may command it."""
    return os.geteuid() == 0 and (layout.root / "run/systemd/system").is_dir()


def render(template: str, **values: str) -> str:
    """Fill in @NAME@ placeholders; one without a value is a KeyError."""
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], template)


def rendered(layout: Layout, settings: Settings) -> dict[str, str]:
    """The text of each unit, by its name."""
    values = {
        "NAME": settings.name,
        "BASE": str(layout.base),
        "HUB_USER": settings.hub_user,
        "PROXY_USER": settings.proxy_user,
        "IF_ROOT": "" if settings.hub_user == "root" else WITHOUT_ROOT,
    }
    sources = ("barehub.target", "hub.service", "proxy.service", "certificates.timer", "certificates.service")
    return {
        unit: render((TEMPLATES / source).read_text(), **values)
        for unit, source in zip(settings.units, sources, strict=True)
    }


def write_units(layout: Layout, settings: Settings) -> list[str]:
    """Have this release's units in its prefix; return the names of those that are not what is in use.

    They become the ones in use when `hub` leads to the release: one rename switches hub, proxy and units.
    """
    changed = []
    layout.release_units.mkdir(mode=0o755, exist_ok=True)
    for name, text in rendered(layout, settings).items():
        if not (layout.units / name).is_file() or (layout.units / name).read_text() != text:
            changed.append(name)
        write_atomically(layout.release_units / name, text)
    return changed


def link_units(layout: Layout, settings: Settings) -> None:
    """Have BASE/systemd lead to the active release's units, and to nothing that another release had."""
    here = Path("..") / layout.hub.name / layout.release_units.name
    for name in settings.units:
        if (layout.units / here / name).exists():
            ensure_link(layout.units / name, here / name)
    for place in layout.units.iterdir():
        if place.is_symlink() and not place.exists():
            place.unlink()


def enable_units(layout: Layout, settings: Settings) -> bool:
    """Have systemd know the units in BASE/systemd as they are now, and start them at boot. True if they are copies.

    A link to another file system leads nowhere when systemd looks for its units at boot, so there they are copied.
    """
    copied = layout.base.stat().st_dev != layout.root.stat().st_dev
    for name in known_units(layout, settings):
        place = layout.system_units / name
        if not (layout.units / name).exists():  # a newer release's, or an older one's
            attempt("systemctl", "stop", name)
            place.unlink(missing_ok=True)
            (layout.units / name).unlink(missing_ok=True)
        elif copied:
            if place.is_symlink():
                place.unlink()
            write_atomically(place, (layout.units / name).read_text())
        else:
            ensure_link(place, layout.units / name)
    output("systemctl", "daemon-reload")
    output("systemctl", "enable", settings.target)
    return copied


def known_units(layout: Layout, settings: Settings) -> list[str]:
    """This release's units, and those that another one has put into systemd's directory."""
    others = (place.name for place in layout.system_units.glob(f"{settings.name}-*") if is_ours(layout, place))
    return [*settings.units, *(name for name in others if name not in settings.units)]


def is_ours(layout: Layout, place: Path) -> bool:
    """True for a unit, link or copy, of this installation."""
    if place.is_symlink():
        return place.readlink() == layout.units / place.name
    return place.is_file() and MARK in (text := place.read_text()) and f"RequiresMountsFor={layout.base}\n" in text


def ensure_link(place: Path, target: Path) -> None:
    """Have a link at `place`, whatever was there; it is never missing."""
    if place.is_symlink() and place.readlink() == target:
        return
    staged = place.with_name(f".{place.name}.new")
    staged.unlink(missing_ok=True)
    staged.symlink_to(target)
    staged.replace(place)
    sync_directory(place.parent)


def unlink_units(layout: Layout, settings: Settings) -> None:
    """Stop the units and make systemd forget them; fine if it never knew them."""
    units = known_units(layout, settings)
    attempt("systemctl", "disable", "--now", *units)
    for name in units:
        (layout.system_units / name).unlink(missing_ok=True)
    attempt("systemctl", "daemon-reload")
    attempt("systemctl", "reset-failed", *settings.units)


def property_of(unit: str, name: str) -> str:
    """One property of a unit, as `systemctl show` prints it; empty if there is no systemd."""
    return attempt("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def require_no_foreign_units(layout: Layout, settings: Settings) -> None:
    """Refuse to take over units of this name that are not ours. A link that leads nowhere belongs to nobody any more.

    Raises UserError.
    """
    for name in settings.units:
        place = layout.system_units / name
        if not place.exists():
            continue
        ours = place.readlink() == layout.units / name if place.is_symlink() else MARK in place.read_text()
        if not ours:
            owner = place.readlink() if place.is_symlink() else "somebody else"
            raise UserError(f"{place} belongs to {owner}", "choose another --name", USAGE)
