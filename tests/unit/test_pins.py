"""recipe.pins: what pip leaves to us."""

import contextlib
import os
from pathlib import Path
from unittest import mock

import pytest
from packaging.requirements import Requirement

from recipe import pins
from recipe.errors import UserError
from recipe.pins import Pin
from recipe.venv import leave_settings
from tests.unit import wheels


def test_a_requirement_of_another_python_than_the_running_one_is_found() -> None:
    requires = [Requirement('backport; python_version < "3.13"'), Requirement("always")]
    resolved = {"one": Pin("1.0", set(), requires), "always": Pin("1.0", set())}
    assert pins.missing_for("3.12", "x86_64", resolved) == ['backport; python_version < "3.13"']
    assert pins.missing_for("3.13", "x86_64", resolved) == []


def test_only_extras_that_were_asked_for_count() -> None:
    requires = [Requirement('more; extra == "full"')]
    assert pins.missing_for("3.12", "x86_64", {"one": Pin("1.0", set(), requires)}) == []
    assert pins.missing_for("3.12", "x86_64", {"one": Pin("1.0", set(), requires, frozenset({"full"}))}) != []


def test_what_is_rendered_is_read_back(tmp_path: Path) -> None:
    written = {"one": Pin("1.0", {"a" * 64, "b" * 64}), "two": Pin("2!1.0.post1", {"c" * 64})}
    (tmp_path / "wheels.txt").write_text(pins.render(written, "title"))
    assert pins.read(tmp_path / "wheels.txt") == written


@pytest.mark.parametrize("line", ["one>=1.0 --hash=sha256:" + "a" * 64, "one==1.0", "one==1.0 --hash=sha256:abc"])
def test_an_unpinned_requirement_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "wheels.txt").write_text(line + "\n")
    with pytest.raises(UserError, match="not a pinned requirement: one"):
        pins.read(tmp_path / "wheels.txt")


def test_the_oldest_glibc_comes_first() -> None:
    """pip takes the wheel whose platform is named first: the installer is to run on old systems."""
    options = pins.wheel_platform_options("3.12", "aarch64")
    assert options.index("--platform=manylinux2014_aarch64") < options.index("--platform=manylinux_2_28_aarch64")


def test_a_requirement_of_one_machine_is_one_of_the_lock() -> None:
    requires = [Requirement('greenlet; platform_machine == "aarch64"')]
    resolved = {"one": Pin("1.0", set(), requires)}
    assert pins.missing_for("3.12", "x86_64", resolved) == []
    assert pins.missing_for("3.12", "aarch64", resolved) == ['greenlet; platform_machine == "aarch64"']


def test_what_the_caller_has_set_for_other_work_of_pips_does_not_count(tmp_path: Path) -> None:
    """As on a machine where people install for themselves, with a module loaded, in any directory."""
    sha256 = wheels.make(tmp_path, "one").sha256
    (tmp_path / "json.py").write_text("raise SystemExit('another json')")
    (tmp_path / "pip.conf").write_text("[install]\nuser = true\n")
    hostile = {"PIP_USER": "1", "PIP_TARGET": "/nowhere", "PIP_PREFIX": "/nowhere", "PIP_PLATFORM": "any"}
    hostile |= {"PIP_CONFIG_FILE": f"{tmp_path}/pip.conf", "PYTHONPATH": f"{tmp_path}"}
    wanted = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{tmp_path}", "PIP_UPLOADED_PRIOR_TO": "P9D"}
    with mock.patch.dict(os.environ, hostile | wanted), contextlib.chdir(tmp_path):
        leave_settings(os.environ)
        assert wanted.items() <= os.environ.items()
        assert pins.resolve(["one"], "3.12") == {"one": Pin("1.0", {sha256})}
