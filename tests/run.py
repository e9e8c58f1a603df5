"""`release.py test`: has what the tests need, builds the installer they test, runs pytest."""

import os
from pathlib import Path

import pytest

from construct.build import build_release
from recipe.errors import UserError
from recipe.report import say
from tests import rootfs


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
    installer = build_release(root, date=None, output=root / ".cache/test-dist")
    os.environ["BAREHUB_INSTALLER"] = str(installer)
    os.chdir(root)
    # Unit tests first: what they find explains what the machines show.
    paths = [] if any(Path(one.split("::")[0]).exists() for one in arguments) else ["tests/unit", "tests/e2e"]
    return int(pytest.main([*arguments, *paths]))
