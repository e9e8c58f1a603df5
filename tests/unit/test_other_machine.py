"""Releases for another machine than this one; tests/e2e/test_other_machine.py makes and runs a whole one."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rattler import Channel

import release
from construct import conda_constructor, conda_ship
from construct.conda_ship import fetch_other, unpack_template
from construct.engines import choose_engine
from construct.lock import lock_environment
from construct.measure import measure
from construct.mirror import mirror
from construct.packages import read_lock
from construct.solve import solve_environment
from recipe import pins
from recipe.convert import build_package
from recipe.elf import is_elf, machine, needed_libraries, require_machine
from recipe.errors import UserError
from recipe.interpreter import interpreter_files, stage_interpreter
from recipe.libraries import linked_in
from recipe.metadata import PLATFORM, Target
from recipe.overlay import Stack
from recipe.shipped import Interpreter, running_target, shipped_interpreter
from tests.unit.channels import FORGE, TIMESTAMP, write_channel, write_repository
from tests.unit.installers import refused, run, write
from tests.unit.wheels import make

MINOR = running_target().minor
OTHER = {"linux-64": "linux-aarch64", "linux-aarch64": "linux-64"}[PLATFORM]
MACHINE = Target(MINOR, OTHER).machine
NUMBER = {"x86_64": 62, "aarch64": 183}[MACHINE]  # elf(5): e_machine


def foreign(place: Path, *, needs: str = "", number: int = NUMBER) -> Path:
    """Write an ELF file of the other machine: this Python's program with another number, which no test runs."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(sys.executable).resolve(), place)
    place.chmod(0o755)
    for name in needed_libraries(place):
        subprocess.run(["patchelf", "--remove-needed", name, place], check=True)
    if needs:
        subprocess.run(["patchelf", "--add-needed", needs, place], check=True)
    with place.open("r+b") as file:
        file.seek(18)
        file.write(number.to_bytes(2, "little"))
    return place


