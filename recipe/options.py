"""Options that several commands of release.py share. Standard library only."""

import argparse
from pathlib import Path


def add_source_options(command: argparse.ArgumentParser) -> None:
    """Add the options that say what the packages are, and where they come from."""
    command.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="NAME|URL|PATH",
        help="a conda channel, instead of wheels; may be given several times, the first one has precedence",
    )
    command.add_argument(
        "--overlay",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder with more packages and configuration; may be given several times, the last one has precedence",
    )
    command.add_argument(
        "--environment", type=Path, metavar="DIR", help="a folder of users' software: an installer without a hub"
    )
    command.add_argument(
        "--platform", choices=("linux-64", "linux-aarch64"), help="the machines it is for; default: those like this one"
    )


def add_python_options(command: argparse.ArgumentParser) -> None:
    """Add the options that say which interpreter is shipped."""
    command.add_argument(
        "--python",
        metavar="PATH",
        help="the interpreter to ship; `this` is the one that runs release.py; default: the one pinned in "
        "recipe/python.txt, which runs on old systems",
    )
    command.add_argument(
        "--python-mirror",
        metavar="URL|DIR",
        help="where that one's archive is, if not at its own place; default: BAREHUB_PYTHON_MIRROR",
    )
