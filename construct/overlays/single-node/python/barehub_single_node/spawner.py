"""`c.JupyterHub.spawner_class` of the overlay. Settings are systemdspawner's: `c.SystemdSpawner`."""

from typing import Any

from barehub.environments import inside
from barehub.from_release import RunsFromRelease
from barehub.held_port import HoldsPort
from barehub.local_spawner import OOM_SCORE
from barehub.logins import NO_ACCOUNT, NoServerError
from barehub.offering import FIELD, OffersEnvironments
from systemdspawner import SystemdSpawner  # type: ignore[import-not-found]  # only in this overlay's releases
from traitlets import default

from barehub_single_node import units

PROPERTIES = {
    # systemd-run then waits for the program to be executed, so that its failure is known (systemd.service(5)).
    "Type": "exec",
    # Only the server is asked to end, and ends its kernels. If they end first it starts them again, and may never end:
    # InvalidStateError from jupyter_client/multikernelmanager.py:320, seen with jupyter-client 8.
    "KillMode": "mixed",
    # A machine that is out of memory takes it from the servers first, not from the hub.
    "OOMScoreAdjust": str(OOM_SCORE),
}


class StartError(NoServerError):
    """Why there is no server, as far as its unit and its user's account are concerned."""

    kind = "unit"


class UnitSpawner(OffersEnvironments, RunsFromRelease, HoldsPort, SystemdSpawner):  # type: ignore[misc]  # systemdspawner ships no types
    """systemdspawner 1.0.2 knows one unit for each user, so that a second named server would end the first."""

    starting = False
    cmd: Any
    extra_paths: Any

    def __init__(self, *args: Any, **traits: Any) -> None:
        super().__init__(*args, **traits)
        # systemdspawner.py:153. For a server that runs, load_state() then has its unit's name.
        self.unit_name: str = units.unit_name(self.unit_name, self.user.name, self.name)

    @default("options_form")
    def _default_options_form(self) -> Any:
        return (lambda spawner: spawner.form()) if self.environments else ""

    async def form(self) -> str:
        """Return the form, empty if there is nothing to choose: then the server starts without one."""
        return (await self.environment_field())[0]

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return self.read_form

    def read_form(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the form as JupyterHub does, but the environment as one text."""
        return data | ({FIELD: data[FIELD][0]} if self.environments and data.get(FIELD) else {})

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        return {} if not self.environments else lambda spawner, user_options: None  # start() does it

    async def start(self) -> tuple[str, int]:
        self.unit_extra_properties: dict[str, Any] = {**PROPERTIES, **self.unit_extra_properties}
        self.starting = True
        site = self.cmd, self.extra_paths
        try:
            await self.use_environment()
            address: tuple[str, int] | None = await super().start()
        except NoServerError:
            raise
        except Exception as error:  # JupyterHub shows its user nothing of any other
            if isinstance(error, KeyError) and "getpwnam" in str(error):
                raise StartError(NO_ACCOUNT.format(self.user.name)) from None
            why = f"Your server did not start: {type(error).__name__}: {error}"
            raise StartError(f"{why}. Administrators: look at the settings of the spawner") from error
        finally:
            self.starting = False
            self.cmd, self.extra_paths = site
        if address is None:
            took = f"Your server did not start in {self.start_timeout} s."
            raise StartError(f"{took} Administrators: journalctl --unit={self.unit_name}")
        return address

    async def use_environment(self) -> None:
        """Let the server start from the release that the chosen environment is now, as its user sees it.

        Raises StartError if the user cannot run it, NotOfferedError, and KeyError if there is no such account.
        """
        label, environment = self.chosen(self.user_options)
        if not environment:
            return
        user = "" if self.dynamic_users else self._expand_user_vars(self.username_template)
        found = await self.find_release(environment, user)
        if self.environments and found.refusal:  # without them, the site's own command need not be of an environment
            raise StartError(f"Your server was not started from {label}: {found.refusal}.")
        # To systemdspawner, {USERNAME} is the user's name.
        literal = self.runs_from["prefix"].replace("{", "{{").replace("}", "}}")
        self.cmd, self.extra_paths = inside(literal, environment, self.cmd, self.extra_paths)

    async def poll(self) -> int | None:
        """Return None while the unit is active. start() asks this too (systemdspawner.py:343), and would only wait."""
        status: int | None = await super().poll()
        if status is None or not self.starting:
            return status
        if why := units.why_not_running(self.unit_name, await units.show(self.unit_name)):
            raise StartError(why)
        return status
