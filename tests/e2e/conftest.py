"""Fixtures of the end-to-end tests; how a failed test ends its story."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from recipe.errors import UserError
from tests.conftest import cannot_run
from tests.machines import installers, rootfs
from tests.machines.browser import chromium
from tests.machines.hub_client import let_users_in
from tests.machines.machine import Machine, booted, machines

HERE = Path(__file__).parent
# The longest first (`--durations=0` tells).
LONG = (
    *("other_systems", "power_cut", "release_workflow", "slurm_faults", "slurm", "variations", "managed", "readme"),
    *("other_machine", "upgrade", "first_day", "single_node", "campus", "environment", "user_units", "strangers"),
    *("configuration", "oidc", "https_acme", "https_files", "https_front", "constructor", "overlay", "ldap"),
)

broken: set[pytest.Collector | None] = set()  # modules with a failed test


@pytest.fixture(scope="session")
def host() -> None:
    """A host that can make machines."""
    try:
        if missing := rootfs.missing_host_packages():
            raise UserError(f"the host lacks {' '.join(missing)}", fix="python3 release.py test")
    except UserError as e:
        cannot_run(f"{e}\n  fix: {e.fix}")


@pytest.fixture(scope="session")
def root(host: None) -> Path:
    """The machines' root."""
    try:
        return rootfs.cached_root()
    except UserError as e:
        reason = f"{e}\n  fix: {e.fix}"
    return cannot_run(reason)


@pytest.fixture(scope="module")
def machine(root: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """The machine of a module, whose tests are one story, told in order."""
    with booted(request.module.__name__.rpartition("test_")[2].replace("_", "-"), root) as new:
        yield new


@pytest.fixture
def new_machine(root: Path) -> Iterator[Callable[..., Machine]]:
    """Call it with a name, and `disks` if need be, for a machine of the test's own."""
    with ExitStack() as stack:
        yield lambda name, disks=None: stack.enter_context(booted(name, root, disks))


@pytest.fixture(scope="session")
def installer() -> Path:
    """The installer under test: BAREHUB_INSTALLER, else the newest in dist/."""
    if chosen := os.environ.get("BAREHUB_INSTALLER"):
        return Path(chosen)
    built = sorted(Path(__file__).parents[2].glob("dist/*.sh"), key=lambda path: path.stat().st_mtime)
    if not built:
        pytest.fail("no installer to test: run `python3 release.py` or set BAREHUB_INSTALLER")
    return built[-1]


@pytest.fixture(scope="session")
def older() -> Path:
    """An installer of the same code with JupyterHub 5 and its schema, by a lock of its own."""
    return installers.older()


@pytest.fixture(scope="session")
def slurm_installer() -> Path:
    """An installer with the overlay `slurm`, named so."""
    return installers.with_overlay("slurm")


@pytest.fixture(scope="module")
def hub(machine: Machine, installer: Path) -> Machine:
    """The module's machine with barehub on it, where alice and bob can log in."""
    machine.copy_in(installer, "/mnt/barehub.sh")
    machine.succeed("bash", "/mnt/barehub.sh", "-b")
    let_users_in(machine)
    return machine


@pytest.fixture
def browser(machine: Machine) -> Iterator[Chrome]:
    """Chromium inside the module's machine, as far as the network goes; so is the test that uses it."""
    with machine.network(), chromium() as new:
        yield new


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where browser tests leave their pictures: BAREHUB_SCREENSHOTS, else pytest's temporary directory."""
    if chosen := os.environ.get("BAREHUB_SCREENSHOTS"):
        Path(chosen).mkdir(parents=True, exist_ok=True)
        return Path(chosen)
    return tmp_path_factory.mktemp("screenshots")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long stories first, so that the last worker is not alone with one at the end; the others in their order."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker("e2e")
    rank = {f"test_{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONG)) if item.path.parent == HERE else -1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("e2e") and item.parent in broken:
        cannot_run("an earlier test of the module failed, and they share a machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Every test that leaves a machine on ends with no failed units there."""
    result = yield
    for machine in machines:
        if machine.leader:
            machine.expect_no_failed_units()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure carries the end of each machine's journal."""
    report = yield
    if report.failed:
        broken.add(item.parent)
        report.sections += [(f"journal of {machine.name}", machine.evidence()) for machine in machines]
    return report
