"""The options chosen at install time, kept in BASE/install.json."""

import json
from dataclasses import asdict, dataclass

from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.process import write_atomically

SCHEMA = 1


@dataclass(frozen=True)
class Settings:
    """The stem of the units' names, the accounts of hub and proxy, and the account the installer created, if any."""

    name: str = "barehub"
    hub_user: str = "root"
    proxy_user: str = ""
    created_account: str = ""

    @classmethod
    def load(cls, layout: Layout) -> "Settings | None":
        """Return what the last install chose, or None if nothing is installed. Raises UserError if it is damaged."""
        try:
            record = json.loads(layout.record.read_text())
            if record.pop("schema") != SCHEMA:
                raise UserError(f"{layout.record} is of a newer barehub", "use that release's installer", Exit.BASE)
            return cls(**record)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{layout.record} is damaged: {error}",
                f"restore it, or rename it to {layout.record.name}.old and run the installer with -f and its options",
                Exit.BASE,
            ) from None

    def save(self, layout: Layout) -> bool:
        """Write install.json if it differs; return True if it did."""
        return write_atomically(layout.record, json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n")

    @property
    def target(self) -> str:
        return f"{self.name}.target"

    @property
    def hub_unit(self) -> str:
        return f"{self.name}-hub.service"

    @property
    def proxy_unit(self) -> str:
        return f"{self.name}-proxy.service"

    @property
    def timer(self) -> str:
        return f"{self.name}-certificates.timer"

    @property
    def active_units(self) -> tuple[str, ...]:
        """The units that are active when all is well."""
        return (self.target, self.hub_unit, self.proxy_unit, self.timer)

    @property
    def units(self) -> tuple[str, ...]:
        return (*self.active_units, f"{self.name}-certificates.service")


@dataclass(frozen=True)
class Installation:
    """Where an installation is, and the options it was made with."""

    layout: Layout
    settings: Settings

    @classmethod
    def load(cls, layout: Layout, fix: str) -> "Installation":
        """Return the installation in BASE. Raises UserError with this `fix` if there is none, or if it is damaged."""
        settings = Settings.load(layout)
        if settings is None:
            raise UserError(f"{layout.base} holds no barehub", fix, Exit.BASE)
        return cls(layout, settings)
