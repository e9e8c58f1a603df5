"""Before a switch: which environments, and whose running servers, do not fit the hub that comes.

These are warnings. JupyterHub does not refuse such servers, and most of them work. But whoever cannot log in to one any
more should find the reason in what the upgrade said.
"""

from collections.abc import Callable, Iterable, Mapping

from barehub.environments import find_as, hubs_version, misfit
from barehub.lifecycle.servers import Server

Say = Callable[[str], None]


def report_environments(user: str, environments: Mapping[str, str], say: Say) -> None:
    """Name the environments that do not fit, as `user` sees them."""
    found = find_as(user, environments.values())
    for label, environment in environments.items():
        if why := found[environment].misfit:
            say(f"warning: the environment {label} has {why}")


def report_servers(running: Iterable[Server], before: str | None, say: Say) -> None:
    """Name the users whose servers do not fit, and those of whom that is not known, if the hub's version changes.

    `before` is the version of the hub that runs.
    """
    hubs = hubs_version()
    by_version: dict[str, list[str]] = {}
    for server in running:
        by_version.setdefault(server.jupyterhub, []).append(server.name)
    unknown = by_version.pop("", [])
    for version, names in sorted(by_version.items()):
        if how := misfit(version):
            why = f"jupyterhub {version}, which is {how} for the hub's {hubs}, and may have to be started again"
            say(f"warning: these running servers have {why}: {', '.join(names)}")
    if unknown and before and before.partition(".")[0] != hubs.partition(".")[0]:
        say(f"the hub goes from {before} to {hubs}; it is not known whether these servers fit: {', '.join(unknown)}")
