"""`barehub help`: the administrator's guide, which the release ships, and the guides of its overlays.

share/barehub/ADMIN.md         each `## ` heading is a topic
share/barehub/guides/NAME.md   the README.md of the overlay NAME, one topic
"""

import pydoc
import re
from pathlib import Path

from barehub.errors import Exit, UserError


def show(share: Path, topic: str) -> None:
    """Show the guide in `share`, a release's share/barehub, or the part of it that `topic` names, in a pager.

    $PAGER, else less; printed as it is where there is no terminal (pydoc.pager). Raises UserError if no part, or more
    than one, has that name.
    """
    pydoc.pager(find(share, topic) if topic else whole(share))


def whole(share: Path) -> str:
    """Return the administrator's guide, and below it which other topics there are."""
    others = [name for name in topics(share) if name not in sections(share)]
    more = f"\n## More topics\n\n`barehub help TOPIC`: {', '.join(others)}.\n" if others else ""
    return (share / "ADMIN.md").read_text() + more


def find(share: Path, topic: str) -> str:
    """Return the part with this name, or the only one whose name contains it. Raises UserError if there is none."""
    found, word = topics(share), topic.lower()
    names = [word] if word in found else [name for name in found if word in name]
    if len(names) != 1:
        what = f"no topic is named {topic}" if not names else f"{topic} names several topics: {', '.join(names)}"
        raise UserError(what, f"use one of: {', '.join(found)}", Exit.USAGE)
    return found[names[0]]


def topics(share: Path) -> dict[str, str]:
    """Return the text of each topic by its name: the guide's sections, then the overlays' guides."""
    return sections(share) | {path.stem: path.read_text() for path in sorted((share / "guides").glob("*.md"))}


def sections(share: Path) -> dict[str, str]:
    """Return the sections of the administrator's guide by their headings in lower case."""
    parts = re.split(r"^(?=## )", (share / "ADMIN.md").read_text(), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].removeprefix("## ").lower(): part for part in parts}
