"""Makes a conda package from a checked wheel: stages its files as in a prefix, compiles them, packs them.

Modules come with their `.pyc` files, so a package with Python in it belongs to one minor version: otherwise the engine
would compile them on the target, which takes longer than the rest of an install. Two builds from the same wheel, with
the same timestamp and Python, are the same to the last bit.

The format: https://docs.conda.io/projects/conda-build/en/stable/resources/package-spec.html
"""

import base64
import csv
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

from rattler import PathsJson
from rattler_build import FileEntry, assemble_package

from recipe.elf import require_machine
from recipe.errors import UserError
from recipe.metadata import CondaMetadata, Target, conda_metadata
from recipe.wheel import ANOTHER_VERSION, UNRECORDED, Wheel

# Not copied from a dist-info: signatures, and what describes one installation. RECORD and INSTALLER are written here.
NOT_COPIED = UNRECORDED | {"INSTALLER", "REQUESTED", "direct_url.json"}

LICENCE_FILE = re.compile(r"licenses/.+|(licen[cs]e|copying|notice|authors)[^/]*", re.IGNORECASE)

# `sh` sees a command that starts the `python` beside the script, Python sees a string in ''' quotes. So no prefix has
# to be written into a script. It works below a path with spaces or one too long for a #! line (the kernel cuts that at
# 127 or 255 bytes), through a link, and after a move; the packages need no placeholders, and the files on the target
# are bit for bit those in the archive.
SCRIPT_HEADER = """\
#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")/python" "$0" "$@"
' '''
"""
SCRIPT_BODY = """\
import sys
from {module} import {root}
if __name__ == "__main__":
    sys.exit({attr}())
"""


@contextmanager
def staging() -> Iterator[tuple[Path, Path]]:
    """Yield two empty temporary directories: one for the files of a package as in a prefix, one for its licences."""
    with tempfile.TemporaryDirectory() as directory:
        stage, licences = Path(directory, "stage"), Path(directory, "licences")
        stage.mkdir()
        licences.mkdir()
        yield stage, licences


def build_package(
    wheel: Wheel,
    target: Target,
    output_dir: Path,
    timestamp: datetime,
    wheels: Mapping[str, Wheel],
    compression_level: int = 19,
) -> Path:
    """Make the conda package of `wheel` in `output_dir` and return its path.

    `timestamp`, with a time zone, becomes the time of every file. `wheels` is as for `conda_metadata`. Raises UserError
    if the wheel does not run on the target, or if two of its files have the same place.
    """
    metadata = conda_metadata(wheel, target, wheels)
    with staging() as (stage, licences):
        stage_wheel(wheel, target, stage)
        if "any" not in {tag.platform for tag in wheel.tags}:  # what is for any machine may hold files of several
            require_machine(stage.rglob("*"), target.machine, wheel.path.name)
        if wheel.has_python:
            compile_sources(stage, stage / target.site_packages, target, timestamp)
            write_record(stage, target.site_packages, wheel.dist_info)
        copy_licences(wheel, licences)
        return assemble(metadata, target, stage, licences, output_dir, timestamp, compression_level)


def build_noarch_package(
    wheel: Wheel, target: Target, output_dir: Path, timestamp: datetime, wheels: Mapping[str, Wheel]
) -> Path:
    """Make one package for every Python and machine from a wheel of pure Python. It is compiled on the target."""
    metadata = conda_metadata(wheel, target, wheels, noarch=True)
    with staging() as (stage, licences):
        stage_wheel(wheel, target, stage)
        write_record(stage, target.site_packages, wheel.dist_info)
        (stage / target.site_packages).rename(stage / "site-packages")
        copy_licences(wheel, licences)
        return assemble(metadata, None, stage, licences, output_dir, timestamp)


