"""The `barehub` command: BASE/hub/bin/barehub."""

import argparse
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from barehub.errors import Exit, UserError, printable, render
from barehub.layout import Layout
from barehub.process import DEBUG, debugging

Say = Callable[[str], None]

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as in the installer


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status (`barehub help exit codes`)."""
    arguments = parser().parse_args(argv)
    os.umask(0o022)  # whatever the caller's is
    if os.geteuid() == 0 and arguments.command is not run:  # the hub that `run` starts has the caller's PATH
        os.environ["PATH"] = SYSTEM_PATH
    if arguments.debug:
        os.environ[DEBUG] = "1"  # for the commands that this one runs, too
    with open(arguments.log, "a") if arguments.log else contextlib.nullcontext() as log:

        def say(text: str, file: TextIO = sys.stdout) -> None:
            text = printable(text)
            print(text, file=file, flush=True)
            if log:
                print(text, file=log, flush=True)

        def fail(error: UserError) -> int:
            if debugging():
                say(traceback.format_exc().rstrip(), sys.stderr)
            say(render(error), sys.stderr)
            return error.code

        try:
            return arguments.command(arguments, say) or 0
        except UserError as error:
            return fail(error)
        except PermissionError as error:
            return fail(UserError(str(error), "run this as root (sudo)"))
        except OSError as error:  # a full disk, a file system that became read-only
            return fail(UserError(str(error), "fix the cause, then run this again"))
        except KeyboardInterrupt:
            return fail(UserError("interrupted", "run it again", 128 + signal.SIGINT))


WAIT: dict[str, Any] = {
    "type": float,
    "default": 60,
    "metavar": "SECONDS",
    "help": "how long to wait for servers that are still starting (default: %(default)s)",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of `barehub`; each command is a function below."""
    top = argparse.ArgumentParser(
        prog="barehub", description="Manage the barehub installation this command is part of."
    )
    top.set_defaults(log=None)
    debug: dict[str, Any] = {"action": "store_true", "help": f"show each command run, and tracebacks (or {DEBUG}=1)"}
    top.add_argument("--debug", **debug)
    commands = top.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Callable[[argparse.Namespace, Say], int | None], what: str) -> argparse.ArgumentParser:
        new = commands.add_parser(name, help=what)
        new.add_argument("--debug", **debug, default=argparse.SUPPRESS)  # else it would undo the one before the command
        new.set_defaults(command=command)
        return new

    one = add("status", status, "show release, units, URL, health, configuration files, database; 0 when healthy")
    how = one.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON")
    told = "print numbers for Prometheus, or write them to FILE.prom for node_exporter; 0 also when not healthy"
    how.add_argument("--prometheus", nargs="?", const="", metavar="FILE.prom", help=told)

    one = add("rollback", rollback, "go back to an older release that is still installed")
    one.add_argument("release", nargs="?", help="its label (default: the newest of the older releases)")
    one.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")
    one.add_argument("--wait", **WAIT)

    add("verify", verify, "compare every file of the release with what was released; 0 when none differs, else 5")

    one = add("backup", backup, "write all that an installer does not bring to one file; the hub may run")
    one.add_argument("file", help="the file to write, or - for standard output; the installer's --restore reads it")
    one.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")

    one = add("uninstall", uninstall, "remove the units, the account that the installer created, and BASE")
    one.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")

    one = add("help", guide, "show the administrator's guide")
    one.add_argument("topic", nargs="*", help="a section of it, such as: upgrade, https, exit codes")

    add("run", run, "run hub and proxy in the foreground, on a machine without systemd")

    add_install_options(add("install", install, "run the post-install hooks; the installer does that"))
    return top


