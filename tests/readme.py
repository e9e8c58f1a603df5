"""The commands in the project's documents, so that tests can run them: the lines that are indented by four spaces."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ADMIN = ROOT / "post_install/data/share/barehub/ADMIN.md"
BUILDERS = (
    ROOT / "construct/README.md",
    ROOT / "construct/environments/README.md",
    ROOT / "recipe/README.md",
    ROOT / "tests/README.md",
)


def guide(overlay: str) -> Path:
    """Return the document of an overlay."""
    return ROOT / "construct/overlays" / overlay / "README.md"


def documents() -> list[Path]:
    """Return every document of the project."""
    found = [ROOT / ".github/CONTRIBUTING.md", *ROOT.glob("*.md")]
    for room in ("construct", "post_install", "recipe", "tests"):
        found += (ROOT / room).rglob("*.md")
    return found


def commands(document: Path) -> list[str]:
    """Return the commands in a document, in order. What stands between ``` is not for tests to run."""
    plain = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [line.strip() for line in re.findall(r"^    (\S.*)$", plain, re.MULTILINE)]


def admin_commands(overlay: str, installer: str, edit: str) -> list[str]:
    """Return the commands in an overlay's document for a machine's root shell.

    The file to install is `installer`. What an administrator does in an editor is done by `edit`, a command to which
    the file's name is added.
    """
    found = [line.removeprefix("sudo ") for line in commands(guide(overlay)) if "release.py" not in line]
    return [re.sub(r"^vi ", f"{edit} ", re.sub(r"\S+-Linux-x86_64\.sh", installer, line)) for line in found]
