"""`barehub uninstall`: stop everything and leave the machine as it was before the install."""

import shutil
from collections.abc import Callable

from barehub import accounts, systemd
from barehub.errors import BASE, USAGE, UserError
from barehub.layout import Layout
from barehub.settings import Settings


def uninstall(layout: Layout, *, sure: bool, ask: Callable[[str], str], say: Callable[[str], None]) -> None:
    """Remove an installation: units, account, BASE with all its state. Asks first unless `sure`.

    Raises UserError if there is none, or if the answer is no.
    """
    settings = Settings.load(layout)
    if settings is None:
        raise UserError(f"{layout.base} holds no barehub", "nothing was removed", BASE)
    managed = systemd.systemd_runs(layout)
    say(
        f"this removes {layout.base} with its database and configuration"
        + (f", the units {', '.join(settings.units)}" if managed else "")
        + (f", the account {settings.proxy_user}" if managed and settings.created_user else "")
    )
    if managed:
        say("servers that the default spawner started on this machine end with their sessions")
    if not sure and ask("remove all of it? [no] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing was removed", "answer yes, or give -y", USAGE)
    if managed:
        systemd.unlink_units(layout, settings)
        if settings.created_user:
            accounts.remove_account(settings.proxy_user)
    shutil.rmtree(layout.base)
    say(f"{layout.base} is gone")
