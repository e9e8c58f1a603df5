"""The `python` package: the interpreter of a release, made to run from any prefix.

Any CPython that keeps its standard library in lib/pythonX.Y is suitable: one built from source, conda-forge's,
Debian's, python-build-standalone. Left out: tests, Tk, idle, static libraries, build configuration with this machine's
paths. Added: the shared libraries outside glibc that it loads, found through a relative rpath.
"""

import os
import pprint
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from recipe.elf import GLIBC_LIBRARIES, glibc_version, is_elf, needed_libraries, require_machine
from recipe.errors import UserError
from recipe.libraries import Library, linked_in, packaged, write_libraries
from recipe.shipped import Interpreter

MUST_IMPORT = (
    "ssl",
    "sqlite3",
    "ctypes",
    "lzma",
    "bz2",
    "zlib",
    "readline",
    "curses",
    "uuid",
    "hashlib",
    "venv",
)

# nis (NIS maps, deprecated by PEP 594) alone would pull in Kerberos and TI-RPC. _crypt (deprecated likewise) needs
# libcrypt, which is not glibc's everywhere: the building machine's would decide which systems a release runs on.
LEFT_OUT = re.compile(
    r"""(^|/)( __pycache__ | test | tests | idle_test | idlelib | tkinter | turtledemo | turtle\.py
    | (site|dist)-packages | config-[^/]*          # libpython.a, the Makefile
    | (_tkinter|_?x*test\w*|_testinternalcapi|xxlimited\w*|_xx\w*|nis|_crypt)\.[^/]*so
    | EXTERNALLY-MANAGED | sitecustomize\.py | [^/]*\.(a|exe|pyc) )$""",
    re.VERBOSE,
)

# Replaces the building machine's paths in the compiler's options by those of the installed prefix.
SYSCONFIG_TAIL = """
import sys as _sys
build_time_vars = {
    key: value.replace("@PREFIX@", _sys.base_prefix) if isinstance(value, str) else value
    for key, value in build_time_vars.items()
}
"""


def stage_interpreter(stage: Path, interpreter: Interpreter) -> None:
    """Fill `stage`, an empty directory, with the interpreter as a relocatable prefix.

    Raises UserError if it lacks a library, or a module that the hub needs. The last is found by running it, so not
    where it is for another machine.
    """
    version = f"python{interpreter.target.minor}"
    library = stage / "lib" / version
    copy_tree(interpreter.library, library)
    copy_tree(interpreter.headers, stage / "include" / version)
    (library / "site-packages").mkdir()

    binaries = stage / "bin"
    binaries.mkdir()
    shutil.copyfile(interpreter.program, binaries / version)
    (binaries / version).chmod(0o755)
    for link in ("python3", "python"):
        (binaries / link).symlink_to(version)

    ship_libraries(stage, interpreter)
    neutral_sysconfig(library, interpreter.prefix)
    upstream_layout(library)
    require_machine(stage.rglob("*"), interpreter.target.machine, interpreter.program.name)
    if interpreter.runs_here:
        check_runs(binaries / version, library)


