"""`barehub uninstall`: stop everything and leave the machine as it was before the first install."""

import contextlib
import shutil
from collections.abc import Callable

from barehub import accounts, selinux, systemd
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.process import locked
from barehub.settings import Installation


def uninstall(layout: Layout, *, sure: bool, ask: Callable[[str], str], say: Callable[[str], None]) -> None:
    """Remove an installation: units, account, BASE with all its state. Asks first unless `sure`.

    Raises UserError if there is none, or if the answer is no.
    """
    installation = Installation.load(layout, fix="nothing was removed")
    settings = installation.settings
    managed = systemd.systemd_runs(layout)
    say(f"this removes {layout.base} with its database and configuration")
    if managed:
        say(f"  and the units {', '.join(settings.units)}")
        if settings.created_account:
            say(f"  and the account {settings.created_account}")
        say("servers that the default spawner started on this machine keep running until their users stop them")
    if not sure and ask("remove all of it? [no] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing was removed", "answer yes, or give -y", Exit.USAGE)
    with locked(layout.base):
        if managed:
            systemd.unlink_units(installation)
            selinux.forget_files(installation)
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
