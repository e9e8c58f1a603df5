"""A second hub beside the one that runs: a copy of its database and its configuration, in units of its own.

Everything of it is below BASE/.staging/rehearsal, which is a BASE to it, and in systemd's directory of units that do
not outlive a boot. `isolation` keeps it away from users' servers. Its units are the release's own, with the site's
changes to them. In addition, they see BASE/state as read-only, end all that they have started, and end by themselves
after a while, should nobody end them.
"""

import contextlib
import fnmatch
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from barehub import systemd
from barehub.config import config_files
from barehub.errors import Exit, UserError
from barehub.evaluation import Evaluated, evaluate, hub_environment
from barehub.health import Endpoints
from barehub.layout import Layout
from barehub.lifecycle.database import asked, forget_servers, own_database, require_room, run_as_hub_user, used_by
from barehub.lifecycle.database_urls import sqlite_file, without_password
from barehub.lifecycle.directories import ensure_directories
from barehub.lifecycle.options import Request, requested_lines, write_lines
from barehub.lifecycle.ports import port_is_free, reserved_ports
from barehub.lifecycle.releases import switch
from barehub.lifecycle.safe_ports import SAFE, can_listen
from barehub.process import signals_later, write_atomically
from barehub.settings import Installation

MINUTES = 20  # after which the units end in any case
STOP_SECONDS = 60  # for the hub to stop the server that it has started
# What the second hub has of its own in the hub's directory; what else is there is the site's.
OWN_FILES = ("*.sqlite*", "backups", "jupyterhub_cookie_secret", "traefik-api.json", "barehub-api-token", ".*")
# What a site's changes of a unit may name is the real one's, too: its log, its directory in /run, what it ends with.
DROP_IN = """\
[Service]
Restart=no
RuntimeMaxSec={minutes}min
StandardOutput=journal
StandardError=journal
RuntimeDirectoryPreserve=yes
ExecStop=
ExecStopPost=
ReadOnlyPaths={real}/state
"""
HUB_DROP_IN = f"""{DROP_IN}\
KillMode=mixed
TimeoutStopSec={{stop}}s
ReadWritePaths={{base}}/state
"""
PROXY_DROP_IN = f"""{DROP_IN}\
ExecPaths={{real}}
"""


@dataclass(frozen=True)
class SecondHub:
    """The copy of an installation: where it is, with names of its own, and what the configuration says in it."""

    real: Installation
    copy: Installation
    environment: dict[str, str]  # of the hub's unit
    found: Evaluated

    @property
    def source(self) -> Path | None:
        """The file of the database in use; None if it is not SQLite's."""
        if sqlite_file(self.found.db_url, self.copy.layout) == own_database(self.copy.layout):
            return used_by(self.real.layout, self.real.layout.active)
        return sqlite_file(self.found.db_url, self.real.layout)

    def copy_database(self) -> list[str] | None:
        """Copy the database, migrate the copy, and remove the servers from it; return those that ran.

        Returns None if there is nothing to copy: no database yet, or one that is not SQLite's.
        """
        source, target = self.source, own_database(self.copy.layout)
        if not (source and source.exists()):
            return None
        require_room(source, self.real.layout.base)
        run_as_hub_user(self.copy.settings, "migrate", source=str(source), target=str(target))
        return list(asked(self.copy.settings, forget_servers, target))

    def configure(self) -> Endpoints:
        """Let the copy's configuration be that of a rehearsal; return where its hub will answer."""
        layout, there = self.copy.layout, urlsplit(self.found.endpoints.hub).hostname or ""
        public, api, hub = free_ports(self.real, there)
        url = f"http://127.0.0.1:{public}{urlsplit(self.found.endpoints.public).path}"
        details = {
            "database": str(own_database(layout)),
            "cookie_secret": str(layout.cookie_secret),
            "bind_url": url,
            "api_url": f"http://127.0.0.1:{api}",
        }
        last = max((path.name for path in config_files(layout)), default="")
        text = f"from barehub.lifecycle.isolation import isolate\n\nisolate(c, hub_port={hub}, **{details!r})\n"
        write_atomically(layout.config / f"{last}~rehearsal.py", text)
        found = evaluate(layout, self.copy.settings, self.environment, rehearsal=False)
        if found.db_url != f"sqlite:///{details['database']}" or found.endpoints.public != url:
            what = f"{layout.config} would let a second hub use {without_password(found.db_url)}"
            raise UserError(what, "look for what sets db_url or bind_url there")
        return found.endpoints

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run both units in the block. Afterwards neither they nor their files are there, nor what they started."""
        settings = self.copy.settings
        both = (settings.hub_unit, settings.proxy_unit)
        try:
            systemd.try_control("stop", *both)  # those of an installer that was killed
            write_units(self.real, self.copy)
            systemd.control("daemon-reload")
            systemd.control("start", settings.hub_unit)
            yield
        finally:
            with signals_later():
                systemd.try_control("stop", *both)
                remove_units(self.copy)
                systemd.try_control("daemon-reload")
                systemd.try_control("reset-failed", *both)


@contextlib.contextmanager
def second_hub(real: Installation, request: Request) -> Iterator[SecondHub]:
    """Make the directories and the configuration of a second hub, of the requested release; remove them afterwards.

    Raises UserError if another installation has the names of its units, which would be stopped.
    """
    staging = real.layout.base / ".staging"
    layout = Layout(staging / "rehearsal", root=real.layout.root, prefix=real.layout.prefix)
    copy = Installation(layout, replace(real.settings, name=f"{real.settings.name}-rehearsal"))
    systemd.require_no_foreign_units(copy, "upgrade without --rehearse and --canary")
    try:
        staging.mkdir(mode=0o755, exist_ok=True)
        shutil.rmtree(layout.base, ignore_errors=True)  # of an installer that was killed
        layout.base.mkdir(mode=0o755)
        layout.releases.symlink_to(real.layout.releases)
        switch(layout, request.release)
        copy.settings.save(layout)
        ensure_directories(copy)
        link_site_files(real.layout, layout)
        if lines := requested_lines(request):
            write_lines(own_file(layout.installer_config), lines, lambda _: None)
        environment = hub_environment(real.layout, real.settings)
        yield SecondHub(real, copy, environment, evaluate(layout, copy.settings, environment, rehearsal=False))
    finally:
        with signals_later():
            shutil.rmtree(layout.base, ignore_errors=True)
            with contextlib.suppress(OSError):  # the installer has something there
                staging.rmdir()


def link_site_files(real: Layout, copy: Layout) -> None:
    """Link what the site has put beside its configuration, and into the hub's directory, which it may name."""
    for there, here, ours in ((real.config, copy.config, ()), (real.hub_state, copy.hub_state, OWN_FILES)):
        for path in there.iterdir():
            if not any(fnmatch.fnmatch(path.name, pattern) for pattern in ours):
                (here / path.name).symlink_to(path)


