"""The rules file that the hub writes for traefik, for readers that do not need JupyterHub."""

import json
from pathlib import Path
from typing import Any


def read_routes(path: Path) -> dict[str, Any]:
    """Return the routes in a rules file, by alias: routespec, target, data.

    Raises ValueError or KeyError if it is damaged.
    """
    try:
        routes: dict[str, Any] = json.loads(json.loads(path.read_text())["jupyterhub"])["routes"]
        return routes
    except FileNotFoundError:
        return {}
