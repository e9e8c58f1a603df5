"""An installer for aarch64, built here: by its files, then run under an emulator where nothing is of this machine.

No hub is started there: the proxy's sockets need SO_ATTACH_REUSEPORT_CBPF, which qemu-user does not know.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from construct.contents import read_installer
from construct.verify import verify
from recipe.elf import is_elf, machine
from recipe.errors import UserError
from recipe.lock_file import Lock
from recipe.standalone import UnavailableError, standalone_python
from tests.conftest import cannot_run
from tests.machines import other_machine
from tests.machines.checkout import copy_checkout
from tests.machines.other_machine import MACHINE, PLATFORM, inside

ROOT = Path(__file__).parents[2]
PREFIX = "opt/barehub/releases/2026.11.24"
# What a person's shell does not have.
OURS = ("PYTHON", "VIRTUAL_ENV", "BAREHUB_PYTHON", "QEMU_")


@pytest.fixture(scope="module")
def debian() -> Iterator[Path]:
    """The root of an aarch64 Debian, a copy for this module, whose programs run here."""
    try:
        with other_machine.emulated(), tempfile.TemporaryDirectory(dir=ROOT / ".cache", prefix="other-") as directory:
            root = Path(directory, "root")
            subprocess.run(["cp", "-a", other_machine.cached_root(), root], check=True)
            yield root
    except UserError as e:
        cannot_run(f"{e}\n  fix: {e.fix}")


@pytest.fixture(scope="module")
def foreign(debian: Path) -> Path:
    """The installer, made as a person makes it, in a checkout of its own; what the build says is beside it."""
    tree = debian.with_name("tree")
    copy_checkout(tree)
    (tree / ".cache").mkdir()
    for shared in ("wheels", "packages", "python"):
        (ROOT / ".cache" / shared).mkdir(exist_ok=True)
        (tree / ".cache" / shared).symlink_to(ROOT / ".cache" / shared)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment["PATH"] = ":".join(one for one in os.environ["PATH"].split(":") if Path(one) != ROOT / ".venv/bin")
    python, options = Path(sys.base_prefix, "bin/python3"), ["--platform", PLATFORM, "--date", "2026.11.24"]
    try:
        standalone_python(ROOT / ".cache/python", "", MACHINE)
    except UnavailableError:
        pins = other_machine.offer_stand_in(debian, debian.with_name("mirror"))
        environment["BAREHUB_PYTHON_PINS"] = str(pins)
        python = other_machine.hosts_python(pins.read_text().split("cpython-")[1][:4])
        options += ["--python", "this", "--python-mirror", str(pins.parent)]
    done = subprocess.run(
        [python, tree / "release.py", "build", *options],
        env=environment, cwd=tree, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [installer] = (tree / "dist").glob("*.sh")
    (tree / "dist/said").write_text(done.stderr)
    return installer


def test_a_build_tries_it_where_it_runs(foreign: Path) -> None:
    said = (foreign.parent / "said").read_text()
    assert foreign.name == f"barehub-2026.11.24-Linux-{MACHINE}.sh"
    assert f"needs      Linux {MACHINE} with glibc >= " in said
    assert "nothing of it was run" not in said


def test_it_holds_what_is_locked_for_that_machine(foreign: Path) -> None:
    verify(foreign, None)
    contents = read_installer(foreign)
    assert contents.release["platform"] == PLATFORM
    assert {name.partition("/")[0] for name in contents.archives} == {PLATFORM, "noarch"}
    locked = {name: line.version for name, line in Lock.read(ROOT / "environment.lock.yml").lines.items()}
    found = {name: line.version for name, line in contents.lock.lines.items() if name != "barehub"}
    assert locked | {"python": found["python"]} == found


def test_this_machine_can_read_it_and_refuses_it(foreign: Path) -> None:
    listed = subprocess.run(["sh", foreign, "--list"], capture_output=True, text=True, check=True).stdout
    assert f"  {PLATFORM}  " in listed
    subprocess.run(["sh", foreign, "--verify"], check=True)
    done = subprocess.run(["sh", foreign, "-b", "-p", "/opt/other"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert f"this installer is for Linux {MACHINE}, not Linux {platform.machine()}" in done.stderr
    assert not Path("/opt/other").exists()


def output(debian: Path, *words: str) -> str:
    """Run a program in that Debian, where it has to succeed; what it printed."""
    done = subprocess.run(
        inside(debian, *words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_it_installs_there(debian: Path, foreign: Path) -> None:
    shutil.copyfile(foreign, debian / "tmp/barehub.sh")
    output(debian, "/sbin/ldconfig")  # nothing has configured its packages, and pamela asks for libpam
    output(debian, "sh", "/tmp/barehub.sh", "-b", "--bind-url", "http://127.0.0.1:8000")
    programs = [path for path in (debian / PREFIX).rglob("*") if is_elf(path)]
    assert len(programs) > 50
    assert {machine(path) for path in programs} == {MACHINE}
    told = output(debian, f"/{PREFIX}/bin/python", "-c", "import jupyterhub, platform, ssl; print(platform.machine())")
    assert told == f"{MACHINE}\n"
    version = read_installer(foreign).lock.lines["jupyterhub-base"].version
    assert output(debian, "/opt/barehub/hub/bin/jupyterhub", "--version") == f"{version}\n"
    assert "Version:" in output(debian, f"/{PREFIX}/bin/traefik", "version")
    output(debian, f"/{PREFIX}/bin/python", "-I", "-m", "pip", "check")


def test_its_modules_were_compiled_for_that_interpreter(debian: Path, foreign: Path) -> None:
    """On the target nothing has to be compiled: its own compiler leaves every file as it is."""
    before = {path: path.read_bytes() for path in (debian / PREFIX / "lib").rglob("tornado/**/*.pyc")}
    assert before
    output(debian, f"/{PREFIX}/bin/python", "-m", "compileall", "-q", f"/{PREFIX}/lib")
    assert {path: path.read_bytes() for path in before} == before
