"""What the overlay uses of JupyterHub beyond its public interface, all of it in this one place.

Line numbers are those of JupyterHub 6.1.1; tests/unit/test_slurm_internals.py checks that the
names still exist.
"""

import asyncio
from typing import Any

from jupyterhub.handlers.pages import SpawnHandler

# jupyterhub/spawner.py:166-177, each of them a class attribute or a property.
SPAWNER_ATTRIBUTES = ("_spawn_pending", "_stop_pending", "_check_pending", "_spawn_future", "_log_name")
READ_LINK = SpawnHandler._get_user_options  # handlers/pages.py:161


def is_being_checked(spawner: Any) -> bool:
    """Whether the hub is starting and asks this spawner, once, whether its server is there (app.py:3171, 3139)."""
    return bool(spawner._check_pending)


def is_being_stopped(spawner: Any) -> bool:
    """Whether JupyterHub is in User.stop() for this spawner (user.py:1160, 1211)."""
    return bool(spawner._stop_pending)


def log_name(spawner: Any) -> str:
    """The user, and the server's name if it has one, as JupyterHub's log has it (spawner.py:177)."""
    return str(spawner._log_name)


def mark_as_starting(spawner: Any, start: "asyncio.Future[None]") -> None:
    """Let JupyterHub treat `start` as the start of this server, as handlers/base.py:1181, 1232-1243 does.

    The reason of a failure is kept, to be shown.
    """
    spawner._spawn_pending = True
    spawner._spawn_future = start

    def note_end(ended: "asyncio.Future[None]") -> None:
        spawner._spawn_pending = False
        if ended.cancelled() or not ended.exception():
            spawner._spawn_future = None

    start.add_done_callback(note_end)


def let_links_fill_in() -> None:
    """Let a link to the form fill it in, and nothing more.

    JupyterHub starts a server at once with the options that a link has (handlers/pages.py, SpawnHandler._get). Whoever
    makes somebody follow a link would choose what runs in that user's name, at whose cost. The form finds the options
    in `spawner.handler.filled_in`, and the user starts the server.
    """

    def keep(handler: Any, query: dict[str, list[str]]) -> dict[str, Any]:
        handler.filled_in = READ_LINK(handler, query)
        return {}

    SpawnHandler._get_user_options = keep


async def add_route(spawner: Any) -> None:
    """Add the server's route, as JupyterHub does at the end of a start (handlers/base.py, finish_user_spawn)."""
    await spawner.user.settings["proxy"].add_user(spawner.user, spawner.name)


async def delete_route(spawner: Any) -> None:
    """Delete the server's route, as JupyterHub does before a stop. Returns when the proxy has none. Raises OSError."""
    proxy = spawner.user.settings["proxy"]
    await proxy.delete_user(spawner.user, spawner.name)
    await proxy.settle()
