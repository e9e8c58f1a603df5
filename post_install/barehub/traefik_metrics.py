"""traefik's own numbers for Prometheus: off, until `c.BarehubProxy.metrics_password` is set.

They are where traefik's API is, on loopback, and any account of the machine can connect to that: so they need a
password of their own. The doors that people come through do not lead there. `static.py` switches them on.

https://doc.traefik.io/traefik/reference/install-configuration/observability/metrics/
"""

from typing import Any

import bcrypt
from jupyterhub_traefik_proxy.traefik_utils import deep_merge
from traitlets import TraitError, Unicode, validate

from barehub.own_servers import OwnServers
from barehub.rules import Config

NAME = "barehub-metrics"  # a router, and a middleware
USER = "metrics"
LONGEST = 72  # bytes; bcrypt takes no more


class WithMetrics(OwnServers):
    """A proxy that may show traefik's metrics."""

    metrics_password = Unicode(
        help="""With a password, traefik's metrics are at /metrics of traefik_api_url, for the user `metrics`. The
        default, none, is to have no metrics."""
    ).tag(config=True)

    extra_dynamic_config: Config  # a trait of the base class

    @validate("metrics_password")
    def _check_metrics_password(self, proposal: Config) -> str:
        if len(proposal["value"].encode()) > LONGEST:
            raise TraitError(f"metrics_password is longer than {LONGEST} bytes")
        return str(proposal["value"])

    async def _setup_traefik_dynamic_config(self) -> None:
        if self.metrics_password:
            ours = rules(self.traefik_api_entrypoint, self.metrics_password)
            self.extra_dynamic_config = deep_merge(ours, self.extra_dynamic_config)
        await super()._setup_traefik_dynamic_config()


def rules(entrypoint: str, password: str) -> Config:
    """Return the rules that lead to the metrics. The password is random and long, so the cheapest bcrypt is safe."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    router: dict[str, Any] = {"rule": "Path(`/metrics`)", "entryPoints": [entrypoint], "service": "prometheus@internal"}
    middleware = {"basicAuth": {"users": [f"{USER}:{hashed}"]}}
    return {"http": {"routers": {NAME: router | {"middlewares": [NAME]}}, "middlewares": {NAME: middleware}}}
