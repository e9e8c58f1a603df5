"""release.py's .venv: which interpreter it is made with, and what is installed there.

The interpreter that .venv is made with is the one that is shipped, or for another machine of the same minor version.
So nothing else has to tell the two apart: pip resolves for that version, and what is compiled fits it. Standard library
only.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path

from recipe.errors import UserError
from recipe.standalone import UnavailableError, standalone_python

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
TOOLS = ROOT / "recipe/tools.txt"
THIS = "this"
# Of pip's settings in the environment: where packages come from, how old they have to be, and how the network is asked
# for them.
SOURCES = {
    *("PIP_CONFIG_FILE", "PIP_CONSTRAINT", "PIP_UPLOADED_PRIOR_TO", "PIP_NO_CACHE_DIR", "PIP_CACHE_DIR"),
    "PIP_NO_INDEX",
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST", "PIP_KEYRING_PROVIDER"),
    *("PIP_CERT", "PIP_CLIENT_CERT", "PIP_PROXY", "PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES"),
}


def enter(python: str | None, mirror: str) -> None:
    """Make .venv if it is missing or out of date, and run this command again in it; return if it runs there already.

    `python` is the interpreter to ship: a path, THIS, or None for the portable one, which `mirror` may have.
    """
    leave_settings(os.environ)
    inside = Path(sys.prefix) == VENV
    if inside and python in (None, THIS):
        return
    chosen = choose(python, mirror)
    if inside and identity(chosen) == identity(Path(sys.executable)):
        return
    ensure_installed(TOOLS, chosen)
    program = VENV / "bin/python"
    os.execv(program, [os.fspath(program), *sys.argv])


def leave_settings(environment: MutableMapping[str, str]) -> None:
    """Leave behind what a caller has set for other work of Python's and pip's, but SOURCES.

    A module that is loaded may set PYTHONPATH, whose packages would hide those of .venv.
    """
    for name in list(environment):
        if name.startswith("PYTHON") or (name.startswith("PIP_") and name not in SOURCES):
            del environment[name]
    environment["PIP_USER"] = "0"  # whatever a pip.conf says


def choose(python: str | None, mirror: str) -> Path:
    """Return the interpreter to use. Raises UserError if the one that was asked for cannot be had."""
    if python == THIS:
        return Path(sys.executable)
    if python is not None:
        found = shutil.which(python)
        if found is None:
            raise UserError(f"{python} cannot be run", "give --python the path of a CPython, or --python this")
        return Path(found).absolute()
    try:
        return standalone_python(ROOT / ".cache/python", mirror)
    except UnavailableError as error:
        if mirror:
            raise UserError(f"the portable interpreter cannot be had: {error}", "correct --python-mirror") from error
        print(f"the portable interpreter cannot be had: {error}", file=sys.stderr, flush=True)
    return Path(sys.executable)


def identity(python: Path) -> str:
    """Return what tells interpreters apart: where the program's own prefix is, and its version."""
    program = "import sys; print(sys.base_prefix, sys.version)"
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{python} cannot be run: {done.stderr.strip()}", "choose another interpreter with --python")
    return done.stdout.strip()


def ensure_installed(requirements: Path, interpreter: Path | None = None) -> None:
    """Install what a hash-pinned requirements file lists in .venv, unless its stamp says that this has been done."""
    interpreter = interpreter or Path(sys.executable)
    stamp = VENV / f"{requirements.parent.name}-{requirements.stem}.stamp"
    wanted = f"{identity(interpreter)} {hashlib.sha256(requirements.read_bytes()).hexdigest()}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"preparing .venv from {requirements.relative_to(ROOT)}", file=sys.stderr, flush=True)
    python = VENV / "bin/python"
    if requirements == TOOLS or not python.exists():
        # Without its own pip: Debian packages the wheels that would need apart. pip >= 22.3 serves other environments.
        run(interpreter, "-P", "-m", "venv", "--without-pip", "--clear", VENV)
    run(
        interpreter,
        "-m",
        "pip",
        f"--python={python}",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        f"--requirement={requirements}",
    )
    stamp.write_text(wanted)


def run(*words: str | Path) -> None:
    """Run a command. Raises UserError if it fails."""
    argv = [os.fspath(word) for word in words]
    code = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode
    if code:
        raise UserError(
            f"{' '.join(argv[1:4])} exited with {code}", "it needs pip, venv, and a package index (pip config list)"
        )
