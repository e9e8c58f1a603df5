"""`release.py test`: has what the tests need, builds the installer they test, runs pytest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from construct import conda_constructor, conda_ship
from construct.build import build_release
from recipe.errors import UserError
from recipe.report import say
from tests.machines import rootfs


def run_tests(root: Path, arguments: list[str]) -> int:
    """Run pytest with `arguments`; return its exit status.

    On Debian as root that includes the end-to-end tests, for which packages of the distribution are installed.
    Elsewhere they are skipped, and the summary says so.
    """
    try:
        rootfs.install_host_packages()
    except UserError as error:
        if os.environ.get("CI") == "true":
            raise
        say(f"the end-to-end tests cannot run here: {error}")
    os.chdir(root)
    # Unit tests first: what they find explains what the machines show.
    paths = [] if any(Path(one.split("::")[0]).exists() for one in arguments) else ["tests/unit", "tests/e2e"]
    os.environ["BAREHUB_INSTALLER"] = str(build_for_test(root, conda_ship.NAME))
    code = int(pytest.main([*arguments, *paths]))
    if conda_constructor.command() is None:
        say("constructor is not installed: nothing was tested with that engine")
    elif code == 0 and paths:
        say("once more with the engine constructor")
        os.environ["BAREHUB_INSTALLER"] = str(build_for_test(root, conda_constructor.NAME))
        code = subprocess.run([sys.executable, "-m", "pytest", *arguments, "tests/e2e"], check=False).returncode
    return code


def build_for_test(root: Path, engine: str) -> Path:
    return build_release(root, date=None, output=root / ".cache/test-dist" / engine, engine=engine)
