"""The systemd units: rendered from the real files in barehub/units into BASE/systemd, and linked from there."""

import os
import re
import shlex
from pathlib import Path

from barehub import selinux
from barehub.accounts import current_user
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.process import attempt, output, sync_directory, write_atomically
from barehub.settings import Installation

TEMPLATES = Path(__file__).parent / "units"

MARK = "Part of barehub"  # stands at the top of each unit

# A unit with a User= and any of these gets NoNewPrivileges (systemd.exec(5)), and then sudo no longer works in it.
WITHOUT_ROOT = "# not for a hub that may call sudo: "

# What takes a capability or a mount namespace: a unit of a user's own systemd does not start with it (systemd.exec(5)).
NOT_FOR_USERS = re.compile(
    r"^(User|AmbientCapabilities|CapabilityBoundingSet|(Protect|Private)\w+|(ReadOnly|ReadWrite|Inaccessible)Paths"
    r"|DevicePolicy|RemoveIPC|(No)?ExecPaths)=.*\n",
    re.MULTILINE,
)


def scope() -> tuple[str, ...]:
    """Return the option that names the systemd to talk to: root's is the machine's, a user's is its own instance."""
    if os.geteuid() == 0:
        return ()
    runtime_directory()
    return ("--user",)


def runtime_directory() -> str:
    """Return where this user's own systemd listens (pam_systemd(8)).

    Whoever came by su or a batch job has no such variable; systemctl needs it, so it is set from now on.
    """
    return os.environ.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")


def systemd_runs(layout: Layout) -> bool:
    """Return True if there is a systemd that this account controls: the machine's (sd_booted(3)) or a user's own."""
    if os.geteuid() == 0:
        return (layout.root / "run/systemd/system").is_dir()
    return (layout.root / runtime_directory().lstrip("/") / "systemd/private").exists()


def control(*words: str | Path) -> str:
    """Run systemctl for the systemd that is ours; return what it printed. Raises UserError if it fails."""
    return output("systemctl", *scope(), *words)


def try_control(*words: str | Path) -> None:
    """Run systemctl, and go on whether it fails or not."""
    attempt("systemctl", *scope(), *words)


def advice(program: str, *words: str) -> str:
    """Return a command for people to type, such as `systemctl --user restart UNIT`."""
    return " ".join((program, *scope(), *words))


def lingers() -> bool:
    """Return True if our units run whether or not anybody is logged in: root's do, a user's with lingering."""
    return os.geteuid() == 0 or Path("/var/lib/systemd/linger", current_user()).exists()


def require_version(minimum: int) -> None:
    """Check the version of systemd, which is all that decides what of our units it follows. Raises UserError."""
    found = re.match(r"systemd (\d+)", output("systemctl", "--version"))
    version = int(found[1]) if found else 0
    if version < minimum:
        raise UserError(
            f"this system has systemd {version or 'of no version'}, which is too old: {minimum} is needed",
            "use a newer system, or give -s to fill the prefix only",
            Exit.PLATFORM,
        )


def render(template: str, **values: str) -> str:
    """Replace @NAME@ placeholders; one without a value is a KeyError."""
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], template)


def rendered(installation: Installation, *, for_root: bool | None = None) -> dict[str, str]:
    """Return the text of each unit, by name; by default for the systemd of the account of this process."""
    for_root = os.geteuid() == 0 if for_root is None else for_root
    layout, settings = installation.layout, installation.settings
    values = {
        "NAME": settings.name,
        "BASE": str(layout.base),
        "HUB_USER": settings.hub_user,
        "PROXY_USER": settings.proxy_user,
        "IF_ROOT": "" if settings.hub_user == "root" else WITHOUT_ROOT,
        "IF_USER": "# root can do that: " if settings.hub_user == "root" else "",
    }
    sources = ("barehub.target", "hub.service", "proxy.service", "certificates.timer", "certificates.service")
    texts = (render((TEMPLATES / source).read_text(), **values) for source in sources)
    return {unit: text if for_root else for_user(text) for unit, text in zip(settings.units, texts, strict=True)}


def for_user(unit: str) -> str:
    """Return the unit's text for a user's own systemd, with all of the sandbox that this can make."""
    unit = NOT_FOR_USERS.sub("", unit).replace("/bin/systemctl ", "/bin/systemctl --user ")
    return unit.replace("WantedBy=multi-user.target", "WantedBy=default.target")


def write_units(installation: Installation) -> list[str]:
    """Write this release's units into its prefix; return the names of those that differ from the ones in use.

    They come into use when `hub` points to the release: one rename switches hub, proxy and units.
    """
    layout = installation.layout
    changed = []
    layout.release_units.mkdir(mode=0o755, exist_ok=True)
    for name, text in rendered(installation).items():
        if not (layout.units / name).is_file() or (layout.units / name).read_text() != text:
            changed.append(name)
        write_atomically(layout.release_units / name, text)
    return changed


