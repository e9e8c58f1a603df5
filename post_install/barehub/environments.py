"""The environments that users' servers run from: which release a path means now, and which jupyterhub is in it.

    python -m barehub.environments PREFIX...      prints, as JSON, what `find` finds

Nothing of an environment is run or opened, since others own it. Names of files have to do: every installed package has
a directory NAME-VERSION.dist-info (the specification of recording installed projects), whatever has installed it.
"""

import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from barehub.accounts import current_user
from barehub.errors import printable
from barehub.process import call_as
from barehub.untrusted import UntrustedError, parse_json

SECONDS = 10.0  # for all environments; without a limit, a file system that is away would be waited for
MODULES = re.compile(r"module load((?: +[A-Za-z0-9][A-Za-z0-9_.+@=/-]*)+)")
VERSION = re.compile(r"\d[0-9A-Za-z.+]{0,40}")
STATE = "environment"  # in a spawner's state: what `started_from` returns


@dataclass(frozen=True)
class Found:
    """What the prefix of an environment is now, as one account sees it.

    `real` is the directory that it leads to, and `jupyterhub` a version; each is empty if it is not known. `missing` is
    why no server can run from it, `unknown` why something is not known.
    """

    real: str = ""
    jupyterhub: str = ""
    missing: str = ""
    unknown: str = ""

    def __str__(self) -> str:
        """Say where it is and what is there, or why that is not known."""
        where = f"{self.missing} on this machine" if self.missing else self.real
        unknown = f"unknown: {self.unknown}" if self.unknown else ""
        return ", ".join(filter(None, (where, f"jupyterhub {self.jupyterhub}" if self.jupyterhub else unknown)))

    @property
    def refusal(self) -> str:
        """Why no server of the account that looked can run from it; empty if nobody could look."""
        return self.missing or ("" if self.real or self == SILENT else self.unknown)

    @property
    def state(self) -> str:
        """`missing`, `unknown`, `misfit`, or `fits`."""
        if self.missing:
            return "missing"
        return "unknown" if self.unknown else "misfit" if self.misfit else "fits"

    @property
    def misfit(self) -> str:
        """What is wrong with its jupyterhub; empty if that fits the hub's, or is not known."""
        how = misfit(self.jupyterhub)
        return f"jupyterhub {self.jupyterhub}, which is {how} for the hub's {hubs_version()}" if how else ""


SILENT = Found(unknown="nobody could look, or not in time")


def hubs_version() -> str:
    """Return the version of this release's JupyterHub."""
    return importlib.metadata.version("jupyterhub")


def misfit(version: str, hubs: str = "") -> str:
    """Return `too old` or `too new`, or nothing if a server with this jupyterhub fits the hub's, or has an unknown one.

    JupyterHub promises this for equal major versions (jupyterhub/_version.py, _check_version). Servers of the one
    before work too; older ones may, until an upgrade of the hub shows that they do not.
    """
    majors = [re.match(r"\d+", one) for one in (version, hubs or hubs_version())]
    server, hub = (int(one[0]) if one else -1 for one in majors)
    if server == -1 or hub == -1:
        return ""
    return "too new" if server > hub else "too old" if server < hub - 1 else ""


def modules(environment: str) -> str:
    """Return the names in `module load NAME...`, with a space between them; empty if an environment is a prefix."""
    found = MODULES.fullmatch(environment)
    return " ".join(found[1].split()) if found else ""


def offered_by(spawner: Any) -> dict[str, str]:
    """Return what a spawner can start servers from: label -> prefix, or `module load NAME...`.

    That is its `environments`; without them the prefix in `users_environment`, or that of the command PREFIX/bin/NAME.
    """
    several = getattr(spawner, "environments", None)
    if several and isinstance(several, dict):  # another class may call something else so
        return {str(label): str(environment) for label, environment in several.items()}
    command = PurePath(next(iter(spawner.cmd or []), ""))
    own = str(command.parent.parent) if command.is_absolute() and command.parent.name == "bin" else ""
    prefix = str(getattr(spawner, "users_environment", own)).rstrip("/")
    return {prefix: prefix} if prefix else {}


