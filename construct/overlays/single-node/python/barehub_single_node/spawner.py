"""`c.JupyterHub.spawner_class` of the overlay. Settings are systemdspawner's: `c.SystemdSpawner`."""

from typing import Any

from barehub.logins import require_account
from jupyterhub.spawner import SpawnException
from systemdspawner import SystemdSpawner  # type: ignore[import-not-found]  # only in this overlay's releases

from barehub_single_node import units

PROPERTIES = {
    # systemd-run then waits for the program to be executed, so that its failure is known (systemd.service(5)).
    "Type": "exec",
    # Only the server is asked to end, and ends its kernels. If they end first it starts them again, and may never end:
    # InvalidStateError from jupyter_client/multikernelmanager.py:320, seen with jupyter-client 8.
    "KillMode": "mixed",
}


class StartError(SpawnException):  # type: ignore[misc]  # JupyterHub ships no types
    """Why there is no server, in words that JupyterHub shows to its user."""

    def __init__(self, text: str) -> None:
        super().__init__(text, reason="unit")
        self.jupyterhub_message = text


class UnitSpawner(SystemdSpawner):  # type: ignore[misc]  # systemdspawner ships no types
    """systemdspawner 1.0.2 knows one unit for each user, so that a second named server would end the first."""

    starting = False

    def __init__(self, *args: Any, **traits: Any) -> None:
        super().__init__(*args, **traits)
        # systemdspawner.py:153. For a server that runs, load_state() then has its unit's name.
        self.unit_name: str = units.unit_name(self.unit_name, self.user.name, self.name)

    async def start(self) -> tuple[str, int]:
        self.unit_extra_properties: dict[str, Any] = {**PROPERTIES, **self.unit_extra_properties}
        if not self.dynamic_users:
            require_account(self._expand_user_vars(self.username_template))
        self.starting = True
        try:
            address: tuple[str, int] | None = await super().start()
        finally:
            self.starting = False
        if address is None:
            took = f"Your server did not start in {self.start_timeout} s."
            raise StartError(f"{took} Administrators: journalctl --unit={self.unit_name}")
        return address

    async def poll(self) -> int | None:
        """Return None while the unit is active. start() asks this too (systemdspawner.py:343), and would only wait."""
        status: int | None = await super().poll()
        if status is None or not self.starting:
            return status
        if why := units.why_not_running(self.unit_name, await units.show(self.unit_name)):
            raise StartError(why)
        return status
