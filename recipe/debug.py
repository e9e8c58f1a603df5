"""What `release.py --debug` shows: each program that is started, as a line to paste. Standard library only."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from recipe.errors import masked

Word = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def show(event: str, arguments: tuple[Any, ...]) -> None:
    """Print the program that is being started; a hook for Python's audit events (PEP 578)."""
    if event == "subprocess.Popen":
        _, words, directory, environment = arguments
        print(masked(pasteable(words, directory, environment)), file=sys.stderr, flush=True)


def pasteable(words: Sequence[Word], directory: Word | None, environment: Mapping[Any, Any] | None) -> str:
    """Return a line for a shell that runs `words` as here: in `directory`, with what `environment` adds to ours."""
    line = shlex.join(map(os.fsdecode, words))
    if environment is not None:
        more = {os.fsdecode(k): os.fsdecode(v) for k, v in environment.items()}
        line = "".join(f"{k}={shlex.quote(v)} " for k, v in more.items() if os.environ.get(k) != v) + line
    return f"+ (cd {shlex.quote(os.fsdecode(directory))} && {line})" if directory else f"+ {line}"