def stage_wheel(wheel: Wheel, target: Target, stage: Path) -> None:
    """Unpack the wheel to where its files belong below a prefix, and write its scripts.

    A wheel without Python loses its dist-info: that would lie below the directory of one Python in a package that fits
    all of them, and conda would take it for something that pip has installed. Raises UserError if two files have the
    same place.
    """
    scripts, dist_info = f"{wheel.data_dir}/scripts/", f"{wheel.dist_info}/"
    not_copied = {dist_info + name for name in NOT_COPIED}
    try:
        with ZipFile(wheel.path) as archive:
            for member in wheel.members:
                if member in not_copied or (not wheel.has_python and member.startswith(dist_info)):
                    continue
                content = archive.read(member)
                executable = archive.getinfo(member).external_attr >> 16 & 0o111 != 0
                if member.startswith(scripts):
                    executable = True
                    if content.startswith(b"#!python"):
                        content = with_header(content)
                _write_new(stage / destination(member, wheel, target), content, executable)
        for script in wheel.scripts:
            root = script.attr.partition(".")[0]
            body = SCRIPT_BODY.format(module=script.module, root=root, attr=script.attr)
            _write_new(stage / "bin" / script.name, (SCRIPT_HEADER + body).encode(), executable=True)
        if wheel.has_python:
            _write_new(stage / target.site_packages / dist_info / "INSTALLER", b"conda\n", executable=False)
    except (FileExistsError, NotADirectoryError) as e:
        raise UserError(
            f"{wheel.path.name} has two files for {Path(e.filename).relative_to(stage)}", fix=ANOTHER_VERSION
        ) from e