def interpreter_files(interpreter: Interpreter) -> list[Path]:
    """Return the files that `stage_interpreter` copies: the program, the standard library, the libraries they load."""
    files = [interpreter.program]
    for directory, subdirectories, names in os.walk(interpreter.library):
        subdirectories[:] = sorted(name for name in subdirectories if not LEFT_OUT.search(name))
        files += [Path(directory, name) for name in sorted(names) if not LEFT_OUT.search(name)]
    elf = [path for path in files if is_elf(path)]
    loaded = {source for path in elf for _, source in loaded_libraries(path, Path("/none"), interpreter)}
    return [path for path in files if path.is_file()] + sorted(loaded)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory without what LEFT_OUT names. Links to files become files; modes become 0644 or 0755."""
    for directory, subdirectories, files in os.walk(source):
        place = target / Path(directory).relative_to(source)
        place.mkdir(parents=True)
        subdirectories[:] = sorted(name for name in subdirectories if not LEFT_OUT.search(name))
        for name in sorted(files):
            if LEFT_OUT.search(name) or not (Path(directory) / name).is_file():
                continue
            shutil.copyfile(Path(directory) / name, place / name)
            (place / name).chmod(0o755 if os.access(Path(directory) / name, os.X_OK) else 0o644)


def ship_libraries(stage: Path, interpreter: Interpreter) -> None:
    """Copy the shared libraries that the staged ELF files load into lib/, make every rpath relative, list them.

    DT_RPATH, not DT_RUNPATH: an administrator's shell on a cluster often has an LD_LIBRARY_PATH full of other builds
    of the same libraries, and only DT_RPATH is searched before it (ld.so(8)).
    """
    todo = [path for path in sorted(stage.rglob("*")) if is_elf(path)]
    shipped: dict[str, Library] = {}
    for path in todo:
        name_plainly(path)
        for name, source in loaded_libraries(path, stage, interpreter):
            target = stage / "lib" / name
            if not target.exists():
                require_own(source, path, interpreter)
                shutil.copyfile(source, target)
                target.chmod(0o755)
                if not name.startswith("libpython"):
                    shipped[name] = Library(name) if interpreter.is_portable else packaged(source, stage)
                todo.append(target)
    for path in todo:
        # A debug build's symbols are four times its code. This machine's `strip` knows no other machine's files.
        if interpreter.runs_here and (strip := shutil.which("strip")):
            subprocess.run([strip, "--strip-unneeded", path], check=True)
        up = os.path.relpath(stage / "lib", path.parent)
        rpath = "$ORIGIN" if up == "." else f"$ORIGIN/{up}"
        subprocess.run(["patchelf", "--force-rpath", "--set-rpath", rpath, path], check=True)
    write_libraries(stage, [*linked_in(shipped, interpreter.is_of_the_same_build), *shipped.values()])


def name_plainly(path: Path) -> None:
    """Make the ELF file at `path` need each library by its name, where it states a path: the rpath is what counts."""
    for name in needed_libraries(path):
        if "/" in name:
            subprocess.run(["patchelf", "--replace-needed", name, Path(name).name, path], check=True)


def require_own(library: Path, user: Path, interpreter: Interpreter) -> None:
    """Check that a portable interpreter gets no library of this machine, which would decide where a release runs.

    Raises UserError for one from outside its prefix.
    """
    if interpreter.is_portable and not library.resolve().is_relative_to(interpreter.prefix.resolve()):
        raise UserError(
            f"{user.name} needs {library.name}, which the portable interpreter does not bring; this machine's "
            "needs glibc {}.{}".format(*glibc_version(library)),
            "add what needs it to LEFT_OUT in recipe/interpreter.py, or build with --python this",
        )


def loaded_libraries(path: Path, origin: Path, interpreter: Interpreter) -> list[tuple[str, Path]]:
    """Return (soname, file) of the libraries outside glibc that ldd finds for `path`, without those in `origin`.

    ldd examines the staged copy with the original's library directory on LD_LIBRARY_PATH, since an rpath may be
    relative to the place of the original. It runs the loader, and there is none here for another machine's files: what
    these need is in that directory. Raises UserError if a library is missing.
    """
    place = interpreter.prefix / "lib"
    if not interpreter.runs_here:
        names = [Path(name).name for name in needed_libraries(path)]
        return [(name, brought(place / name, path)) for name in names if not GLIBC_LIBRARIES.fullmatch(name)]
    environment = {"PATH": os.defpath, "LD_LIBRARY_PATH": str(place), "LC_ALL": "C"}
    done = subprocess.run(["ldd", path], env=environment, capture_output=True, text=True, check=False)
    found = []
    for line in done.stdout.splitlines():
        if match := re.match(r"\s*(\S+) => (/\S+|not found)", line):
            name, where = Path(match[1]).name, match[2]
            if GLIBC_LIBRARIES.fullmatch(name) or Path(where).is_relative_to(origin):
                continue
            if where == "not found":
                raise UserError(f"{path.name} needs {name}, which is not on this machine", f"install {name}")
            found.append((name, Path(where)))
    return found


def brought(library: Path, user: Path) -> Path:
    """Return `library`. Raises UserError if the interpreter of `user` does not bring it."""
    if not library.is_file():
        raise UserError(
            f"{user.name} needs {library.name}, which the portable interpreter does not bring",
            "add what needs it to LEFT_OUT in recipe/interpreter.py",
        )
    return library


def neutral_sysconfig(library: Path, prefix: Path) -> None:
    """Replace this machine's prefix in _sysconfigdata by the prefix that the interpreter will run from."""
    for path in library.glob("_sysconfigdata*.py"):
        built = runpy.run_path(str(path))["build_time_vars"]
        # python-build-standalone's says where it was built, /install. It is part of other paths: /usr/bin/install.
        names = "|".join(sorted({re.escape(str(prefix)), re.escape(built["prefix"])}, reverse=True))
        ours = re.compile(rf"(?:(?<![\w@/-])|(?<=-I)|(?<=-L))(?:{names})(?![\w.-])")
        variables = {
            # /usr/share/zoneinfo is the target's, whatever prefix the interpreter was built for
            name: ours.sub("@PREFIX@", value) if isinstance(value, str) and name != "TZPATH" else value
            for name, value in built.items()
        }
        path.write_text(f"build_time_vars = {pprint.pformat(variables)}\n{SYSCONFIG_TAIL}")


def upstream_layout(library: Path) -> None:
    """Undo Debian's own places for packages (dist-packages, below local/): site-packages is where conda puts them.

    `site` is frozen into the interpreter and cannot be edited, but it uses lib/python3/dist-packages as one of its
    directories. `check_runs` finds any other difference.
    """
    if "dist-packages" not in (library / "site.py").read_text():
        return
    (library.parent / "python3").mkdir()
    (library.parent / "python3/dist-packages").symlink_to(f"../{library.name}/site-packages")
    config = library / "sysconfig.py"
    config.write_text(config.read_text().replace("prefix_scheme = 'posix_local'", "prefix_scheme = 'posix_prefix'"))


def check_runs(python: Path, library: Path) -> None:
    """Run the staged interpreter in an empty environment.

    Raises UserError unless it imports what a hub needs, from its own prefix.
    """
    packages = library / "site-packages"
    program = (
        f"import os, sys, sysconfig, {', '.join(MUST_IMPORT)}\n"
        f"assert sysconfig.get_path('purelib') == {str(packages)!r}, sysconfig.get_path('purelib')\n"
        f"assert {str(packages)!r} in [os.path.realpath(p) for p in sys.path], sys.path\n"
        f"assert sysconfig.get_config_var('prefix') == sys.prefix"
    )
    done = subprocess.run([python, "-I", "-B", "-c", program], env={}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"{sys.executable} cannot be repackaged: {done.stderr.strip().splitlines()[-1]}",
            "use a CPython with all of its standard modules (the headers of OpenSSL, SQLite, libffi, xz, bzip2, "
            "readline, ncurses and libuuid present when it was built)",
        )
