"""tests.machines.vendor_python: a vendor's portable interpreter becomes what --python-mirror names."""

import os
import subprocess
from pathlib import Path

import pytest

from recipe import standalone
from recipe.standalone import UnavailableError, standalone_python
from tests.machines.vendor_python import offer_vendor_python


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A vendor's interpreter, a script; the pinned one cannot be reached."""

    def nothing_answers(where: str) -> None:
        raise UnavailableError(where)

    for name in ("BAREHUB_PYTHON_PINS", "BAREHUB_PYTHON_MIRROR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")  # so that it is put back
    monkeypatch.setattr(standalone, "SOURCE", os.fspath(tmp_path / "nowhere"))
    program = tmp_path / "vendor/bundled/bin/python3"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho Python 3.12.99\n")
    program.chmod(0o755)
    return tmp_path / "vendor/bundled"


def test_it_is_what_the_mirror_has(bundled: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    mirror = offer_vendor_python(cache, bundled)
    python = standalone_python(cache, mirror)
    assert "3.12.99" in subprocess.run([python], capture_output=True, text=True, check=True).stdout
    assert offer_vendor_python(cache, bundled) == ""  # it is there


def test_a_machine_without_one_has_no_mirror(bundled: Path, tmp_path: Path) -> None:
    assert offer_vendor_python(tmp_path / "cache", bundled / "nothing") == ""
    assert not os.environ["BAREHUB_PYTHON_PINS"]
