"""What JupyterHub does with its settings when it starts, done before a hub has to: in a process of its own, with a
database in memory, and without writing anything.

For the child of barehub.evaluation. What a hub would end with, or print a traceback for, becomes one line.
"""

import asyncio
import inspect
import io
import logging
import os
import pwd
import secrets
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from jupyterhub.auth import Authenticator, LocalAuthenticator

from barehub.config import ConfigError, one_line, place_of
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle.database import opened, own_database, used_by
from barehub.lifecycle.database_urls import fix_for, sqlite_file

# JupyterHub.initialize() in its order: a step, and the settings that it reads. Left out are those that write files,
# ask the proxy, or ask spawners.
STEPS = {
    "init_eventlog": (),
    "init_pycurl": (),
    "init_secrets": ("cookie_secret_file", "cookie_secret"),
    "init_db": (),
    "init_hub": ("hub_bind_url", "hub_connect_url", "hub_connect_ip", "public_url", "subdomain_host"),
    "init_oauth": (),
    "init_role_creation": ("load_roles", "custom_scopes"),
    "init_users": ("enable_auth_state", "allowed_users", "admin_users", "username_pattern"),
    "init_groups": ("load_groups",),
    "init_services": ("services",),
    "init_api_tokens": ("services", "api_tokens", "service_tokens"),
    "init_role_assignment": ("load_roles",),
    "init_blocked_users": ("blocked_users",),
    "init_tornado_settings": ("jinja_environment_options", "template_paths", "template_vars", "tornado_settings"),
    "init_handlers": ("extra_handlers",),
    "init_tornado_application": ("extra_handlers",),
}
FILES = ("pid_file", "extra_log_file", "cookie_secret_file")


class LastError(logging.Handler):
    """Keeps the last error that was logged."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self.text = record.getMessage()


def rehearse(layout: Layout, hub: Any) -> None:
    """Try the settings of a hub (`config.load_hub`), which cannot be used afterwards. Raises ConfigError."""
    for name in FILES:
        require_place(layout, name, getattr(hub, name))
    with told(layout, "log_format", "log_datefmt"):
        record = logging.LogRecord(hub.log.name, logging.INFO, __file__, 1, "a message", None, None)
        hub._log_formatter_cls(fmt=hub.log_format, datefmt=hub.log_datefmt).format(record)
    with told(layout, "db_url", "db_kwargs"):
        from sqlalchemy import create_engine

        try:
            create_engine(hub.db_url, **hub.db_kwargs)
        except ValueError:  # its text may hold a part of the password
            what = f"{place_of(layout, 'db_url')}c.JupyterHub.db_url cannot be read as a URL"
            raise ConfigError(what, "write special characters of a password as %XX") from None
        except ImportError as error:
            what = f"{place_of(layout, 'db_url')}the driver of c.JupyterHub.db_url cannot be loaded: {one_line(error)}"
            raise ConfigError(what, fix_for(str(error), "name another, or add it: barehub help packages")) from None
        if file := sqlite_file(hub.db_url, layout):
            require_place(layout, "db_url", str(file))
    with redirect_stderr(io.StringIO()):  # alembic logs what it does
        asyncio.run(take_steps(layout, hub))
    for service in hub._service_map.values():
        if service.managed:
            require_command(layout, service)


async def take_steps(layout: Layout, hub: Any) -> None:
    logged = LastError()
    hub.log.handlers, hub.log.propagate = [logged], False
    hub.log.setLevel(logging.ERROR)
    if not os.access(Path(hub.cookie_secret_file).expanduser(), os.F_OK):  # or one would be written
        hub.cookie_secret = hub.cookie_secret or secrets.token_bytes(32)
    known = known_users(layout, hub.db_url)
    hub.db_url, hub.db_kwargs, hub.upgrade_db, hub.reset_db = "sqlite:///:memory:", {}, False, False
    hub.proxy = None
    for step, traits in STEPS.items():
        if not hasattr(hub, step):  # another version of JupyterHub
            continue
        with told(layout, *traits, logged=logged):
            result = getattr(hub, step)()
            if inspect.isawaitable(result):  # no task of its own, or asyncio would let its SystemExit through
                await result
        if step == "init_db":
            with told(layout, "username_pattern", "authenticator_class"):
                without_effects(hub, known)
        if step == "init_hub":
            with told(layout, "hub_routespec"):
                require_routespec(hub)


def known_users(layout: Layout, url: str) -> set[str] | None:
    """Return the names of the users in the hub's database, whose accounts its start does not ask for. None: unknown."""
    try:
        file = sqlite_file(url, layout)
        if file == own_database(layout):  # an upgrade makes it from the active release's
            file = used_by(layout, layout.active)
        if file is None:
            return None
        if not file.exists():
            return set()
        with opened(file) as connection:
            return {str(name) for (name,) in connection.execute("select name from users")}
    except (UserError, OSError, sqlite3.Error):
        return None


