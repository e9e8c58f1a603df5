"""The engine constructor: an installer made by conda's own constructor from construct/construct.yaml.

construct/engines.py has the contract. That installer holds every package, as the channel beside it does. So that no
package is in the payload twice, the engine is the installer without them, and `fill` reassembles it on the target:

    pieces    in order, `glue N` (the next N bytes of glue) and `package SUBDIR/FILE` (that file of the channel)
    glue      the bytes in between: constructor's header, conda-standalone, the heads of the packages in its tar
    sha256    of the whole, for sha256sum(1)
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rattler import RepoDataRecord

from construct.process import run_quietly
from recipe.errors import UserError

NAME = "constructor"
COPIES = 4  # as unpacked, reassembled, in the prefix's cache; and one more for conda-standalone
FILL = Path(__file__).with_name("fill.sh")
INSTALL = "install it (conda install -c conda-forge constructor), or build with --engine conda-ship"
BROKEN = "make `{}` work (conda's solver is CONDA_SOLVER), or build with --engine conda-ship"


class NotInstalledError(UserError):
    """There is no constructor at all."""


def command() -> list[str] | None:
    """Return the words that run constructor; None if it is not installed, or does not run."""
    try:
        return require_command()
    except UserError:
        return None


def require_command() -> list[str]:
    """Return the words that run constructor. Raises NotInstalledError, or UserError with what it says, if none runs."""
    return find()[0]


def version() -> str:
    """Return the version of the installed constructor. Raises UserError as `require_command` does."""
    return find()[1]


def find() -> tuple[list[str], str]:
    """Return the words that run constructor, from PATH or as a module of release.py's first Python; and its version.

    Raises NotInstalledError if it is not installed, UserError with what it says if it is there and does not run.
    """
    program = shutil.which("constructor")
    words = [program] if program else [str(Path(sys.base_prefix) / "bin/python3"), "-P", "-m", "constructor"]
    line = f"{shlex.join(words)} --version"
    try:
        done = subprocess.run(
            [*words, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:  # such as an interpreter that is gone
        if program:
            raise UserError(f"constructor does not run: {program}: {error.strerror}", BROKEN.format(line)) from None
        raise NotInstalledError("there is no constructor", INSTALL) from None
    if done.returncode == 0 and (match := re.search(r"^constructor (\d\S*)$", done.stdout, re.MULTILINE)):
        return words, match[1]
    # PyPI has another package of that name.
    if done.returncode == 0 or (not program and "No module named constructor" in done.stderr):
        raise NotInstalledError("there is no constructor", INSTALL)
    printed = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-8:]
    raise UserError("\n  ".join([f"constructor does not run; {line}:", *printed]), BROKEN.format(line))


def environment(work: Path) -> dict[str, str]:
    """Return this process's environment without any configuration of conda but the solver, with `work` as HOME."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key == "CONDA_SOLVER" or not key.startswith(("CONDA", "MAMBA", "_CE_", "XDG_"))
    }
    return {
        **kept,
        "HOME": str(work),  # reads no user's .condarc, and writes nothing to it
        "CONDA_NUMBER_CHANNEL_NOTICES": "0",  # asks the network, even for what comes from files
        "CONDA_OVERRIDE_GLIBC": "2.99",  # the installer itself checks what the packages ask for
    }


def build(
    records: Sequence[RepoDataRecord],
    specs: Sequence[str],
    platform: str,
    release: str,
    payload: Path,
    work: Path,
) -> None:
    """Write the pieces of constructor's installer to payload/engine."""
    channel, unfinished, output = payload / "channel", work / "payload", work / "output"
    unfinished.mkdir(parents=True)
    for name in ("channel", "environment.lock.yml"):
        (unfinished / name).symlink_to(payload / name)
    (unfinished / "release.json").write_text(json.dumps({"name": "barehub", "version": release, "specs": list(specs)}))
    options = [f"--platform={platform}", f"--cache-dir={work / 'cache'}", f"--output-dir={output}"]
    run_quietly(
        [*require_command(), *options, Path(__file__).parents[1]],
        {**environment(work), "BAREHUB_PAYLOAD": str(unfinished)},
        problem="constructor failed",
        fix="see above, or build with --engine conda-ship",
        last_lines=15,
    )
    made = sorted(output.glob("*.sh"))
    if len(made) != 1:
        raise UserError(f"constructor made {len(made)} installers instead of one", "build with --engine conda-ship")
    packages = sorted(channel / record.subdir / record.file_name for record in records)
    cut(made[0], packages, channel, payload / "engine")


def cut(installer: Path, packages: Sequence[Path], channel: Path, engine: Path) -> None:
    """Write pieces, glue and sha256 of `installer` to `engine`.

    A package whose bytes are not in the installer as a whole stays part of the glue.
    """
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
