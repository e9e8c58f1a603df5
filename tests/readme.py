"""The commands of README.md, so that tests can run them."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def commands(part: str) -> list[str]:
    """The indented lines of a `## ` part that are commands."""
    text = README.partition(f"## {part}\n")[2].partition("\n## ")[0]
    return [line.strip() for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE) if "->" not in line]


def admin_commands(part: str, installer: str, edit: str) -> list[str]:
    """The commands of an overlay's part for a machine's root shell: the file to install is `installer`, and what an
    administrator does in an editor is done by `edit`, a command to which the file's name is added."""
    found = [line.removeprefix("sudo ") for line in commands(part) if "release.py" not in line]
    return [re.sub(r"^vi ", f"{edit} ", re.sub(r"\S+-Linux-x86_64\.sh", installer, line)) for line in found]
