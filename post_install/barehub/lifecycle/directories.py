"""The directories of an installation: who owns them, and who may read them."""

import os

from barehub import accounts
from barehub.accounts import ensure_directory
from barehub.lifecycle.servers import ensure_token
from barehub.process import write_atomically
from barehub.settings import Installation


def ensure_directories(installation: Installation) -> None:
    """Make every directory, with the owner and mode that hub and proxy need.

    No other account may look inside, except at what tells where users' servers run from. Files of an account that was
    chosen before change their owner. Raises UserError for a link in place of a directory.
    """
    layout, settings = installation.layout, installation.settings
    root = (os.geteuid(), os.getegid())
    hub = accounts.ids(settings.hub_user)
    # Without systemd the account may not exist yet; it becomes the owner of its directories once it does.
    proxy = accounts.ids(settings.proxy_user) if accounts.exists(settings.proxy_user) else root
    shared = (hub[0], proxy[1])  # with setgid: the proxy's group can read what the hub writes there
    ensure_config(installation)
    ensure_directory(layout.units, 0o755, *root, least=0o700)
    ensure_directory(layout.state, 0o755, *root, least=0o711)  # hub and proxy have to get through
    for path, mode, owner in (
        (layout.hub_state, 0o700, hub),
        (layout.rules, 0o2750, shared),
        (layout.rules_staging, 0o2750, shared),
        (layout.proxy_state, 0o750, (root[0], proxy[1])),
        (layout.acme, 0o700, proxy),
        (layout.in_use.parent, 0o755, hub),
    ):
        ensure_directory(path, mode, *owner)
    ensure_token(layout, *hub)
    if not layout.in_use.exists():
        write_atomically(layout.in_use, "", 0o644)  # nothing is in use; without the file, nobody knows
    accounts.chown_file(layout.in_use, *hub)
    for path in layout.hub_state.iterdir():
        accounts.chown_file(path, *hub)
    for path in layout.acme.iterdir():
        accounts.chown_file(path, *proxy)
    accounts.chown_file(layout.rules_file, *shared)


def ensure_config(installation: Installation) -> None:
    """Make the directory of the configuration, which may hold secrets, for root and the hub's account alone.

    One that exists stays as closed, or as open, as it is; but the hub's account has to get in.
    """
    path, hub_user = installation.layout.config, installation.settings.hub_user
    new = not path.exists()
    group = accounts.ids(hub_user)[1] if os.geteuid() == 0 else os.getegid()
    if new:
        ensure_directory(path, 0o750, os.geteuid(), group)
        return
    found = path.stat()
    is_open = found.st_mode & 0o005 == 0o005  # to everybody, the hub's account among them
    keep = is_open or hub_user == "root" or os.geteuid() != 0
    if not keep and found.st_mode & 0o050 == 0o050:  # or to a group that this account is in
        keep = found.st_gid in os.getgrouplist(hub_user, group)
    least = 0o700 if keep else 0o750
    ensure_directory(path, 0o2755, os.geteuid(), found.st_gid if keep else group, least=least)
