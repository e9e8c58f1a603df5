"""recipe.interpreter: the running CPython, made to run from anywhere."""

import os
import runpy
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.elf import GLIBC_LIBRARIES, glibc_version, is_elf, newest_glibc
from recipe.errors import UserError
from recipe.interpreter import LEFT_OUT, neutral_sysconfig, require_own, stage_interpreter
from recipe.libraries import Library, linked_in, read_libraries
from recipe.shipped import Interpreter

VERSION = "python{}.{}".format(*sys.version_info)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage = tmp_path_factory.mktemp("stage")
    stage_interpreter(stage, Interpreter.running())
    # Moved: nothing may depend on where it was staged, nor on a short path without spaces.
    assert not [path for path in stage.rglob("*") if path.suffix in (".a", ".pyc")]
    moved = tmp_path_factory.mktemp("moved") / ("a b" + "x" * 130)
    shutil.move(stage, moved)
    return moved


def output(prefix: Path, program: str, **environment: str) -> str:
    command = [prefix / "bin/python", "-c", program]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_it_runs_from_another_place_with_all_that_a_hub_imports(prefix: Path) -> None:
    modules = "ssl, sqlite3, ctypes, lzma, bz2, readline, curses, uuid, zoneinfo, multiprocessing.shared_memory"
    assert output(prefix, f"import {modules}, sys; print(sys.prefix)") == str(prefix)


def test_its_libraries_are_its_own_whatever_the_caller_has_loaded(prefix: Path, tmp_path: Path) -> None:
    for library in (prefix / "lib").glob("lib*.so*"):
        (tmp_path / library.name).write_text("not a library")
    program = "import ssl, sqlite3; print(open('/proc/self/maps').read())"
    maps = output(prefix, program, LD_LIBRARY_PATH=str(tmp_path))
    loaded = {line.split(maxsplit=5)[5] for line in maps.splitlines() if ".so" in line}
    strangers = [p for p in loaded if not p.startswith(str(prefix)) and not GLIBC_LIBRARIES.fullmatch(Path(p).name)]
    assert not strangers


def test_the_build_machine_is_not_in_its_configuration(prefix: Path) -> None:
    program = "import sysconfig; print(sysconfig.get_config_vars())"
    told = output(prefix, program)
    assert sys.base_prefix == "/usr" or sys.base_prefix not in told
    assert str(prefix / "include") in told
    assert "/usr/share/zoneinfo" in output(prefix, "import zoneinfo; print(zoneinfo.TZPATH)")


def test_every_library_inside_is_listed_with_its_licence(prefix: Path) -> None:
    listed = read_libraries(prefix)
    assert len({one.name for one in listed}) == len(listed)
    for one in listed:
        assert one.glibc or one.license
        assert (prefix / "share/licenses" / one.name).read_text(), one
    inside = " ".join(one.name for one in listed)
    for name in ("bz", "expat", "ffi", "uuid", "ncurses", "ssl", "sqlite", "mpdec"):
        assert name in inside
    assert Library("openssl", ssl.OPENSSL_VERSION.split()[1], "Apache-2.0") in linked_in(())
    assert "openssl" not in {one.name for one in linked_in(["libssl.so.3"])}


def test_tests_tk_and_static_libraries_are_left_out(prefix: Path) -> None:
    names = {path.name for path in prefix.rglob("*")}
    assert not names & {"tkinter", "idlelib", "test", "turtledemo", "EXTERNALLY-MANAGED"}
    assert "unittest" in names
    assert not LEFT_OUT.search("lib/testing.py")


def test_packages_go_where_conda_puts_them(prefix: Path) -> None:
    places = output(prefix, "import sysconfig; print(sysconfig.get_path('purelib'))")
    assert places == str(prefix / "lib" / VERSION / "site-packages")
    (prefix / "lib" / VERSION / "site-packages/found.py").write_text("")
    output(prefix, "import found")


def test_the_glibc_it_needs_is_at_most_this_machines(prefix: Path) -> None:
    needed = newest_glibc(prefix.rglob("*"))
    here = tuple(map(int, os.confstr("CS_GNU_LIBC_VERSION").split()[1].split(".")))
    assert (2, 2) < needed <= here
    assert needed >= glibc_version(prefix / "bin" / VERSION)
    assert not is_elf(prefix / "bin/python")  # a link


def test_where_it_was_built_is_replaced_and_what_only_looks_like_it_is_not(tmp_path: Path) -> None:
    variables = {
        "prefix": "/install",
        "INCLUDEPY": "/install/include/python3.12",
        "CFLAGS": "-I/install/include -L/unpacked/lib -I/installed",
        "INSTALL": "/usr/bin/install -c",
    }
    path = tmp_path / "_sysconfigdata_.py"
    path.write_text(f"build_time_vars = {variables!r}\n")
    neutral_sysconfig(tmp_path, Path("/unpacked"))
    found = runpy.run_path(str(path))["build_time_vars"]
    assert found == {
        "prefix": sys.base_prefix,
        "INCLUDEPY": f"{sys.base_prefix}/include/python3.12",
        "CFLAGS": f"-I{sys.base_prefix}/include -L{sys.base_prefix}/lib -I/installed",
        "INSTALL": "/usr/bin/install -c",
    }


def test_a_portable_interpreter_gets_no_library_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "unpacked/python"
    (prefix / "lib").mkdir(parents=True)
    shutil.copyfile(Path(sys.executable).resolve(), tmp_path / "libcrypt.so.1")
    shutil.copyfile(Path(sys.executable).resolve(), prefix / "lib/libown.so.1")
    monkeypatch.setattr(sys, "base_prefix", str(prefix))
    require_own(tmp_path / "libcrypt.so.1", tmp_path / "user.so", Interpreter.running())  # not unpacked by us
    (prefix.parent / "standalone").touch()
    require_own(prefix / "lib/libown.so.1", tmp_path / "user.so", Interpreter.running())
    with pytest.raises(UserError, match=r"user\.so needs libcrypt\.so\.1, .* needs glibc 2\."):
        require_own(tmp_path / "libcrypt.so.1", tmp_path / "user.so", Interpreter.running())


def test_a_python_of_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platlibdir", "lib64")
    with pytest.raises(UserError, match=r"libraries in lib64/\) cannot be repackaged"):
        Interpreter.running()


def test_a_module_that_would_bring_the_machines_libcrypt_is_left_out() -> None:
    assert LEFT_OUT.search("lib/python3.12/lib-dynload/_crypt.cpython-312-x86_64-linux-gnu.so")
    assert not LEFT_OUT.search("lib/python3.12/crypt.py")
