"""The `barehub` command: BASE/hub/bin/barehub."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from barehub.errors import UserError
from barehub.layout import Layout


def say(text: str) -> None:
    print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (README.md, "Exit codes")."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.command(arguments) or 0
    except UserError as error:
        print(f"error: {error}" + (f"\n  fix: {error.fix}" if error.fix else ""), file=sys.stderr)
        return error.code
    except PermissionError as error:
        print(f"error: {error}\n  fix: run this as root (sudo)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; run it again", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="barehub", description="A barehub installation, seen from its own directory.")
    commands = top.add_subparsers(required=True, metavar="command")

    one = commands.add_parser("status", help="release, units, URL, health, config files, database; 0 when healthy")
    one.add_argument("--json", action="store_true", help="for machines")
    one.set_defaults(command=status)

    one = commands.add_parser("uninstall", help="remove the units, the account the installer made, and BASE")
    one.add_argument("-y", "--yes", action="store_true", help="do not ask")
    one.set_defaults(command=uninstall)

    one = commands.add_parser("run", help="run hub and proxy in the foreground, where there is no systemd")
    one.set_defaults(command=run)

    one = commands.add_parser("install", help="the post-install hooks; the installer runs them")
    one.add_argument("--base", type=Path, required=True)
    one.add_argument("--release", required=True)
    for option in ("--name", "--hub-user", "--proxy-user", "--bind-url"):
        one.add_argument(option)
    one.add_argument("--no-start", action="store_true")
    one.add_argument("--restart", action="store_true", help="the release's files were replaced")
    one.set_defaults(command=install)
    return top


def status(arguments: argparse.Namespace) -> int:
    from barehub.status import look, show

    return show(look(Layout.from_environment()), arguments.json)


def uninstall(arguments: argparse.Namespace) -> None:
    from barehub.uninstall import uninstall

    uninstall(Layout.from_environment(), sure=arguments.yes, ask=input, say=say)


def run(_: argparse.Namespace) -> int:
    from barehub.foreground import run

    return run(Layout.from_environment())


def install(arguments: argparse.Namespace) -> None:
    from barehub.install import Request, install

    request = Request(
        release=arguments.release,
        name=arguments.name,
        hub_user=arguments.hub_user,
        proxy_user=arguments.proxy_user,
        bind_url=arguments.bind_url,
        start=not arguments.no_start,
        restart=arguments.restart,
    )
    install(Layout(arguments.base), request, say)
