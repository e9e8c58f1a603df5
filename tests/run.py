"""`release.py test`: installs what the tests need, builds the installers they test, runs pytest.

    unit    tests/unit: no root, no build
    lint    tests/test_lint.py: the same
    e2e     tests/e2e: builds installers and boots machines

Each end-to-end module is a story of its own with its own machine, so several are told side by side. What they share is
made before they start: the machines' root and the installers, which are kept in .cache as long as their sources are the
same.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from construct import conda_constructor, conda_ship
from recipe.errors import UserError
from recipe.report import say
from tests.machines import fresh_debian, installers, other_machine, rootfs

PARTS = {"unit": "tests/unit", "lint": "tests/test_lint.py", "e2e": "tests/e2e"}
WORKERS = os.environ.get("BAREHUB_TEST_WORKERS", "3")  # for two cores: while a machine boots, another works
# A unit test is small: whichever worker is idle runs the next. A story stays with one worker, long ones first.
SPREAD = {"unit": "--dist=worksteal", "lint": "--dist=worksteal", "e2e": "--dist=loadfile"}


def run_tests(root: Path, words: Sequence[str]) -> int:
    """Run the parts that `words` begin with, all if there are none; the rest is for pytest. Returns its exit status.

    On Debian as root the whole includes the end-to-end tests, for which packages of the distribution are installed.
    Elsewhere they are skipped, and the summary says so.
    """
    parts, paths, arguments = choose(words)
    os.chdir(root)
    # Unit tests, too, use some of the host's packages.
    machines = "e2e" in parts and prepare(rootfs.install_host_packages)
    quick = [paths[part] for part in parts if part != "e2e"]
    with ThreadPoolExecutor(1) as pool:
        made_once = (rootfs.cached_root, fresh_debian.cached_fresh_root, other_machine.install_emulator)
        steps = made_once if machines else ()
        made = pool.submit(prepare, *steps)  # which waits for packages and for the disk, most of the time
        # What these find explains what the machines show.
        code = pytest_on(quick, SPREAD["unit"], arguments) if quick else 0
    made.result()
    if "e2e" in parts:
        code = max(code, run_end_to_end(paths["e2e"], arguments))
    return code


def choose(words: Sequence[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """The parts to run, the path of each, and what goes to pytest. Raises UserError for a story there is not."""
    rest, parts, paths = list(words), [], dict(PARTS)
    while rest and rest[0] in PARTS:
        parts.append(rest.pop(0))
        if parts[-1] == "e2e" and rest and not rest[0].startswith("-") and rest[0] not in PARTS:
            name = rest.pop(0)
            paths["e2e"] = f"tests/e2e/test_{name.replace('-', '_')}.py"
            if not (Path(__file__).parents[1] / paths["e2e"]).is_file():
                raise UserError(f"there is no {paths['e2e']}", "ls tests/e2e")
    if rest[:1] == ["--"]:
        rest.pop(0)
    if not parts and any(Path(one.split("::")[0]).exists() for one in rest):  # pytest's own words name the tests
        return ["e2e"], {"e2e": ""}, rest
    return parts or list(PARTS), paths, rest


def prepare(*steps: Callable[[], object]) -> bool:
    """Take steps that machines need to run here. Where they cannot run, say so and return False."""
    try:
        for step in steps:
            step()
    except UserError as error:
        if os.environ.get("CI") == "true":
            raise
        say(f"the end-to-end tests cannot run here: {error}")
        return False
    return True


def run_end_to_end(path: str, arguments: Sequence[str]) -> int:
    """The end-to-end tests with conda-ship's installer; the whole of them again with constructor's, where it is."""
    chosen = installers.ready(conda_ship.NAME)  # first and alone: it makes the packages that the others share
    if path == PARTS["e2e"]:
        with ThreadPoolExecutor(2) as pool:
            builds = [pool.submit(installers.older)]
            builds += [pool.submit(installers.with_overlay, name) for name in ("slurm", "single-node")]
            builds += [pool.submit(installers.campus, "ldap", date) for date in (None, "2026.10.24")]
        for build in builds:
            build.result()
    os.environ["BAREHUB_INSTALLER"] = str(chosen)
    code = pytest_on([path] if path else [], SPREAD["e2e"], arguments)
    if conda_constructor.command() is None:
        say("constructor is not installed: nothing was tested with that engine")
    elif code == 0 and path == PARTS["e2e"]:
        say("once more with the engine constructor")
        os.environ["BAREHUB_INSTALLER"] = str(installers.ready(conda_constructor.NAME))
        code = pytest_on([path], SPREAD["e2e"], arguments)
    return code


def pytest_on(paths: Sequence[str], spread: str, arguments: Sequence[str]) -> int:
    words = [sys.executable, "-m", "pytest", f"--numprocesses={WORKERS}", spread, "--no-loadscope-reorder"]
    return subprocess.run([*words, *arguments, *paths], stdin=subprocess.DEVNULL, check=False).returncode
