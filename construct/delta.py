"""`release.py build --delta OLD.sh`: an installer as far as it differs from an older one.

An installer is a plain tar, and most packages are the same bytes in two releases. All members begin at multiples of
512 bytes, so what both files have is found block by block, wherever and whatever it is. On the target, delta.sh makes
the whole file of both and checks its sha256; so nothing else has to know, check, or install a delta.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from construct.contents import read_installer
from construct.installer import fill_in
from recipe.errors import UserError
from recipe.files import file_sha256

HEADER = Path(__file__).with_name("delta.sh")
BLOCK = 512  # bytes, as tar has it
SHORTEST = 8 * BLOCK  # what is shorter is not worth two processes on the target
ALIGNMENT = 4096  # of what follows the header


@dataclass
class Segment:
    """`length` bytes of the whole installer from `offset` on: of the older one if they are shared, else of itself."""

    shared: bool
    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def require_base(old: Path, name: str, label: str, platform: str) -> str:
    """Return the label of the installer `old`. Raises UserError unless it is another release of this distribution."""
    release = read_installer(old).release
    what = f"{release.get('name')} {release.get('version')} for {release.get('platform')}"
    if (release.get("name"), release.get("platform")) != (name, platform) or release.get("version") == label:
        raise UserError(
            f"{old} is {what}: no base for a delta of {name} {label} for {platform}",
            f"name the installer of an older {name} for this platform",
        )
    return str(release["version"])


def write_delta(old: Path, whole: Path, name: str, label: str, old_label: str) -> Path:
    """Write what the installer `whole` has beside `old`, and its .sha256, beside `whole`; return its path.

    The same two files give the same bytes.
    """
    path = whole.with_name(f"{whole.stem}.from-{old_label}.sh")
    staged = path.with_name(f".{path.name}.new")
    with old.open("rb") as before, whole.open("rb") as after, staged.open("wb") as file:
        plan = segments(before, after)
        values = {
            "NAME": name,
            "RELEASE": label,
            "MACHINE": whole.stem.rpartition("-")[2],
            "OLD": old_label,
            "FILE": path.name,
            "OLD_FILE": old.name,
            "OLD_SHA256": file_sha256(old),
            "WHOLE": whole.name,
            "WHOLE_SHA256": file_sha256(whole),
            "SEGMENTS": "\n".join(lines(plan)),
        }
        longest = len(fill_in(HEADER.read_text(), {**values, "START": "9" * 12}))
        start = -(-longest // ALIGNMENT) * ALIGNMENT
        file.write(fill_in(HEADER.read_text(), {**values, "START": start}).encode().ljust(start, b"\n"))
        for one in plan:
            if not one.shared:
                after.seek(one.offset)
                file.write(after.read(one.length))
    staged.chmod(0o755)
    staged.replace(path)
    path.with_name(f"{path.name}.sha256").write_text(f"{file_sha256(path)}  {path.name}\n")
    return path


def lines(plan: Sequence[Segment]) -> Iterator[str]:
    """Yield delta.sh's line for each segment. In a delta the new ones follow each other."""
    written = 0
    for one in plan:
        yield f"{'old' if one.shared else 'new'} {one.offset if one.shared else written} {one.length}"
        written += 0 if one.shared else one.length


def segments(old: BinaryIO, whole: BinaryIO) -> list[Segment]:
    """Return what makes the file `whole`, in order: what `old` has in stretches of SHORTEST or more, and the rest."""
    places: dict[bytes, int] = {}
    for offset, block in blocks(old):
        places.setdefault(block, offset)
    found: list[Segment] = []
    for offset, block in blocks(whole):
        last = found[-1] if found else Segment(False, 0, 0)
        place = last.end if last.shared and digest_at(old, last.end) == block else places.get(block)
        append(found, Segment(place is not None, offset if place is None else place, BLOCK))
    plan: list[Segment] = []
    done = 0
    for one in found:
        shared = one.shared and one.length >= SHORTEST
        append(plan, Segment(shared, one.offset if shared else done, one.length))
        done += one.length
    plan[-1].length -= done - whole.seek(0, os.SEEK_END)  # the last block may be a short one
    return plan


def append(plan: list[Segment], one: Segment) -> None:
    """Add a segment to the plan, or to the last one if it continues that."""
    if plan and plan[-1].shared == one.shared and plan[-1].end == one.offset:
        plan[-1].length += one.length
    else:
        plan.append(one)


def blocks(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield offset and digest of each block."""
    for offset in range(0, file.seek(0, os.SEEK_END), BLOCK):
        yield offset, digest_at(file, offset)


def digest_at(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return hashlib.blake2b(file.read(BLOCK), digest_size=16).digest()
