"""The systems that people run, by the glibc and the systemd they have: what a release's numbers mean.

The one table: the last lines of a build, the installer's refusals and the documents take the names from here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

MINIMUM_SYSTEMD = 239  # the oldest one whose handling of our units has been read up: post_install/SYSTEMD.md


@dataclass(frozen=True)
class System:
    """A version of a system. Those of a family follow each other, the oldest first."""

    family: str
    version: str
    glibc: tuple[int, int]
    systemd: int

    def runs(self, glibc: tuple[int, int]) -> bool:
        """Return whether a release that needs this glibc runs here."""
        return self.glibc >= glibc and self.systemd >= MINIMUM_SYSTEMD


SYSTEMS = (
    System("EL", "7", (2, 17), 219),
    System("EL", "8", (2, 28), 239),
    System("EL", "9", (2, 34), 252),
    System("EL", "10", (2, 39), 257),
    System("Leap/SLES", "15.3", (2, 31), 246),
    System("Leap/SLES", "15.5", (2, 31), 249),
    System("Leap/SLES", "15.6", (2, 38), 254),
    System("openEuler", "22.03", (2, 34), 249),
    System("openEuler", "24.03", (2, 38), 255),
    System("Amazon Linux", "2023", (2, 34), 252),
    System("Ubuntu", "18.04", (2, 27), 237),
    System("Ubuntu", "20.04", (2, 31), 245),
    System("Ubuntu", "22.04", (2, 35), 249),
    System("Ubuntu", "24.04", (2, 39), 255),
    System("Debian", "10", (2, 28), 241),
    System("Debian", "11", (2, 31), 247),
    System("Debian", "12", (2, 36), 252),
    System("Debian", "13", (2, 41), 257),
)


def runs_on(glibc: tuple[int, int]) -> str:
    """Return the systems that a release which needs this glibc runs on, like `EL 8+, Debian 10+`."""
    oldest: dict[str, str] = {}
    for system in SYSTEMS:
        if system.runs(glibc):
            oldest.setdefault(system.family, f"{system.family} {system.version}+")
    return ", ".join(oldest.values()) or "none of the known systems"


def lost(glibc: tuple[int, int], least: tuple[int, int] = (2, 25)) -> str:
    """Return the systems that this glibc leaves out and that `least`, the portable interpreter's floor, does not."""
    return ", ".join(names(one for one in SYSTEMS if one.runs(least) and not one.runs(glibc)))


def names(systems: Iterable[System]) -> list[str]:
    """Return one word a family, with the versions: `EL 8 and 9`."""
    return [
        f"{family} {' and '.join(system.version for system in versions)}"
        for family, versions in groupby(systems, key=lambda system: system.family)
    ]


def parse_glibc(text: str) -> tuple[int, int]:
    """Return the numbers of a version like 2.28. Raises ValueError for anything else."""
    major, minor = text.split(".")
    return int(major), int(minor)
