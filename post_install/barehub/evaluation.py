"""What the hub's configuration says, found out by the account that runs the hub.

    python -m barehub.evaluation      what the hub's reload runs first: 0 if the configuration is good

Root runs no configuration file: a child process becomes the hub's account, with its groups and its unit's environment,
runs the files, imports what they name, and tells what barehub's commands and the proxy's unit need to know. What would
fail for the hub fails here, and what another account may write is never executed by root.
"""

import contextlib
import json
import os
import pwd
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from barehub import systemd
from barehub.accounts import current_user
from barehub.config import CONFIG_EXIT, ConfigError, leave_out_grammars, load_hub, located
from barehub.environments import offered_by
from barehub.errors import UserError, render
from barehub.health import Endpoints
from barehub.layout import Layout
from barehub.process import call_as
from barehub.proxy_unit.renewal import Source
from barehub.proxy_unit.sockets import addresses_of
from barehub.secret import files_read
from barehub.settings import Settings
from barehub.untrusted import UntrustedError, parse_json

SECONDS = 60.0  # for the configuration to load; the hub itself would wait for ever


@dataclass(frozen=True)
class ProxyWanted:
    """What the configuration wants of the proxy: traefik's static configuration, and where a certificate comes from."""

    static: dict[str, Any]
    source: Source | None  # None without HTTPS
    ca_bundle: str
    certificate_hours: int


@dataclass(frozen=True)
class Evaluated:
    """What the configuration says; `no_proxy` is what is wrong with the proxy's part of it, and what to do.

    secrets: the files that it has read with `read_secret`.
    """

    endpoints: Endpoints
    db_url: str
    environments: dict[str, str]  # what users' servers run from: barehub.environments.offered_by
    proxy: ProxyWanted | None
    no_proxy: tuple[str, str]
    secrets: tuple[str, ...] = ()

    def require_proxy(self) -> ProxyWanted:
        """Return what is wanted of the proxy. Raises ConfigError if that does not fit together."""
        if self.proxy is None:
            raise ConfigError(*self.no_proxy)
        return self.proxy


def evaluate(
    layout: Layout, settings: Settings, environment: Mapping[str, str] | None = None, *, rehearsal: bool = True
) -> Evaluated:
    """Return what the configuration says to the hub's account, in the environment that its unit gives it, or in this.

    With a `rehearsal` of the hub's start; the proxy does not need it. Only root can become another account. Raises
    ConfigError, with file and line where they are known, if the hub could not start with it.
    """
    environment = {**(environment or hub_environment(layout, settings)), "BAREHUB_BASE": str(layout.base)}
    rehearsal &= os.geteuid() == 0 or current_user() == settings.hub_user  # another account may less, or more
    answer = call_as(settings.hub_user, lambda: evaluate_here(layout, rehearsal=rehearsal), environment, SECONDS)
    try:
        told = parse_json(answer, layout.config)
        if "error" in told:
            what, fix = told["error"]
            raise ConfigError(str(what), str(fix))
        proxy = told["proxy"]
        if proxy:
            source = proxy["source"]
            proxy = ProxyWanted(**proxy | {"source": source and Source(**source | {"names": tuple(source["names"])})})
            addresses_of(proxy.static)  # the answer is another account's
        only_here = told["endpoints"].pop("only_here") is True
        endpoints = Endpoints(**{name: str(value) for name, value in told["endpoints"].items()}, only_here=only_here)
        environments = {str(label): str(environment) for label, environment in told["environments"].items()}
        secrets = tuple(str(path) for path in told["secrets"])
        return Evaluated(endpoints, str(told["db_url"]), environments, proxy, tuple(told["no_proxy"]), secrets)
    except (ValueError, KeyError, TypeError, AttributeError, UntrustedError):
        what = "the configuration ends the process that runs it, or needs more than a minute"
        raise ConfigError(what, f"look for os._exit, exec or a wait in {layout.config}") from None


def evaluate_here(layout: Layout, *, rehearsal: bool = True) -> str:
    """Return, as JSON, what the configuration says to this process, which runs it; or the error."""
    leave_out_grammars()
    sys.path += os.environ.get("PYTHONPATH", "").split(os.pathsep) if sys.flags.isolated else []
    if layout.hub_state.is_dir() and os.access(layout.hub_state, os.X_OK):
        os.chdir(layout.hub_state)
    try:
        hub = load_hub(layout)
        endpoints = Endpoints.of(hub)
        proxy, no_proxy = None, ("", "")
        try:
            proxy = proxy_wanted(layout, hub)
        except UserError as error:
            no_proxy = located(layout, str(error)), error.fix
        environments = offered_by(spawner_of(hub))
        found = Evaluated(endpoints, str(hub.db_url), environments, proxy, no_proxy, tuple(files_read))
        told = json.dumps(asdict(found))
        if rehearsal:
            from barehub.rehearsal import rehearse

            rehearse(layout, hub)
        return told
    except UserError as error:
        return json.dumps({"error": [located(layout, str(error)), error.fix]})
    except Exception as error:  # of a site's own classes, or a value that no trait has refused
        what = f"the configuration cannot be used: {type(error).__name__}: {error}"
        return json.dumps({"error": [located(layout, what), f"look in {layout.config}"]})


def spawner_of(hub: Any) -> Any:
    """Return a spawner of no user's, for the values of its traits."""
    spawner = hub.spawner_class.__new__(hub.spawner_class)
    with contextlib.suppress(Exception):  # `load_hub` has refused wrong values, and says what else may be raised
        spawner._load_config(hub.config)
    return spawner


def proxy_wanted(layout: Layout, hub: Any) -> ProxyWanted:
    """Return what a hub's traits want of the proxy. Raises UserError if they do not fit together."""
    from barehub.lifecycle.ports import require_apart
    from barehub.proxy_unit.static import static_config
    from barehub.proxy_unit.traits import make_proxy, source_of

    proxy = make_proxy(layout, hub)
    static = static_config(layout, proxy)
    hub_at = urlsplit(Endpoints.of(hub).hub).netloc
    require_apart({"the hub": hub_at} | {f"the proxy's {name}": at for name, at in addresses_of(static).items()})
    source = source_of(hub, proxy) if proxy.is_https else None
    return ProxyWanted(static, source, proxy.acme_ca_bundle, proxy.acme_certificate_hours)


def hub_environment(layout: Layout, settings: Settings) -> dict[str, str]:
    """Return the environment that the hub gets from its unit, as far as that is known."""
    if not systemd.systemd_runs(layout):
        return dict(os.environ)  # as for `barehub run`
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONNOUSERSITE": "1"}
    with contextlib.suppress(KeyError):  # `call_as` says that there is no such account
        account = pwd.getpwnam(settings.hub_user)
        environment |= {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    return environment | systemd.environment_of(settings.hub_unit)


def main() -> int:
    layout = Layout.from_environment()
    try:
        evaluate(layout, Settings.load(layout) or Settings(), os.environ).require_proxy()
    except UserError as error:
        print(f"{render(error)}\nthe hub goes on with the configuration it has", file=sys.stderr)
        return CONFIG_EXIT
    return 0


if __name__ == "__main__":
    sys.exit(main())