def own_file(path: Path) -> Path:
    """Make a link a file of its own, with the same content; return it."""
    if path.is_symlink():
        text = path.read_text()
        path.unlink()
        path.write_text(text)
    return path


def free_ports(real: Installation, hub_host: str) -> tuple[int, int, int]:
    """Return free ports for people, for traefik's API, and for the hub at its host. Raises UserError if there are none.

    The hub's is one that no other account can take, if possible.
    """
    try:
        with socket.create_server(("127.0.0.1", 0)) as public, socket.create_server(("127.0.0.1", 0)) as api:
            family = socket.AF_INET6 if ":" in hub_host else socket.AF_INET
            with socket.create_server((hub_host.strip("[]"), 0), family=family) as hub:
                ports = [one.getsockname()[1] for one in (public, api, hub)]
    except OSError as error:
        raise UserError(f"there is no free port: {error}", "ss -ltn shows who has them", Exit.PORTS) from None
    if os.geteuid() == 0 and can_listen(real.settings):
        taken = reserved_ports(real.layout, None)
        ports[2] = next((one for one in reversed(SAFE) if one not in taken and port_is_free(one, "")), ports[2])
    return ports[0], ports[1], ports[2]


def units_directory(layout: Layout) -> Path:
    """Return where systemd, root's or a user's own, looks for units that do not outlive a boot (systemd.unit(5))."""
    if os.geteuid() == 0:
        return layout.root / "run/systemd/system"
    return layout.root / systemd.runtime_directory().lstrip("/") / "systemd/user"


def write_units(real: Installation, copy: Installation) -> None:
    """Write the units of the copy, with the site's changes to the real ones, and ours after them."""
    texts = systemd.rendered(copy)
    values = {"minutes": MINUTES, "stop": STOP_SECONDS, "real": real.layout.base, "base": copy.layout.base}
    for there, here, ours in (
        (real.settings.hub_unit, copy.settings.hub_unit, HUB_DROP_IN),
        (real.settings.proxy_unit, copy.settings.proxy_unit, PROXY_DROP_IN),
    ):
        place = units_directory(copy.layout) / here
        drop_ins = place.with_name(f"{here}.d")
        drop_ins.mkdir(parents=True, exist_ok=True)
        for path in map(Path, systemd.property_of(there, "DropInPaths").split()):
            systemd.ensure_link(drop_ins / path.name, path)
        text = ours.format(**values)
        write_atomically(drop_ins / "zz-rehearsal.conf", text if os.geteuid() == 0 else systemd.for_user(text))
        write_atomically(place, texts[here])


def remove_units(copy: Installation) -> None:
    """Remove what `write_units` has written."""
    for name in (copy.settings.hub_unit, copy.settings.proxy_unit):
        place = units_directory(copy.layout) / name
        place.unlink(missing_ok=True)
        shutil.rmtree(place.with_name(f"{name}.d"), ignore_errors=True)