def started_from(prefix: str, jupyterhub: str) -> dict[str, str]:
    """Return what a spawner keeps in its state of the environment that its server runs from."""
    return {"prefix": prefix, "jupyterhub": jupyterhub}


def version_in(state: dict[str, Any]) -> str:
    """Return the version of jupyterhub in the state of a spawner; empty if it keeps none."""
    kept = state.get(STATE)
    version = kept.get("jupyterhub") if isinstance(kept, dict) else None
    return version if isinstance(version, str) and VERSION.fullmatch(version) else ""


def inside(real: str, prefix: str, command: list[str], paths: list[str]) -> tuple[list[str], list[str]]:
    """Return a server's command and PATH, for an environment by its real path.

    A name without a directory, or a path below `prefix`, is a program of the environment, and so is every
    jupyterhub-singleuser; others stay as they are.
    """
    program = PurePath(command[0])
    if program.name in (command[0], "jupyterhub-singleuser"):
        program = PurePath(real, "bin", program.name)
    elif program.is_relative_to(prefix):
        program = real / program.relative_to(prefix)
    return [str(program), *command[1:]], [f"{real}/bin", *(path for path in paths if path != f"{prefix}/bin")]


def find(prefix: str) -> Found:
    """Look at the prefix of an environment, as this account."""
    try:
        real = os.path.realpath(prefix, strict=True)
        python = Path(real, "bin/python")
        python.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        return Found(missing=f"{error.filename} does not exist")
    except OSError as error:
        return Found(unknown=unseen(error))
    if not os.access(python, os.X_OK):
        return Found(real, missing=f"{python} may not be run by {current_user()}")
    try:
        versions = {version for site in sites(Path(real)) for version in versions_at(site)}
    except OSError as error:
        return Found(real, unknown=unseen(error))
    if len(versions) == 1:
        return Found(real, versions.pop())
    return Found(real, unknown=f"it has {'several versions of jupyterhub' if versions else 'no jupyterhub of its own'}")


def unseen(error: OSError) -> str:
    """Return that this account could not look, and why."""
    return f"{error.filename} cannot be looked at by {current_user()}: {error.strerror}"


def sites(prefix: Path) -> list[Path]:
    """Return the directories for packages below a prefix. Raises OSError."""
    found = [one / "site-packages" for one in (prefix / "lib").iterdir() if re.fullmatch(r"python3\.\d+t?", one.name)]
    return [site for site in found if site.is_dir()]


def versions_at(site: Path) -> list[str]:
    """Return the versions of jupyterhub in a directory of packages. Raises OSError."""
    found = (re.fullmatch(rf"jupyterhub-({VERSION.pattern})\.dist-info", path.name) for path in site.iterdir())
    return [one[1] for one in found if one]


def tell(prefixes: Iterable[str]) -> str:
    """Return what `find` finds, as JSON."""
    return json.dumps({prefix: asdict(find(prefix)) for prefix in prefixes})


def read(told: str, environments: Iterable[str]) -> dict[str, Found]:
    """Return what another process has told of environments. Whatever it has not told is unknown."""
    try:
        answer = parse_json(told, Path("/"))
        found = {
            prefix: Found(**{name: printable(one[name], keep="") for name in one}) for prefix, one in answer.items()
        }
    except (UntrustedError, TypeError, AttributeError):
        found = {}
    of_modules = Found(unknown="what modules load is not looked at")
    return {one: found.get(one, of_modules if modules(one) else SILENT) for one in environments}


def prefixes(environments: Iterable[str]) -> list[str]:
    """Return those of the environments that can be looked at."""
    return sorted({one for one in environments if not modules(one)})


def find_as(user: str, environments: Iterable[str]) -> dict[str, Found]:
    """Look at environments as another account; only root can become one."""
    wanted = list(environments)
    return read(call_as(user, lambda: tell(prefixes(wanted)), {}, SECONDS), wanted)


if __name__ == "__main__":
    print(tell(sys.argv[1:]))
