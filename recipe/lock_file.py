"""The format of environment.lock.yml: read and written here and nowhere else.

A lock is a plain conda environment file whose lines are `name==version[build=...,sha256=...]`. This spelling is
accepted, and its hashes are enforced, by `conda env create -f`, constructor's `environment_file`, micromamba >= 2 and
py-rattler; but none of them compares the hashes of file:// packages, which is why we do. A lock of the recipe channel
pins versions only and names the sha256 of the wheels.txt that belongs to it: what is made on the building machine has
its build and sha256 in the copy of the lock in the installer.

Standard library only: `release.py verify` and `diff` run on a bare Python.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from recipe.errors import UserError

LOCK_NAME = "environment.lock.yml"
LINE = re.compile(
    r'(?P<quote>"?)(?P<name>[a-z0-9_][a-z0-9._-]*)(?P<operator>==|>=)(?P<version>[^\[\]=",\s]+)'
    r"(\[build=(?P<build>[^,\]]+),sha256=(?P<sha256>[0-9a-f]{64})\])?(?P=quote)"
)
# The comment that ends so is followed by one that holds nothing but the sha256.
WHEELS_FOLLOW = "whose own sha256 is"
NAME_A_LOCK = f"name an {LOCK_NAME}"
LOCK_AGAIN = "python3 release.py lock"


@dataclass(frozen=True)
class Line:
    """One package of a lock.

    version: exact, or `>=3.11` for the recipe channel's python. build, sha256: None where only the version is pinned.
    """

    name: str
    version: str
    build: str | None = None
    sha256: str | None = None

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Read one item of the lock's list. Raises UserError, naming `where`, for anything but a locked package."""
        match = LINE.fullmatch(text)
        if not match:
            raise UserError(f"{where}: not a locked package: {text}", NAME_A_LOCK)
        version = match["version"] if match["operator"] == "==" else f">={match['version']}"
        return cls(match["name"], version, match["build"], match["sha256"])

    @property
    def constraint(self) -> str:
        """The version as conda's match specifications spell it: `==1.2` or `>=3.11`."""
        return self.version if self.version.startswith(">=") else f"=={self.version}"

    @property
    def archive_stem(self) -> str:
        """The archive's file name without its suffix, where the build is pinned."""
        return f"{self.name}-{self.version}-{self.build}"

    def __str__(self) -> str:
        return f"{self.name}{self.constraint}" + (f"[build={self.build},sha256={self.sha256}]" if self.sha256 else "")


@dataclass(frozen=True)
class Lock:
    """The locked environment.

    lines: by package name. channels: where the packages come from, `./channel` for the recipe channel. comments: the
    text above. wheels_sha256: of the wheels.txt that the versions belong to, None for a lock of conda channels.
    where: what messages call this lock.
    """

    lines: Mapping[str, Line]
    name: str = "barehub"
    channels: tuple[str, ...] = ("./channel",)
    comments: tuple[str, ...] = ()
    wheels_sha256: str | None = None
    where: str = field(default=LOCK_NAME, compare=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the lock at `path`. Raises UserError if that cannot be read or is not a lock."""
        try:
            return cls.parse(path.read_text(), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {path}: {error}", NAME_A_LOCK) from error

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Read what `render` wrote. Raises UserError, naming `where`, for anything else."""
        name, section = "", ""
        comments: list[str] = []
        channels: list[str] = []
        lines: dict[str, Line] = {}
        for row in filter(None, map(str.strip, text.splitlines())):
            if row.startswith("#"):
                comments.append(row.removeprefix("#").strip())
            elif row.startswith("name:"):
                name = row.removeprefix("name:").strip()
            elif row in ("channels:", "dependencies:"):
                section = row
            elif section == "channels:":
                channels.append(row.removeprefix("- ").strip())
            elif section == "dependencies:" and row.startswith("- "):
                line = Line.parse(row.removeprefix("- ").strip(), where)
                if line.name in lines:
                    raise UserError(f"{where} locks {line.name} twice", LOCK_AGAIN)
                lines[line.name] = line
            else:
                raise UserError(f"{where} is not a lock: {row}", NAME_A_LOCK)
        if section != "dependencies:":
            raise UserError(f"{where} is not a lock", NAME_A_LOCK)
        wheels_sha256 = pop_wheels_sha256(comments)
        return cls(lines, name, tuple(channels), tuple(comments), wheels_sha256, where)

    def render(self) -> str:
        """Return the text of the file."""
        rows = []
        for comment in self.comments:
            rows.append(f"# {comment}")
            if comment.endswith(WHEELS_FOLLOW):
                rows.append(f"#   {self.wheels_sha256}")
        rows += [f"name: {self.name}", "channels:", *(f"  - {channel}" for channel in self.channels), "dependencies:"]
        # YAML takes an unquoted [ for the beginning of a list.
        rows += [f'  - "{line}"' if line.sha256 else f"  - {line}" for line in self.lines.values()]
        return "\n".join(rows) + "\n"

    @property
    def pins_versions_only(self) -> bool:
        """True for a lock of the recipe channel."""
        return not all(line.sha256 for line in self.lines.values())


def pop_wheels_sha256(comments: list[str]) -> str | None:
    """Remove the sha256 of wheels.txt from `comments` and return it; None if there is none."""
    for number, comment in enumerate(comments[1:], start=1):
        if comments[number - 1].endswith(WHEELS_FOLLOW) and re.fullmatch(r"[0-9a-f]{64}", comment):
            return comments.pop(number)
    return None
