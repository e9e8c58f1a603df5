"""The `barehub` command: BASE/hub/bin/barehub."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from barehub.errors import ERROR, HOOK, UserError
from barehub.layout import Layout

Say = Callable[[str], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (README.md, "Exit codes")."""
    arguments = parser().parse_args(argv)
    os.umask(0o022)  # whatever the caller's is
    with open(arguments.log, "a") if arguments.log else contextlib.nullcontext() as log:

        def say(text: str, file: TextIO = sys.stdout) -> None:
            print(text, file=file, flush=True)
            if log:
                print(text, file=log, flush=True)

        try:
            return arguments.command(arguments, say) or 0
        except UserError as error:
            say(f"error: {error}" + (f"\n  fix: {error.fix}" if error.fix else ""), sys.stderr)
            return error.code
        except PermissionError as error:
            say(f"error: {error}\n  fix: run this as root (sudo)", sys.stderr)
            return ERROR
        except OSError as error:  # a full disk, a file system that became read-only
            say(f"error: {error}\n  fix: mend that, then run this again", sys.stderr)
            return ERROR
        except KeyboardInterrupt:
            say("error: interrupted\n  fix: run it again", sys.stderr)
            return 130


WAIT = {"type": float, "default": 60, "metavar": "SECONDS", "help": "wait so long for servers that are just starting"}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="barehub", description="A barehub installation, seen from its own directory.")
    top.set_defaults(log=None)
    commands = top.add_subparsers(required=True, metavar="command")

    one = commands.add_parser("status", help="release, units, URL, health, config files, database; 0 when healthy")
    one.add_argument("--json", action="store_true", help="for machines")
    one.set_defaults(command=status)

    one = commands.add_parser("rollback", help="go back to an older release that is still there")
    one.add_argument("release", nargs="?", help="its label; by default the newest of the older ones")
    one.add_argument("-y", "--yes", action="store_true", help="do not ask")
    one.add_argument("--wait", **WAIT)
    one.set_defaults(command=rollback)

    one = commands.add_parser("uninstall", help="remove the units, the account the installer made, and BASE")
    one.add_argument("-y", "--yes", action="store_true", help="do not ask")
    one.set_defaults(command=uninstall)

    one = commands.add_parser("run", help="run hub and proxy in the foreground, where there is no systemd")
    one.set_defaults(command=run)

    one = commands.add_parser("install", help="the post-install hooks; the installer runs them")
    one.add_argument("--base", type=Path, required=True)
    one.add_argument("--release", required=True)
    options = ("--name", "--hub-user", "--proxy-user", "--bind-url", "--tls-cert", "--tls-key")
    for option in (*options, "--acme-email", "--acme-ca-server", "--acme-ca-bundle"):
        one.add_argument(option)
    one.add_argument("--no-start", action="store_true")
    one.add_argument("--wait", **WAIT)
    one.add_argument("--keep", type=int, default=2, help="releases that stay after an upgrade")
    one.add_argument("--no-db-backup", action="store_true", help="a database that is not SQLite's has been backed up")
    one.add_argument("--require-same-packages", action="store_true", help="refuse to lose packages added by hand")
    one.add_argument("--log", help="append what is said to a file too")
    one.add_argument("--restart", action="store_true", help="the release's files were replaced")
    one.set_defaults(command=install)
    return top


def status(arguments: argparse.Namespace, _: Say) -> int:
    from barehub.status import look, show

    return show(look(Layout.from_environment()), arguments.json)


def uninstall(arguments: argparse.Namespace, say: Say) -> None:
    from barehub.lifecycle.uninstall import uninstall

    uninstall(Layout.from_environment(), sure=arguments.yes, ask=input, say=say)


def run(_: argparse.Namespace, __: Say) -> int:
    from barehub.foreground import run

    return run(Layout.from_environment())


def install(arguments: argparse.Namespace, say: Say) -> None:
    from barehub.lifecycle.install import Request, install

    request = Request(
        release=arguments.release,
        name=arguments.name,
        hub_user=arguments.hub_user,
        proxy_user=arguments.proxy_user,
        bind_url=arguments.bind_url,
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        acme_email=arguments.acme_email,
        acme_ca_server=arguments.acme_ca_server,
        acme_ca_bundle=arguments.acme_ca_bundle,
        start=not arguments.no_start,
        restart=arguments.restart,
        wait=arguments.wait,
        keep=arguments.keep,
        back_up=not arguments.no_db_backup,
        same_packages=arguments.require_same_packages,
    )
    end_in_order()
    try:
        install(Layout(arguments.base), request, say)
    except UserError as error:
        error.code = HOOK if error.code == ERROR else error.code
        raise


def rollback(arguments: argparse.Namespace, say: Say) -> None:
    from barehub.lifecycle.rollback import rollback

    end_in_order()
    layout = Layout.from_environment()
    rollback(layout, arguments.release, sure=arguments.yes, wait=arguments.wait, ask=input, say=say)


def end_in_order() -> None:
    """Have these signals end the work where it can be undone, as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
