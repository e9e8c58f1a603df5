"""Reads from ELF files what they need of the system: a glibc, and libraries."""

import re
from collections.abc import Iterable
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from recipe.errors import UserError

# The libraries that glibc itself brings; every other library that a program loads must be shipped with it.
GLIBC_LIBRARIES = re.compile(
    r"(ld-linux-(x86-64|aarch64)|lib(c|m|mvec|dl|rt|pthread|util|resolv|anl|BrokenLocale|thread_db))\.so\.\d+|linux-vdso\.so\.1"
)

MAGIC = b"\x7fELF"
E_MACHINE = {62: "x86_64", 183: "aarch64"}  # of elf(5): EM_X86_64, EM_AARCH64


def is_elf(path: Path) -> bool:
    """Return whether `path` is a regular file with ELF's magic number."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def machine(path: Path) -> str:
    """Return the machine that the ELF file at `path` is for, as uname(1) names it; a number if it is another one.

    Empty if the file ends before that.
    """
    with path.open("rb") as file:
        head = file.read(20)
    if len(head) < 20:
        return ""
    number = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return E_MACHINE.get(number, str(number))


def require_machine(paths: Iterable[Path], wanted: str, source: str) -> None:
    """Check that each ELF file among `paths` is for the machine `wanted`; `source` is where they come from.

    Raises UserError, naming the first one that is not.
    """
    for path in paths:
        if is_elf(path) and (found := machine(path)) not in ("", wanted):
            raise UserError(f"{path.name} of {source} is for {found}, not for {wanted}", "lock or pin another build")


def glibc_version(path: Path) -> tuple[int, int]:
    """Return the newest glibc symbol version that the ELF file at `path` requires; (0, 0) if it requires none.

    Read from .gnu.version_r, as the dynamic linker does
    (https://refspecs.linuxfoundation.org/LSB_5.0.0/LSB-Core-generic/LSB-Core-generic/symversion.html).
    """
    newest = (0, 0)
    with path.open("rb") as file:
        try:
            section = ELFFile(file).get_section_by_name(".gnu.version_r")
        except ELFError:
            return newest
        for _, versions in section.iter_versions() if isinstance(section, GNUVerNeedSection) else ():
            for version in versions:
                if match := re.fullmatch(r"GLIBC_(\d+)\.(\d+)(\.\d+)?", version.name):
                    newest = max(newest, (int(match[1]), int(match[2])))
                elif version.name == "GLIBC_ABI_DT_RELR":  # packed relocations: glibc 2.36's loader
                    newest = max(newest, (2, 36))
    return newest


def needed_libraries(path: Path) -> list[str]:
    """Return the libraries that the ELF file at `path` needs (DT_NEEDED), as it states them."""
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".dynamic")
        if not isinstance(section, DynamicSection):
            return []
        return [str(tag.needed) for tag in section.iter_tags("DT_NEEDED")]  # type: ignore[attr-defined]  # set by tag


def newest_glibc(paths: Iterable[Path]) -> tuple[int, int]:
    """Return the newest glibc that any ELF file among `paths` requires; (0, 0) if none requires one."""
    return max((glibc_version(path) for path in paths if is_elf(path)), default=(0, 0))
