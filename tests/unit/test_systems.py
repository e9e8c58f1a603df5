"""construct.systems and construct.floor: what a glibc version means, and what raises it."""

import json
import os
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from construct.floor import is_reach_lost, parse_limit, require_floor
from construct.systems import MINIMUM_SYSTEMD, SYSTEMS, lost, runs_on
from recipe.elf import glibc_version
from recipe.errors import UserError


def test_the_last_lines_name_systems() -> None:
    everywhere = runs_on((2, 25))
    assert everywhere == ("EL 8+, Leap/SLES 15.3+, openEuler 22.03+, Amazon Linux 2023+, Ubuntu 20.04+, Debian 10+")
    assert runs_on((2, 36)) == "EL 10+, Leap/SLES 15.6+, openEuler 24.03+, Ubuntu 24.04+, Debian 12+"
    assert runs_on((9, 9)) == "none of the known systems"


def test_what_a_newer_floor_costs_is_named() -> None:
    assert lost((2, 25)) == ""
    assert lost((2, 36)).startswith("EL 8 and 9, Leap/SLES 15.3 and 15.5, openEuler 22.03")


def test_a_plus_is_true_of_every_later_version() -> None:
    for older, newer in pairwise(SYSTEMS):
        if older.family == newer.family:
            assert older.glibc <= newer.glibc
            assert older.systemd <= newer.systemd


def test_a_system_with_too_old_a_systemd_is_not_named() -> None:
    assert [one.version for one in SYSTEMS if one.systemd < MINIMUM_SYSTEMD] == ["7", "18.04"]
    assert "18.04" not in runs_on((2, 17))


def test_what_needs_a_newer_glibc_is_named_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    library = tmp_path / "lib/python"
    shutil.copyfile(Path(sys.executable).resolve(), library)
    (tmp_path / "conda-meta").mkdir()
    record = {"name": "demo", "version": "1.0", "files": ["lib/python"]}
    (tmp_path / "conda-meta/demo-1.0-0.json").write_text(json.dumps(record))
    require_floor(tmp_path, None)
    require_floor(tmp_path, glibc_version(library))
    with pytest.raises(UserError, match=r"1 files need a newer glibc than 2\.1:\n.*lib/python \(demo 1\.0\)"):
        require_floor(tmp_path, (2, 1))


def test_a_limit_is_a_version() -> None:
    assert parse_limit(None) is None
    assert parse_limit("2.28") == (2, 28)
    for text in ("2", "new", "2.x"):
        with pytest.raises(UserError, match="is not a version of glibc"):
            parse_limit(text)


def test_an_interpreter_that_was_asked_for_is_not_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "base_prefix", os.fspath(tmp_path / "python"))
    assert is_reach_lost([], any_python=False)
    assert not is_reach_lost([], any_python=True)
    assert not is_reach_lost(["conda-forge"], any_python=False)
    (tmp_path / "standalone").touch()
    assert not is_reach_lost([], any_python=False)
