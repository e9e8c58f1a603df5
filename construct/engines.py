"""Which engine fills the prefix: what makes the difference between them is in here and in their directories."""

from types import ModuleType

from construct import conda_constructor, conda_ship

ENGINES = {engine.NAME: engine for engine in (conda_ship, conda_constructor)}


def choose_engine(name: str) -> ModuleType:
    """The engine of that name; "auto" is constructor where it is installed, else conda-ship. UserError if it is not."""
    if name == "auto":
        return conda_constructor if conda_constructor.command() else conda_ship
    if name == conda_constructor.NAME:
        conda_constructor.require_command()
    return ENGINES[name]
