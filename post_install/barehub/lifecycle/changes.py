"""Whether a run of the hooks has changed anything: what is installed before it, compared with what is after it."""

from pathlib import Path

from barehub.lifecycle.database import own_database
from barehub.settings import Installation
from barehub.systemd import property_of

NONE = "nothing changed"


def observe(installation: Installation, *, managed: bool) -> dict[str, object]:
    """Return what an administrator would call changed if it differed, by its name; `managed` where systemd runs."""
    layout, settings = installation.layout, installation.settings
    made = (*layout.state.glob("*"), layout.state, layout.config, layout.units, layout.rules_staging)
    units = [*layout.units.glob("*"), *layout.system_units.glob(f"{settings.name}[.-]*")]
    wanted = layout.system_units.glob(f"*.wants/{settings.target}")
    found: dict[str, object] = {
        "release": layout.active,
        "settings": text_of(layout.record),
        "configuration": text_of(layout.installer_config),
        "units": {str(path): text_of(path) for path in (*units, *wanted)},
        "directories": {str(path): access_of(path) for path in (*made, layout.api_token)},
        "database": own_database(layout).exists(),
    }
    if managed:
        found |= {
            name: [property_of(unit, what) for what in ("ActiveState", "InvocationID")]
            for name, unit in (("hub", settings.hub_unit), ("proxy", settings.proxy_unit))
        }
    return found


def text_of(path: Path) -> str | None:
    return path.read_text(errors="replace") if path.is_file() else None


def access_of(path: Path) -> tuple[int, int, int] | None:
    if not path.exists():
        return None
    found = path.stat()
    return found.st_mode, found.st_uid, found.st_gid


def last_line(before: dict[str, object], after: dict[str, object], *more: str) -> str:
    """Return the installer's last line, the same for people and programs; `more` has changed as well."""
    changed = [name for name, value in after.items() if value != before.get(name)]
    changed += [name for name in more if name not in changed]
    return f"changed: {', '.join(changed)}" if changed else NONE