def without_effects(hub: Any, known: set[str] | None) -> None:
    """Give a hub an authenticator that changes nothing here or elsewhere, and looks only for new users' accounts.

    A site's own code, and its own packages, may do anything when they are made or told of a user: NativeAuthenticator
    imports users into the database, then deletes the file that they came from. JupyterHub's base class replaces them.
    """
    ours = hub.authenticator_class.__module__.startswith(("jupyterhub.", "barehub"))
    may_create = ("create_system_users", "account_of")
    if not ours or any(getattr(hub.authenticator, name, None) for name in may_create):
        hub.authenticator = Authenticator(parent=hub)
    if isinstance(hub.authenticator, LocalAuthenticator):
        look = hub.authenticator.add_user
        hub.authenticator.add_user = lambda user: None if known is None or user.name in known else look(user)


def require_routespec(hub: Any) -> None:
    """Raises ValueError for a route of the hub's that its proxy would refuse (jupyterhub/proxy.py)."""
    if bool(hub.subdomain_host) == hub.hub.routespec.startswith("/") and hub.hub.routespec != "/":
        raise ValueError(f"hub_routespec {hub.hub.routespec} does not fit subdomain_host {hub.subdomain_host!r}")


@contextmanager
def told(layout: Layout, *traits: str, logged: LastError | None = None) -> Iterator[None]:
    """Turn whatever is raised inside into a ConfigError with the place of the first of these settings that is set."""
    try:
        yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        why = one_line(error)
        if isinstance(error, SystemExit):
            why = error.code if isinstance(error.code, str) else (logged and logged.text) or why
        what = f"{place_of(layout, *traits)}the hub would not start: {why}"
        raise ConfigError(what, f"fix it in {layout.config}") from error


def require_place(layout: Layout, trait: str, value: str) -> None:
    """Raises ConfigError if the hub's account cannot make or use a file there. What is in its own directory it can."""
    path = Path(layout.hub_state, Path(value).expanduser())
    if not value or path.parent == layout.hub_state:
        return
    there, above = os.access(path, os.F_OK), os.access(path.parent, os.W_OK | os.X_OK)
    needed = os.R_OK if trait == "cookie_secret_file" else os.W_OK
    if not (os.access(path, needed) and not path.is_dir() if there else above):
        place = place_of(layout, trait)
        what = f"{place}c.JupyterHub.{trait} is {value}, which the hub's account cannot use"
        raise ConfigError(what, f"let it, or name another place: ls -ld {path.parent}")


def require_command(layout: Layout, service: Any) -> None:
    """Raises ConfigError if a service's command, or its account, is not there: the hub ends if one does not start."""
    place = place_of(layout, "services")
    program = service.command[0]
    environment = {**os.environ, **service.environment}
    path = os.pathsep.join((environment.get("PATH", os.defpath), f"{sys.prefix}/bin", str(Path(sys.executable).parent)))
    relative = "/" in program and not program.startswith("/")  # it depends on the service's directory
    if not relative and not shutil.which(program, path=path):
        raise ConfigError(f"{place}the command of the service {service.name} is not there: {program}", "install it")
    if service.user:
        try:
            pwd.getpwnam(service.user)
        except KeyError:
            what = f"{place}the account of the service {service.name} is not there: {service.user}"
            raise ConfigError(what, f"useradd --system {service.user}") from None
