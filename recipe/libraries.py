"""The libraries that an interpreter brings: for their licences, which are shipped, and for the SBOM.

What the distribution of the building machine supplies is a package of its own there, with its own licence text. What is
linked into the interpreter is named here, as the portable one's archive has CPython's licence alone; licenses/ has the
texts. A version is what the interpreter itself states; of some libraries it states none.
"""

import decimal
import json
import shutil
import sqlite3
import ssl
import subprocess
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from xml.parsers import expat

from recipe.elf import glibc_version

TEXTS = Path(__file__).with_name("licenses")
LISTED = Path("share/licenses/libraries.json")  # in the interpreter's prefix


@dataclass(frozen=True, order=True)
class Library:
    """A library inside the `python` package; `version` and `license` (an SPDX identifier) are empty if not known.

    `glibc` is what a library needs that comes from the building machine, like 2.34; empty if it is linked in.
    """

    name: str
    version: str = ""
    license: str = ""
    glibc: str = ""


def linked_in(shipped: Iterable[str], versions: bool = True) -> list[Library]:
    """Return the libraries that are linked into an interpreter: those of which no shared one is `shipped`.

    With their `versions` if it has the running one's.
    """
    known = {
        ("libbz2",): Library("bzip2", license="bzip2-1.0.6"),
        ("libexpat",): Library("expat", expat.EXPAT_VERSION.removeprefix("expat_"), "MIT"),
        ("libedit", "libreadline"): Library("libedit", license="BSD-3-Clause"),
        ("libffi",): Library("libffi", license="MIT"),
        ("libuuid",): Library("libuuid", license="BSD-3-Clause"),
        ("libmpdec",): Library("mpdecimal", getattr(decimal, "__libmpdec_version__", ""), "BSD-2-Clause"),
        ("libncurses", "libtinfo"): Library("ncurses", license="X11"),
        ("libssl",): Library("openssl", ssl.OPENSSL_VERSION.split()[1], "Apache-2.0"),
        ("libsqlite3",): Library("sqlite", sqlite3.sqlite_version, "blessing"),
        ("liblzma",): Library("xz", license="0BSD"),
        ("libz.",): Library("zlib", zlib.ZLIB_RUNTIME_VERSION, "Zlib"),
    }
    names = tuple(shipped)
    linked = [library for stems, library in known.items() if not any(name.startswith(stems) for name in names)]
    return linked if versions else [replace(library, version="") for library in linked]


def packaged(library: Path, stage: Path) -> Library:
    """Return the distribution's package of a shared library, whose licence text is copied into `stage` if there is one.

    Without dpkg, or for a file that it does not know, it is the file's own name.
    """
    glibc = "{}.{}".format(*glibc_version(library))
    if shutil.which("dpkg-query"):
        # Debian's /lib is a link to /usr/lib, and dpkg knows a file by one of the two names.
        for name in (library.resolve(), Path(str(library.resolve()).removeprefix("/usr"))):
            if package := dpkg_query("--search", name).partition(":")[0]:
                keep_text(Path("/usr/share/doc", package, "copyright"), stage / "share/licenses" / package)
                version = dpkg_query("--show", "--showformat=${Version}\\n", package).partition("\n")[0]
                return Library(package, version, glibc=glibc)
    return Library(library.name, glibc=glibc)


def dpkg_query(*words: str | Path) -> str:
    """Return what dpkg-query prints; nothing if it fails."""
    return subprocess.run(["dpkg-query", *words], capture_output=True, text=True, check=False).stdout


def keep_text(text: Path, target: Path) -> None:
    """Copy a licence text, if it is there."""
    if text.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(text, target)


def write_libraries(stage: Path, libraries: Iterable[Library]) -> None:
    """List the libraries in the prefix `stage`, with the texts of those that have one in licenses/."""
    found = sorted(set(libraries))
    for library in found:
        keep_text(TEXTS / f"{library.name}.txt", stage / "share/licenses" / library.name)
    (stage / LISTED).parent.mkdir(parents=True, exist_ok=True)
    (stage / LISTED).write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


def read_libraries(prefix: Path) -> list[Library]:
    """Return the libraries that the interpreter of `prefix` brings; none if it came from a conda channel."""
    if not (prefix / LISTED).is_file():
        return []
    return [Library(**one) for one in json.loads((prefix / LISTED).read_text())]