def link_units(installation: Installation) -> None:
    """Make BASE/systemd link to the active release's units, and to none that only another release had."""
    layout, settings = installation.layout, installation.settings
    here = Path("..") / layout.hub.name / layout.release_units.name
    for name in settings.units:
        if (layout.units / here / name).exists():
            ensure_link(layout.units / name, here / name)
    for place in layout.units.iterdir():
        if place.is_symlink() and not place.exists():
            place.unlink()


def enable_units(installation: Installation) -> str:
    """Make systemd load the units in BASE/systemd as they are now, and start them at boot.

    Return why they are copied and not linked; empty if they are linked.
    """
    layout, settings = installation.layout, installation.settings
    layout.system_units.mkdir(parents=True, exist_ok=True)
    copied = reason_to_copy(layout)
    for name in known_units(installation):
        place = layout.system_units / name
        if not (layout.units / name).exists():  # a newer release's, or an older one's
            try_control("stop", name)
            place.unlink(missing_ok=True)
            (layout.units / name).unlink(missing_ok=True)
        elif copied:
            if place.is_symlink():
                place.unlink()
            write_atomically(place, (layout.units / name).read_text())
        else:
            ensure_link(place, layout.units / name)
    control("daemon-reload")
    # By path, and each of them: before 250 systemd does not follow Also= to units that are links, and refuses.
    there = [layout.units / name for name in settings.units if (layout.units / name).exists()]
    control("enable", *([settings.target] if copied else there))
    return copied


def reason_to_copy(layout: Layout) -> str:
    """Return why units that are links would not do here; empty if they do."""
    if os.geteuid() == 0 and layout.base.stat().st_dev != layout.root.stat().st_dev:
        return f"{layout.base} is on a file system of its own"  # not mounted yet when systemd loads its units
    if selinux.is_enforcing(layout):
        return "SELinux is enforcing"
    return ""


def known_units(installation: Installation) -> list[str]:
    """Return this release's units, and those that another release has put into systemd's directory."""
    layout, settings = installation.layout, installation.settings
    others = (place.name for place in layout.system_units.glob(f"{settings.name}-*") if is_ours(layout, place))
    return [*settings.units, *(name for name in others if name not in settings.units)]


def is_ours(layout: Layout, place: Path) -> bool:
    """Return True for a unit, link or copy, of this installation."""
    if place.is_symlink():
        return place.readlink() == layout.units / place.name
    return place.is_file() and MARK in (text := place.read_text()) and f"RequiresMountsFor={layout.base}\n" in text


def ensure_link(place: Path, target: Path) -> None:
    """Make `place` a link to `target`, whatever was there; it is never missing in between."""
    if place.is_symlink() and place.readlink() == target:
        return
    staged = place.with_name(f".{place.name}.new")
    staged.unlink(missing_ok=True)
    staged.symlink_to(target)
    staged.replace(place)
    sync_directory(place.parent)


def unlink_units(installation: Installation) -> None:
    """Stop the units and make systemd forget them; do nothing for units it does not know."""
    layout, settings = installation.layout, installation.settings
    units = known_units(installation)
    try_control("disable", "--now", *units)
    for name in units:
        (layout.system_units / name).unlink(missing_ok=True)
    try_control("daemon-reload")
    try_control("reset-failed", *settings.units)


def property_of(unit: str, name: str) -> str:
    """Return one property of a unit, as `systemctl show` prints it; empty if there is no systemd."""
    return attempt("systemctl", *scope(), "show", "--value", f"--property={name}", unit).stdout.strip()


def environment_of(unit: str) -> dict[str, str]:
    """Return what Environment= and EnvironmentFile= of a unit set, as far as this account can read the files."""
    text = property_of(unit, "Environment")
    try:
        words = shlex.split(text)
    except ValueError:  # before 250 systemd prints them without quotes
        words = text.split()
    for line in property_of(unit, "EnvironmentFiles").splitlines():
        path = Path(line.rpartition(" (ignore_errors=")[0])
        lines = path.read_text(errors="replace").splitlines() if path.is_file() and os.access(path, os.R_OK) else []
        words += [line.strip() for line in lines if line.strip()[:1] not in ("#", ";")]
    pairs = (word.partition("=") for word in words if "=" in word)
    return {name.strip(): unquoted(value.strip()) for name, _, value in pairs}


def unquoted(value: str) -> str:
    """Return a value without the quotes around it."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def require_no_foreign_units(installation: Installation, fix: str = "choose another --name") -> None:
    """Check that no unit of these names belongs to another program. A dangling link belongs to nobody any more.

    Raises UserError, with this fix, if one does.
    """
    layout, settings = installation.layout, installation.settings
    for name in settings.units:
        place = layout.system_units / name
        if not place.exists():
            continue
        ours = place.readlink() == layout.units / name if place.is_symlink() else MARK in place.read_text()
        if not ours:
            owner = place.readlink() if place.is_symlink() else "another program"
            raise UserError(f"{place} belongs to {owner}", fix, Exit.USAGE)