def _write_new(path: Path, content: bytes, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
    path.chmod(0o755 if executable else 0o644)


def destination(member: str, wheel: Wheel, target: Target) -> PurePosixPath:
    """Return where a file of the wheel belongs below the prefix. Raises UserError if it has no place there."""
    if not member.startswith(f"{wheel.data_dir}/"):
        return target.site_packages / member
    scheme, _, rest = member.removeprefix(f"{wheel.data_dir}/").partition("/")
    roots = {
        "purelib": target.site_packages,
        "platlib": target.site_packages,
        "scripts": PurePosixPath("bin"),
        "data": PurePosixPath(),
        "headers": PurePosixPath(f"include/python{target.minor}/{wheel.name}"),
    }
    # info/ is where a package describes itself, conda-meta/ where an environment does.
    if scheme not in roots or (roots[scheme] / rest).parts[0] in ("info", "conda-meta"):
        raise UserError(f"{wheel.path.name}: {member} has no place in a conda package", fix=ANOTHER_VERSION)
    return roots[scheme] / rest


def with_header(script: bytes) -> bytes:
    """Return a `#!python` script with SCRIPT_HEADER as its beginning.

    It is converted to UTF-8, since Python heeds a coding line only among the first two lines.
    """
    lines = script.splitlines(keepends=True)
    encoding, _ = tokenize.detect_encoding(iter(lines).__next__)
    return (SCRIPT_HEADER + b"".join(lines[1:]).decode(encoding)).encode()


def compile_sources(stage: Path, directory: Path, target: Target, timestamp: datetime) -> None:
    """Write a `.pyc` beside each module below `directory` that compiles; some are templates.

    A `.pyc` is valid for one mtime of its source: all files get that of the package. Raises UserError if this Python
    is not the target's.
    """
    running = "{}.{}".format(*sys.version_info)
    if target.minor != running:
        raise UserError(
            f"packages for Python {target.minor} cannot be made with Python {running}",
            fix=f"python{target.minor} release.py",
        )
    for path in stage.rglob("*"):
        os.utime(path, (timestamp.timestamp(),) * 2, follow_symlinks=False)
    # In a process of its own, since what marshal writes can depend on what the process did before. With a relative
    # path, since the path gets into the code; importing corrects it there (_imp._fix_co_filename). With -P and -S, or a
    # module in the stage or on this machine could change what the compiler does.
    options = ["-qq", "--invalidation-mode=timestamp"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-PS", "-Wignore", "-m", "compileall", *options, directory.relative_to(stage)],
        cwd=stage,
        env=environment | {"PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode not in (0, 1):  # 1: something did not compile
        raise RuntimeError(f"compileall exited with {done.returncode}")


def write_record(stage: Path, site_packages: PurePosixPath, dist_info: str) -> None:
    """Write RECORD for all files in the stage. As with pip, `.pyc` files and RECORD itself have no hash."""
    record = site_packages / dist_info / "RECORD"
    rows = [(f"{dist_info}/RECORD", "", "")]
    for path in (path for path in stage.rglob("*") if path.is_file()):
        place = path.relative_to(stage)
        if place.is_relative_to(site_packages):
            name = str(place.relative_to(site_packages))
        else:
            name = "../" * len(site_packages.parts) + str(place)
        if path.suffix == ".pyc":
            rows.append((name, "", ""))
        else:
            content = path.read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append((name, f"sha256={digest}", str(len(content))))
    with (stage / record).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(sorted(rows))


def copy_licences(wheel: Wheel, directory: Path) -> None:
    """Copy the licence files of the dist-info to one flat directory, since a package keeps only base names."""
    with ZipFile(wheel.path) as archive:
        for member in wheel.members:
            name = member.removeprefix(f"{wheel.dist_info}/")
            if name != member and LICENCE_FILE.fullmatch(name):
                flat = name.removeprefix("licenses/").replace("/", "_")
                (directory / flat).write_bytes(archive.read(member))


def assemble(
    metadata: CondaMetadata,
    target: Target | None,
    stage: Path,
    licences: Path,
    output_dir: Path,
    timestamp: datetime,
    compression_level: int = 19,
) -> Path:
    """Pack all files in `stage` as NAME-VERSION-BUILD.conda in `output_dir`, all or nothing; return its path.

    Without a target the package fits every Python and machine, and its modules are in `stage`/site-packages. BUILD is
    the metadata's with a hash of everything that the package holds: in a mirror, one file name stands for one content.
    The members are sorted, their time is `timestamp`, uid and gid 0, mode 0644 or 0755. The level is zstd's.
    """
    build = f"{metadata.build}h{content_digest(metadata, stage)[:7]}_0"
    # files=, since files_dir= leaves out hidden files; detect_prefix=False, since no file holds a prefix.
    files = [
        FileEntry.from_paths(path, path.relative_to(stage))
        for path in sorted(stage.rglob("*"))
        if path.is_symlink() or path.is_file()
    ]
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=".packing-") as directory:
        packed = assemble_package(
            metadata.name,
            metadata.version,
            target.platform if target else "noarch",
            build,
            directory,
            files=files,
            depends=metadata.depends,
            noarch=None if target else "python",
            license=metadata.license,
            summary=metadata.summary,
            homepage=metadata.homepage,
            license_files=sorted(licences.iterdir()),
            timestamp=timestamp,
            compression_level=compression_level,
            detect_prefix=False,
        ).path
        return packed.replace(output_dir / packed.name)


def content_digest(metadata: CondaMetadata, stage: Path) -> str:
    """Return a hash of a package's metadata and of the names, modes and contents of its files."""
    digest = hashlib.sha256(repr(metadata).encode())
    for path in sorted(stage.rglob("*")):
        if path.is_symlink():
            digest.update(f"\0{path.relative_to(stage)} -> {path.readlink()}".encode())
        elif path.is_file():
            digest.update(f"\0{path.relative_to(stage)} {path.stat().st_mode & 0o111 != 0}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def owners(packages: Iterable[Path]) -> dict[str, Path]:
    """Return which package brings each path of an environment. Raises UserError if two bring the same."""
    owner: dict[str, Path] = {}
    for package in packages:
        for entry in PathsJson.from_package_archive(package).paths:
            path = os.fspath(entry.relative_path)
            other = owner.setdefault(path, package)
            if other != package:
                raise UserError(
                    f"{path} is in both {other.name} and {package.name}",
                    fix="leave one out of construct/environment.yml, then: python3 release.py lock",
                )
    return owner
