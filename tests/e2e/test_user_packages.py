"""A user adds a package to the installed environment `lab`, by the commands of the page that it carries, offline."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.machines import installers
from tests.machines.cluster import namespace
from tests.readme import commands
from tests.unit.wheels import make

SEEN = "import numpy, sys, demo\nprint(sys.prefix, numpy.__file__, demo.NAME)\n"


@contextmanager
def offline(home: Path) -> Iterator[list[str]]:
    """The words before a command that has a loopback device alone, and a user's home."""
    with namespace() as holder:
        # Nothing of the caller's: pip's settings would name an index.
        environment = ["env", "-i", "PATH=/usr/bin:/bin", f"HOME={home}", "PIP_CONFIG_FILE=/dev/null"]
        yield ["nsenter", f"--target={holder}", "--net", *environment]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("shared") / "jupyter"
    subprocess.run(["sh", installers.environment("lab"), "-b", "-p", base], check=True)
    return base


def test_the_page_is_in_the_release_and_its_commands_work(base: Path, tmp_path: Path) -> None:
    page = base / "current/share/barehub/guides/lab.md"
    release, home, wheels = (base / "current").resolve(), tmp_path / "home", tmp_path / "wheels"
    home.mkdir()
    wheels.mkdir()
    make(wheels, "demo", files={"demo.py": "NAME = 'mine'\n"})
    *add, remove = commands(page)
    with offline(home) as prefix:

        def run(command: str) -> str:
            for placeholder, real in (("/shared/jupyter", base), ("/shared/wheels", wheels), ("PACKAGE", "demo")):
                command = command.replace(placeholder, str(real))
            words = [*prefix, "sh", "-euc", command]
            return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=home).stdout

        for command in add:
            run(command)
        (home / "seen.py").write_text(SEEN)
        kernels, numpy, name = run(f"{release}/bin/jupyter run --kernel=mine seen.py").split()
        assert (kernels, name) == (f"{home}/kernels/mine", "mine")
        assert numpy.startswith(f"{release}/")
        assert "mine" in run(f"{release}/bin/jupyter kernelspec list")
        run(remove)
        assert "mine" not in run(f"{release}/bin/jupyter kernelspec list")