def offer(directory: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, version: str = f"{MINOR}.99") -> Path:
    """Pack the tree as the pinned archive of the other machine; return the mirror that has it."""
    mirror = directory / "python-mirror"
    mirror.mkdir()
    archive = mirror / f"cpython-{version}+20991231-{MACHINE}-unknown-linux-gnu-install_only.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tree, "python"], check=True)
    text = f"{MACHINE} {archive.name} {hashlib.sha256(archive.read_bytes()).hexdigest()}\n"
    (mirror / "python.txt").write_text(text)
    monkeypatch.setenv("BAREHUB_PYTHON_PINS", str(mirror / "python.txt"))
    return mirror


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small interpreter of the other machine: a program, a library that it brings, a module, its configuration."""
    tree = tmp_path / "tree"
    foreign(tree / f"python/bin/python{MINOR}", needs="/install/lib/libown.so.1")
    (tree / "python/bin/python3").symlink_to(f"python{MINOR}")
    foreign(tree / "python/lib/libown.so.1")
    library = tree / f"python/lib/python{MINOR}"
    foreign(library / "lib-dynload/_demo.so", needs="libown.so.1")
    (library / "site.py").write_text("")
    (library / f"_sysconfigdata__linux_{MACHINE}.py").write_text("build_time_vars = {'prefix': '/install'}\n")
    (tree / f"python/include/python{MINOR}").mkdir(parents=True)
    (tree / f"python/include/python{MINOR}/Python.h").write_text("")
    return tree


def test_it_ships_the_interpreter_that_is_pinned_for_it(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python_mirror = offer(tmp_path, tree, monkeypatch)
    assert shipped_interpreter(PLATFORM, tmp_path / "cache", "") == Interpreter.running()
    found = shipped_interpreter(OTHER, tmp_path / "cache", str(python_mirror))
    assert (found.target, found.runs_here, found.is_portable) == (Target(f"{MINOR}.99", OTHER), False, True)
    assert not found.is_of_the_same_build
    stage = tmp_path / "stage"
    stage.mkdir()
    monkeypatch.setattr(sys, "platlibdir", "lib64")  # the layout of what is not shipped is of no account
    stage_interpreter(stage, found)
    assert {machine(path) for path in stage.rglob("*") if is_elf(path)} == {MACHINE}
    assert needed_libraries(stage / f"bin/python{MINOR}") == ["libown.so.1"]
    rpath = subprocess.run(
        ["patchelf", "--print-rpath", stage / f"bin/python{MINOR}"], capture_output=True, text=True, check=True
    )
    assert rpath.stdout == "$ORIGIN/../lib\n"
    assert "@PREFIX@" in (stage / f"lib/python{MINOR}/_sysconfigdata__linux_{MACHINE}.py").read_text()
    assert (stage / f"include/python{MINOR}/Python.h").exists()
    assert found.prefix / "lib/libown.so.1" in interpreter_files(found)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda tree: (tree / "python/lib/libown.so.1").unlink(), r"needs libown\.so\.1, which the portable inter"),
        (
            lambda tree: foreign(tree / f"python/lib/python{MINOR}/stranger.so", number=243),
            rf"stranger\.so of python{MINOR} is for 243, not for {MACHINE}",
        ),
    ],
    ids=["library", "machine"],
)
def test_an_interpreter_that_would_not_run_there_is_refused(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, change: object, what: str
) -> None:
    assert callable(change)
    change(tree)
    found = shipped_interpreter(OTHER, tmp_path / "cache", str(offer(tmp_path, tree, monkeypatch)))
    (tmp_path / "stage").mkdir()
    with pytest.raises(UserError, match=what):
        stage_interpreter(tmp_path / "stage", found)


def test_without_that_interpreter_there_is_no_release(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python_mirror = offer(tmp_path, tree, monkeypatch, "3.99.1")
    with pytest.raises(UserError, match=rf"is Python 3\.99, and Python {MINOR} cannot compile for it"):
        shipped_interpreter(OTHER, tmp_path / "cache", str(python_mirror))
    with pytest.raises(UserError, match=f"the portable interpreter for {MACHINE} cannot be had") as caught:
        shipped_interpreter(OTHER, tmp_path / "none", str(tmp_path / "nowhere"))
    assert "--python-mirror" in caught.value.fix


def test_the_versions_of_its_libraries_are_those_of_the_same_build_s(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No program of it runs here, so they are known if the running interpreter is of one upstream release with it."""
    found = shipped_interpreter(OTHER, tmp_path / "cache", str(offer(tmp_path, tree, monkeypatch)))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "here/python"))
    (tmp_path / "here").mkdir()
    for made, same in (("20991231", True), ("20990101", False)):
        (tmp_path / "here/standalone").write_text(f"cpython-{MINOR}.99+{made}-{os.uname().machine}-linux.tar.gz\n")
        assert found.is_of_the_same_build is same
    assert {one.name for one in linked_in(())} == {one.name for one in linked_in((), versions=False)}
    assert not any(one.version for one in linked_in((), versions=False))


def test_a_wheel_for_it_holds_files_for_it(tmp_path: Path) -> None:
    library = foreign(tmp_path / "demo.so").read_bytes()
    tag = f"py3-none-manylinux2014_{MACHINE}"
    wheel = make(tmp_path, tag=tag, files={"demo.py": "x = 1\n", "demo.so": library})
    package = build_package(wheel, Target(MINOR, OTHER), tmp_path, TIMESTAMP, {}, compression_level=1)
    assert package.parent.name != PLATFORM
    (tmp_path / "wrong").mkdir()
    wrong = make(tmp_path / "wrong", tag=tag, files={"demo.so": Path(sys.executable).read_bytes()})
    with pytest.raises(UserError, match=rf"demo\.so of demo-1\.0-.* is for .*, not for {MACHINE}"):
        build_package(wrong, Target(MINOR, OTHER), tmp_path, TIMESTAMP, {}, compression_level=1)
    anybody = make(tmp_path / "wrong", name="anybody", files={"for_all.so": Path(sys.executable).read_bytes()})
    build_package(anybody, Target(MINOR, OTHER), tmp_path, TIMESTAMP, {}, compression_level=1)


