"""Runs a program for the build, quietly and without a terminal, so that nothing can stop and ask."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipe.errors import UserError


def run_quietly(
    words: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    problem: str,
    fix: str,
    last_lines: int | None = None,
) -> None:
    """Run a program in exactly this environment.

    Raises UserError with `problem` and what the program printed, or its `last_lines`, if it fails.
    """
    done = subprocess.run(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        printed = done.stdout.strip().splitlines()[-last_lines if last_lines else None :]
        raise UserError(f"{problem}:\n" + "\n".join(printed), fix)
