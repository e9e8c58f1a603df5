"""The options chosen at install time, kept in BASE/install.json."""

import json
from dataclasses import asdict, dataclass

from barehub.errors import BASE, UserError
from barehub.layout import Layout
from barehub.process import write_atomically

SCHEMA = 1


@dataclass(frozen=True)
class Settings:
    """name: the stem of the units; the accounts of hub and proxy; the account that the installer made, if it did."""

    name: str = "barehub"
    hub_user: str = "root"
    proxy_user: str = ""
    created_account: str = ""

    @classmethod
    def load(cls, layout: Layout) -> "Settings | None":
        """What the last install chose, or None where there is no installation. Raises UserError if it is damaged."""
        try:
            record = json.loads(layout.record.read_text())
            if record.pop("schema") != SCHEMA:
                raise UserError(f"{layout.record} is of a newer barehub", "use that release's installer", BASE)
            return cls(**record)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{layout.record} is damaged: {error}",
                "delete it and run the installer with -f and the options it was first run with",
                BASE,
            ) from None

    def save(self, layout: Layout) -> bool:
        """Write install.json if it differs; True if it did."""
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
        """Those that are active when all is well."""
        return (self.target, self.hub_unit, self.proxy_unit, self.timer)

    @property
    def units(self) -> tuple[str, ...]:
        return (*self.active_units, f"{self.name}-certificates.service")
