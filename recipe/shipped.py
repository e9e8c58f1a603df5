"""Which interpreter a release ships: the one that runs release.py, or for another machine the one pinned for that."""

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from recipe.errors import UserError
from recipe.metadata import MACHINES, PLATFORM, Target
from recipe.standalone import Archive, UnavailableError, is_standalone, standalone_python, unpacked_from


def running_target() -> Target:
    """Return the target of the running interpreter."""
    return Target(python="{}.{}.{}".format(*sys.version_info), platform=PLATFORM)


@dataclass(frozen=True)
class Interpreter:
    """A CPython to ship: where it is, and which machine and Python it is for.

    program: the ELF file. library: its standard library. headers: Python.h is there.
    """

    prefix: Path
    program: Path
    library: Path
    headers: Path
    target: Target

    @classmethod
    def running(cls) -> Self:
        """Return the one that runs this. Raises UserError if it is another implementation, or has another layout."""
        if sys.implementation.name != "cpython" or sys.platlibdir != "lib":
            raise UserError(
                f"{sys.executable} ({sys.implementation.name}, libraries in {sys.platlibdir}/) cannot be repackaged",
                "run release.py with a CPython that keeps its libraries in lib/: built from source, or python.org-like",
            )
        library = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})
        # Not INCLUDEPY, which is where the interpreter was built, not where it was unpacked.
        headers = sysconfig.get_path("include")
        program = Path(sys.executable).resolve()
        return cls(Path(sys.base_prefix), program, Path(library), Path(headers), running_target())

    @classmethod
    def unpacked(cls, prefix: Path, platform: str) -> Self:
        """Return one for `platform` that `standalone_python` has unpacked. It need not run here."""
        archive = cast(Archive, unpacked_from(prefix))
        target = Target(archive.version, platform)
        name = f"python{target.minor}"
        program = (prefix / "bin/python3").resolve()
        return cls(prefix, program, prefix / "lib" / name, prefix / "include" / name, target)

    @property
    def runs_here(self) -> bool:
        return self.target.platform == PLATFORM

    @property
    def is_portable(self) -> bool:
        """Whether it brings all libraries that it loads."""
        return is_standalone(self.prefix)

    @property
    def is_of_the_same_build(self) -> bool:
        """Whether the running one has the same libraries: of one upstream release, all machines' archives have."""
        if self.runs_here:
            return True
        here, it = unpacked_from(Path(sys.base_prefix)), unpacked_from(self.prefix)
        return bool(here and it and (here.version, here.release) == (it.version, it.release))


def shipped_interpreter(platform: str, cache: Path, mirror: str) -> Interpreter:
    """Return the interpreter of a release for `platform`, from `cache` or `mirror` as for `standalone_python`.

    Raises UserError if the running one cannot be shipped; if another machine's cannot be had, or is of another minor
    version than the running one, which compiles the modules.
    """
    if platform == PLATFORM:
        return Interpreter.running()
    machine = MACHINES[platform]
    try:
        program = standalone_python(cache, mirror, machine)
    except UnavailableError as error:
        raise UserError(
            f"the portable interpreter for {machine} cannot be had: {error}",
            "name a place that has it: --python-mirror",
        ) from error
    found = Interpreter.unpacked(program.parents[1], platform)
    if found.target.minor != running_target().minor:
        raise UserError(
            f"the interpreter for {machine} is Python {found.target.minor}, and Python {running_target().minor} cannot "
            "compile for it",
            f"build with Python {found.target.minor}: --python PATH",
        )
    return found
