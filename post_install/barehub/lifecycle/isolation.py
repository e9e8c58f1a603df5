"""What keeps the hub of a rehearsal away from everything that is real. Its configuration ends with `isolate`.

It has a copy of the real hub's database and the site's own configuration, beside the real hub and all users' servers.
JupyterHub asks at its start for each server in its database whether that runs, ends those that do not answer, and
stops what it has started when it ends. So the hub of a rehearsal

- finds no server in its database: `database.forget_servers` has removed them from the copy;
- has a spawner that asks for, and stops, no server but one that it has started itself (`own_servers_only`);
- starts no service: an idle culler would stop servers;
- makes no account, neither here nor elsewhere, and asks nobody whether an account is still good (`without_accounts`);
- listens on ports of its own, speaks HTTP to loopback, and asks no ACME server for a certificate;
- writes no file of a site's but in its own directory.
"""

import contextlib
from typing import Any

from jupyterhub.app import JupyterHub
from jupyterhub.utils import maybe_future
from traitlets import TraitError
from traitlets.config.loader import LazyConfigValue

from barehub.lifecycle.servers import SERVICE
from barehub.urls import at_port

# With this, the service `barehub` of the rehearsal's hub makes a user and that user's token.
ROLE = {"name": "rehearsal", "services": [SERVICE["name"]], "scopes": ["admin:users", "tokens"]}
PROCESS = ("command", "url")  # of a service: what the hub would start, and wait for


def isolate(config: Any, *, database: str, cookie_secret: str, bind_url: str, api_url: str, hub_port: int) -> None:
    """Change a loaded configuration, a traitlets Config, into that of a rehearsal's hub.

    `database` and `cookie_secret` are files of its own. `bind_url` is where the proxy listens, `api_url` where
    traefik's API does, and `hub_port` the port of the hub, at the address that the configuration gives it.
    """
    hub = config.JupyterHub
    hub.services = [{key: one[key] for key in one if key not in PROCESS} for one in listed(hub, "services")]
    hub.load_roles = [*listed(hub, "load_roles"), ROLE]
    for name, change in {"spawner_class": own_servers_only, "authenticator_class": without_accounts}.items():
        with contextlib.suppress(TraitError):  # the hub refuses it itself, with the reason
            hub[name] = change(resolved(hub, name))
    for name in ("ip", "port", "base_url", "subdomain_host", "public_url", "hub_routespec", "db_kwargs"):
        hub.pop(name, None)
    hub.bind_url, hub.hub_port, hub.ssl_cert, hub.ssl_key = bind_url, hub_port, "", ""
    for section in config.values():  # spawners have one of these, too
        for name in ("hub_bind_url", "hub_connect_url"):
            if section.get(name):
                section[name] = at_port(section[name], hub_port)
        for name in ("dynamic_config_file", "logging_config"):  # the real traefik's routes; log files
            section.pop(name, None)
    config.pop("EventLogger", None)  # what counts users, perhaps
    for name in ("pid_file", "extra_log_file"):
        hub[name] = ""
    hub.db_url, hub.cookie_secret_file, hub.upgrade_db = f"sqlite:///{database}", cookie_secret, False
    hub.cleanup_servers = True  # its own: whatever ends the rehearsal
    with contextlib.suppress(TraitError):
        proxy = config[resolved(hub, "proxy_class").__name__]
        proxy.traefik_api_url, proxy.acme_email, proxy.extra_static_config = api_url, "", {}


def listed(section: Any, name: str) -> list[Any]:
    """Return a list of the configuration, be it set or only appended to."""
    value = section.get(name, [])
    return list(value.get_value([]) if isinstance(value, LazyConfigValue) else value)


def resolved(hub: Any, name: str) -> Any:
    """Return the class that a setting of JupyterHub's names, or its default. Raises TraitError if there is none."""
    trait = JupyterHub.class_traits()[name]
    return trait.validate(JupyterHub.__new__(JupyterHub), hub.get(name, trait.default_value))


def own_servers_only(spawner_class: Any) -> Any:
    """Return a site's spawner that takes every server for stopped that it has not started, and leaves it alone."""

    class Rehearsed(spawner_class):  # type: ignore[misc]
        started_here = False

        def start(self) -> Any:
            self.started_here = True
            return super().start()

        async def poll(self) -> Any:
            return await maybe_future(super().poll()) if self.started_here else 0

        async def stop(self, *args: Any, **more: Any) -> None:
            if self.started_here:
                await maybe_future(super().stop(*args, **more))

    return Rehearsed


def without_accounts(authenticator_class: Any) -> Any:
    """Return a site's authenticator that is told of no user, and finds all of them still good."""

    class Rehearsed(authenticator_class):  # type: ignore[misc]
        def add_user(self, _: Any) -> None:
            pass

        def delete_user(self, _: Any) -> None:
            pass

        async def refresh_user(self, *_: Any) -> bool:
            return True

    return Rehearsed
