"""The engine constructor: an installer made by conda's own constructor of construct/construct.yaml.

It holds every package, as the channel beside it does. So that no package is there twice, the engine is the installer
without them, and `fill` puts it together again on the target:

    pieces    in order, `glue N` (the next N bytes of glue) and `package SUBDIR/FILE` (that file of the channel)
    glue      the bytes in between: constructor's header, conda-standalone, the heads of the packages in its tar
    sha256    of the whole, for sha256sum(1)
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rattler import RepoDataRecord

from recipe.errors import UserError

NAME = "constructor"
# Of the payload, while it fills a prefix: as unpacked, put together again, in the prefix's cache; and conda-standalone.
COPIES = 4
INSTALL = "install it (conda install -c conda-forge constructor), or build with --engine conda-ship"


def command() -> list[str] | None:
    """How to run constructor: from PATH, or as a module of the Python that release.py was started with. None if not."""
    program = shutil.which("constructor")
    words = [program] if program else [str(Path(sys.base_prefix) / "bin/python3"), "-P", "-m", "constructor"]
    return words if version(words) else None


def version(words: Sequence[str]) -> str | None:
    """What `constructor --version` says; None if that is no constructor (PyPI has another package of that name)."""
    try:
        done = subprocess.run([*words, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    match = re.search(r"^constructor (\d\S*)$", done.stdout, re.MULTILINE)
    return match[1] if match and done.returncode == 0 else None


def require_command() -> list[str]:
    found = command()
    if found is None:
        raise UserError("there is no constructor", INSTALL)
    return found


def engine_version() -> str:
    return version(require_command()) or "unknown"


def environment(work: Path) -> dict[str, str]:
    """This process's environment without what somebody has set up for conda, but the solver, and `work` for a home."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key == "CONDA_SOLVER" or not key.startswith(("CONDA", "MAMBA", "_CE_", "XDG_"))
    }
    return {
        **kept,
        "HOME": str(work),  # nobody's .condarc, and nothing written to it
        "CONDA_NUMBER_CHANNEL_NOTICES": "0",  # asks the network, even for what comes from files
        "CONDA_OVERRIDE_GLIBC": "2.99",  # the installer itself checks what the packages ask for
    }


def build_engine(
    records: Sequence[RepoDataRecord],
    specs: Sequence[str],
    platform: str,
    release: str,
    payload: Path,
    work: Path,
) -> None:
    """Make payload/engine for the locked `records` of payload/channel; `work` is for what lies on the way.

    conda's history gets the specs of construct/environment.yml, not `specs`. Raises UserError if constructor fails.
    """
    channel, unfinished, output = payload / "channel", work / "payload", work / "output"
    unfinished.mkdir(parents=True)
    for name in ("channel", "environment.lock.yml"):
        (unfinished / name).symlink_to(payload / name)
    (unfinished / "release.json").write_text(json.dumps({"name": "barehub", "version": release}))
    done = subprocess.run(
        [
            *require_command(),
            f"--platform={platform}",
            f"--cache-dir={work / 'cache'}",
            f"--output-dir={output}",
            Path(__file__).parents[1],
        ],
        env={**environment(work), "BAREHUB_PAYLOAD": str(unfinished)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    made = sorted(output.glob("*.sh"))
    if done.returncode or len(made) != 1:
        end = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise UserError(f"constructor failed:\n{end}", "see above, or build with --engine conda-ship")
    engine = payload / "engine"
    engine.mkdir()
    cut(made[0], sorted(channel / record.subdir / record.file_name for record in records), channel, engine)
    shutil.copyfile(Path(__file__).with_name("fill.sh"), engine / "fill")
    (engine / "fill").chmod(0o755)


def cut(installer: Path, packages: Sequence[Path], channel: Path, engine: Path) -> None:
    """Write pieces, glue and sha256 of `installer` to `engine`. A package that is not found in it whole is no piece."""
    data = installer.read_bytes()
    places = []
    for package in packages:
        content = package.read_bytes()
        start = data.find(content)
        if start >= 0:
            places.append((start, len(content), package.relative_to(channel).as_posix()))
    pieces, position = [], 0
    with (engine / "glue").open("wb") as glue:
        for start, size, name in [*sorted(places), (len(data), 0, "")]:
            if start > position:
                glue.write(data[position:start])
                pieces.append(f"glue {start - position}\n")
            if size:
                pieces.append(f"package {name}\n")
            position = start + size
    (engine / "pieces").write_text("".join(pieces))
    (engine / "sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  constructor.sh\n")
