"""A release whose files are described, active in a BASE, for the tests of what has changed in it."""

import gzip
import hashlib
import json
import py_compile
from pathlib import Path

import pytest
from barehub import systemd
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.manifest import describe
from barehub.settings import Installation
from barehub.verify import verify

from tests.unit.installations import ME, NEW, belongs_to, make_release

SITE = "lib/python3.11/site-packages"
MODULE = f"{SITE}/demo/__init__.py"
DEMO = "demo-1.0-h0_0"


def make_verifiable(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A release as an engine leaves it, with a module, its bytecode, a program, and a link, complete and active."""
    make_release(layout, NEW)
    prefix = layout.prefix
    texts = {
        MODULE: "def answer():\n    return 42\n",
        f"{SITE}/demo/late.py": "late = {1, 2}\n",
        "bin/tool": "#!/bin/sh\n",
    }
    for path, text in texts.items():
        (prefix / path).parent.mkdir(parents=True, exist_ok=True)
        (prefix / path).write_text(text)
    (prefix / "bin/tool").chmod(0o755)
    (prefix / "bin/alias").symlink_to("tool")
    packaged = Path(str(py_compile.compile(str(prefix / MODULE)))).relative_to(prefix).as_posix()
    record(prefix, DEMO, [*texts, packaged, "bin/alias"])
    (prefix / "conda-meta/history").touch()
    layout.manifest.write_bytes(gzip.compress(describe(prefix).encode(), mtime=0))
    py_compile.compile(str(prefix / SITE / "demo/late.py"))  # as an engine does
    write_receipt(layout)
    ME.save(layout)
    layout.hub.symlink_to(f"releases/{NEW}")
    layout.units.mkdir()
    systemd.write_units(Installation(layout, ME))
    systemd.link_units(Installation(layout, ME))
    belongs_to(layout, monkeypatch)
    return layout


def record(prefix: Path, package: str, paths: list[str]) -> Path:
    """Write conda's record of a package."""
    entries = [
        {"_path": path, "path_type": "hardlink", "sha256": hashlib.sha256((prefix / path).read_bytes()).hexdigest()}
        for path in paths
    ]
    place = prefix / f"conda-meta/{package}.json"
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps({"paths_data": {"paths": entries}}))
    return place


def write_receipt(layout: Layout) -> None:
    """Write the receipt that names the manifest which is there."""
    files = [
        {"path": "manifest.gz", "sha256": hashlib.sha256(layout.manifest.read_bytes()).hexdigest()},
        {"path": f"channel/noarch/{DEMO}.conda", "sha256": "0" * 64},
    ]
    receipt = {"name": "barehub", "version": NEW, "platform": "linux-64", "files": files}
    layout.receipt(NEW).write_text(json.dumps(receipt))


def verified(layout: Layout) -> tuple[int, list[str]]:
    """The exit status of `barehub verify`, and the lines that it prints, the one of the error last."""
    said: list[str] = []
    error = None
    try:
        verify(layout, said.append)
    except UserError as caught:
        error = caught
    if error is None:
        return 0, said
    assert error.fix
    assert "\n" not in str(error)
    return error.code, [*said, str(error)]


def found(layout: Layout) -> tuple[int, set[tuple[str, str]]]:
    """The exit status, and what was found: (modified, PATH) and so on."""
    code, said = verified(layout)
    lines = [line.split(maxsplit=2) for line in said if line.startswith("  ")]
    return code, {(what, path.rstrip(":")) for what, path, *_ in lines}