def add_install_options(one: argparse.ArgumentParser) -> None:
    """Add the options of `barehub install`: BASE, the log, and one for each field of Request, by its name."""
    one.add_argument("--base", type=Path, required=True, help="the directory of the installation")
    one.add_argument("--log", help="append all output to this file too")

    one.add_argument("--release", required=True, help="label of the release to make active")
    one.add_argument("--name", help="stem of the units' names")
    one.add_argument("--hub-user", help="account of the hub")
    one.add_argument("--proxy-user", help="account of the proxy")
    one.add_argument("--bind-url", help="where people reach the hub")
    one.add_argument("--tls-cert", metavar="FILE", help="certificate for an https --bind-url")
    one.add_argument("--tls-key", metavar="FILE", help="key of the certificate")
    one.add_argument("--acme-email", help="get the certificate from an ACME server, with this address")
    one.add_argument("--acme-ca-server", metavar="URL", help="directory of the ACME server")
    one.add_argument("--acme-ca-bundle", metavar="FILE", help="certificate authorities that vouch for the ACME server")
    one.add_argument("--restore", metavar="FILE", help="put back what `barehub backup` has written to FILE")
    one.add_argument("--no-start", dest="start", action="store_false", help="start nothing")
    one.add_argument("--restart", action="store_true", help="the release's files were replaced")
    one.add_argument("--kept-channel", action="store_true", help="BASE/channel was written")
    one.add_argument("--wait", **WAIT)
    one.add_argument("--keep", type=int, default=2, help="releases that stay after an upgrade (default: %(default)s)")
    own_backup = "you have backed up your own database server"
    one.add_argument("--no-db-backup", dest="back_up", action="store_false", help=own_backup)
    lost = "refuse an upgrade that would lose packages added by hand"
    one.add_argument("--require-same-packages", dest="same_packages", action="store_true", help=lost)
    one.add_argument("--rehearse", action="store_true", help="try an upgrade beside the running hub, leave nothing")
    one.add_argument("--canary", metavar="USER", help="user whose server has to start there first")


def status(arguments: argparse.Namespace, _: Say) -> int:
    """Print how the installation is; return 0 when it is healthy, or when its numbers were published."""
    from barehub.metrics import publish
    from barehub.status import check, show

    found = check(Layout.from_environment())
    if arguments.prometheus is None:
        return show(found, arguments.json)
    publish(found, arguments.prometheus)
    return 0


def verify(_: argparse.Namespace, say: Say) -> None:
    """Check the release."""
    from barehub.verify import verify

    verify(Layout.from_environment(), say)


def backup(arguments: argparse.Namespace, say: Say) -> None:
    """Back up the installation."""
    from barehub.lifecycle.backup import back_up

    def say_aside(text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    end_in_order()
    piped = arguments.file == "-"
    target = None if piped else Path(arguments.file)
    back_up(Layout.from_environment(), target, overwrite=arguments.overwrite, say=say_aside if piped else say)


def uninstall(arguments: argparse.Namespace, say: Say) -> None:
    """Remove the installation."""
    from barehub.lifecycle.uninstall import uninstall

    uninstall(Layout.from_environment(), sure=arguments.yes, ask=ask, say=say)


def guide(arguments: argparse.Namespace, _: Say) -> None:
    """Show the guide of this release."""
    from barehub.guide import show

    show(Layout.from_environment().share, " ".join(arguments.topic))


def run(_: argparse.Namespace, __: Say) -> int:
    """Run hub and proxy in the foreground."""
    from barehub.foreground import run

    return run(Layout.from_environment())


def install(arguments: argparse.Namespace, say: Say) -> None:
    """Run the post-install hooks, with exit status 7 for errors that have none of their own."""
    from barehub.lifecycle.install import install
    from barehub.lifecycle.options import Request

    request = Request(**{field.name: getattr(arguments, field.name) for field in fields(Request)})
    end_in_order()
    try:
        install(Layout(arguments.base), request, say)
    except UserError as error:
        error.code = Exit.HOOK if error.code == Exit.ERROR else error.code
        raise


def rollback(arguments: argparse.Namespace, say: Say) -> None:
    """Go back to an older release."""
    from barehub.lifecycle.rollback import rollback

    end_in_order()
    layout = Layout.from_environment()
    rollback(layout, arguments.release, sure=arguments.yes, wait=arguments.wait, ask=ask, say=say)


def ask(question: str) -> str:
    """Return the answer to a question; empty, which agrees to nothing, if there is no one to answer."""
    try:
        return input(question)
    except EOFError:
        print()
        return ""


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP end the work where it can be undone, as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup
        signal.signal(number, lambda number, _: sys.exit(128 + number))
