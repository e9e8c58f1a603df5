"""What users' servers run from, told to every account: BASE/state/environments/in-use, one prefix in a line.

The account that installs an environment may ask neither the hub nor the machines where servers run. Its installer reads
this file before it removes a release (construct/environment.sh).
"""

import logging
from pathlib import Path
from typing import Any

from barehub.environments import STATE
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.process import write_atomically

servers: dict[tuple[str, str], str] = {}  # a user's name, and the server's -> prefix


def note(spawner: Any, state: dict[str, Any]) -> None:
    """Tell what a server runs from, as its spawner's state has it; an empty state is that of a server that has ended.

    Spawners call it whenever they load their state, or return it to JupyterHub, which does so at each start and end.
    """
    kept, name = state.get(STATE), (spawner.user.name, spawner.name)
    prefix = kept.get("prefix") if isinstance(kept, dict) else None
    if (prefix or None) == servers.get(name):
        return
    servers.pop(name, None)
    if prefix:
        servers[name] = str(prefix)
    try:
        tell(Layout.from_environment().in_use)
    except (OSError, UserError) as error:  # no reason not to start a server
        logging.getLogger("JupyterHub").warning("nobody is told which environments are in use: %s", error)


def tell(place: Path) -> None:
    """Write what all servers run from. Raises OSError."""
    write_atomically(place, "".join(f"{prefix}\n" for prefix in sorted({*servers.values()})), 0o644)
