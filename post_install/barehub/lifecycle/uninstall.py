"""`barehub uninstall`: stop everything and leave the machine as it was before the install."""

import contextlib
import shutil
from collections.abc import Callable

from barehub import accounts, systemd
from barehub.errors import BASE, USAGE, UserError
from barehub.layout import Layout
from barehub.process import locked
from barehub.settings import Settings


def uninstall(layout: Layout, *, sure: bool, ask: Callable[[str], str], say: Callable[[str], None]) -> None:
    """Remove an installation: units, account, BASE with all its state. Asks first unless `sure`.

    Raises UserError if there is none, or if the answer is no.
    """
    settings = Settings.load(layout)
    if settings is None:
        raise UserError(f"{layout.base} holds no barehub", "nothing was removed", BASE)
    managed = systemd.systemd_runs(layout)
    say(f"this removes {layout.base} with its database and configuration")
    if managed:
        say(f"  and the units {', '.join(settings.units)}")
        if settings.created_account:
            say(f"  and the account {settings.created_account}")
        say("servers that the default spawner started on this machine go on until their users stop them")
    if not sure and ask("remove all of it? [no] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing was removed", "answer yes, or give -y", USAGE)
    with locked(layout.base):
        if managed:
            systemd.unlink_units(layout, settings)
            if settings.created_account:
                accounts.remove_account(settings.created_account)
        for entry in layout.base.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    with contextlib.suppress(OSError):  # a mount point, or not ours to remove from the directory above
        layout.base.rmdir()
    say(f"{layout.base} is {'empty' if layout.base.exists() else 'gone'}")