def test_what_is_no_elf_file_is_for_every_machine(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    (tmp_path / "cut").write_bytes(b"\x7fELF")
    require_machine(tmp_path.iterdir(), MACHINE, "it")


def test_the_engine_is_conda_ship() -> None:
    assert choose_engine("auto", OTHER) is conda_ship
    assert choose_engine(conda_ship.NAME, OTHER) is conda_ship
    with pytest.raises(UserError, match=f"makes installers for {PLATFORM} here, not for {OTHER}"):
        choose_engine(conda_constructor.NAME, OTHER)


def test_the_engine_s_template_is_that_of_its_wheel_for_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, index = offer_template(tmp_path, foreign(tmp_path / "template").read_bytes())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    (tmp_path / "work").mkdir()
    template = unpack_template(fetch_other(tools, OTHER, tmp_path / "work"), MACHINE)
    assert machine(template) == MACHINE
    with pytest.raises(UserError, match="cs-template of conda_ship"):
        unpack_template(next(index.glob(f"*{MACHINE}.whl")), "another")


def offer_template(directory: Path, template: bytes) -> tuple[Path, Path]:
    """Write a tools.txt, and the index that has a wheel of conda-ship for each machine, and one of another tool."""
    index = directory / "index"
    index.mkdir()
    files = {"conda_ship-1.0.data/scripts/cs-template": template}
    ships = {
        make(index, "conda_ship", tag=f"py3-none-manylinux2014_{one}", files=files).sha256
        for one in (MACHINE, running_target().machine)
    }
    tools = directory / "tools.txt"
    others = {"tool": pins.Pin("1.0", {make(index, "tool").sha256})}
    tools.write_text(pins.render({"conda-ship": pins.Pin("1.0", ships), **others}, "tools"))
    return tools, index


def test_it_is_measured_without_being_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QEMU_LD_PREFIX", str(tmp_path / "nothing"))
    channel = write_channel(tmp_path / "channel", [("one", "1.0", ()), ("two", "1.0", ())], OTHER)
    records = solve_environment([Channel(channel.as_uri())], ["one", "two"], OTHER)
    engine = tmp_path / "engine"
    foreign(engine / "runtime")
    (engine / "fill").write_text("#!/bin/sh\nexit 1\n")
    measured = measure(engine, channel, records, tmp_path / "trial", OTHER)
    names = {path.name for path in (tmp_path / "trial/prefix").iterdir()}
    assert {"one", "two", "conda-meta"} <= names
    assert measured.inodes >= 5
    assert f"programs for {MACHINE} do not run on this machine" in capsys.readouterr().err


def test_wheels_have_one_lock_and_channels_one_for_each_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a mirror for the other machine has its packages, and what makes the engine."""
    stack = Stack(write_repository(tmp_path / "repository"))
    forge = str(write_channel(tmp_path / "forge", FORGE, OTHER))
    with pytest.raises(UserError, match=f"there is no .*{OTHER}") as caught:
        read_lock(stack, None, [forge], OTHER)
    assert f"--channel {forge} --platform {OTHER}," in caught.value.fix
    (stack.root / "environment.lock.yml").write_text("name: wheels\nchannels:\ndependencies:\n  - python>=3.11\n")
    assert read_lock(stack, None, [forge], OTHER).name == "wheels"  # a mirror of what is made from wheels
    lock_environment(stack, OTHER, (), None, [forge])
    assert read_lock(stack, None, (), OTHER).name == "wheels"
    assert read_lock(stack, None, [forge], OTHER).name == "barehub"
    tools, index = offer_template(tmp_path, b"\x7fELF")
    shutil.copyfile(tools, stack.root / "recipe/tools.txt")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    mirror(stack, None, [forge], tmp_path / "mirror", OTHER)
    assert list((tmp_path / "mirror" / OTHER).glob("jupyterhub-base-*.conda"))
    assert {path.name for path in (tmp_path / "mirror/wheels").glob("*.whl")} == {one.name for one in index.iterdir()}


def test_the_installer_is_refused_on_another_machine(tmp_path: Path) -> None:
    installer = write(tmp_path, MACHINE=MACHINE)
    refused(run(installer, "-b"), 3, f"this installer is for Linux {MACHINE}, not Linux {os.uname().machine}")
    assert run(installer, "--list").returncode == 0


def test_every_command_that_makes_something_has_a_platform() -> None:
    for words in (["--platform", OTHER], ["lock", "--platform", OTHER], ["mirror", "--platform", OTHER, "x"]):
        assert release.parse(words).platform == OTHER
    assert release.parse([]).platform is None
