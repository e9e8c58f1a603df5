"""recipe.overlay and specs: what an overlay's folder becomes."""

import json
from pathlib import Path

import pytest
from rattler import IndexJson
from rattler.package_streaming import extract

from recipe.channel import TIMESTAMP, build_own_packages
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.lock_file import Lock
from recipe.overlay import Stack, build_overlay, read_overlays
from recipe.specs import environment_specs, merge_specs, requirement
from tests.unit.channels import ROOT, write_overlay


def test_each_folder_has_its_place_in_the_prefix(tmp_path: Path) -> None:
    path = write_overlay(
        tmp_path / "slurm",
        "batchspawner >=1.3",
        **{
            "python__slurmhub__spawner": "x = 1\n",
            "share__slurm__page": "",
            "etc__jupyter__jupyter": "",
            "examples__70-more": "",
            "setup": "",
        },
    )
    (path / "jupyterhub_config.d").mkdir()
    (path / "jupyterhub_config.d/50-slurm.py").write_text("c.x = 1\n")
    [one] = read_overlays([path])
    package = build_overlay(one, "1.0", tmp_path, TIMESTAMP)
    assert package.name.startswith("barehub-overlay-slurm-1.0-pyh")
    index = IndexJson.from_package_archive(package)
    assert (index.subdir, index.depends) == ("noarch", ["python >=3.11", "barehub", "batchspawner >=1.3"])
    extract(package, tmp_path / "unpacked")
    paths = json.loads((tmp_path / "unpacked/info/paths.json").read_text())["paths"]
    assert sorted(entry["_path"] for entry in paths) == [
        "etc/jupyter/jupyter.py",
        "share/barehub/examples/70-more.py",
        "share/barehub/jupyterhub_config.d/50-slurm.py",
        "share/slurm/page.py",
        "site-packages/slurmhub/spawner.py",
    ]


def test_one_name_stands_for_one_content(tmp_path: Path) -> None:
    path = write_overlay(tmp_path / "one", examples__1="a")
    [before] = read_overlays([path])
    first = build_overlay(before, "1.0", tmp_path, TIMESTAMP)
    content = first.read_bytes()
    assert build_overlay(before, "1.0", tmp_path, TIMESTAMP) == first
    assert first.read_bytes() == content
    (path / "examples/1.py").write_text("b")
    assert build_overlay(before, "1.0", tmp_path, TIMESTAMP) != first


def test_a_later_overlay_replaces_an_earlier_ones_file(tmp_path: Path) -> None:
    low = write_overlay(tmp_path / "low", examples__1="low", examples__2="low")
    high = write_overlay(tmp_path / "high", examples__2="high")
    lower, higher = read_overlays([low, high])
    assert [path.name for path in lower.files] == ["1.py"]
    assert [path.read_text() for path in higher.files.values()] == ["high"]


def test_the_lock_of_a_stack_is_the_last_overlays_that_brings_specs(tmp_path: Path) -> None:
    low, high = write_overlay(tmp_path / "low", "a"), write_overlay(tmp_path / "high", "b", "jupyterhub-base <6")
    site = write_overlay(tmp_path / "site", examples__1="")
    stack = Stack.of(ROOT, [low, high, site])
    assert (stack.lock_for("linux-64"), stack.wheels) == (high / "environment.lock.yml", high / "wheels.txt")
    assert stack.lock_for("linux-aarch64") == high / "environment.linux-aarch64.lock.yml"
    assert Stack.of(ROOT, [site]).lock_for("linux-64") == ROOT / "environment.lock.yml"
    assert {"a", "b", "jupyterhub-base <6", "barehub-overlay-site"} <= set(stack.specs)
    assert len({spec.split()[0] for spec in stack.specs}) == len(stack.specs)


@pytest.mark.parametrize(
    ("name", "complaint"), [("Upper", "cannot be named"), ("empty", "brings nothing"), ("missing", "not a directory")]
)
def test_what_is_no_overlay_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "Upper").mkdir()
    (tmp_path / "empty/docs").mkdir(parents=True)
    with pytest.raises(UserError, match=complaint):
        read_overlays([tmp_path / name])


def test_two_overlays_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [write_overlay(tmp_path / place / "same", examples__1="") for place in "ab"]
    with pytest.raises(UserError, match="two overlays named same"):
        read_overlays(paths)


@pytest.mark.parametrize(
    ("spec", "for_pip"),
    [
        ("jupyterhub-base >=5,<6", "jupyterhub>=5,<6"),
        ("batchspawner", "batchspawner"),
        ("tornado 6.*", "tornado==6.*"),
        ("tornado =6.4", "tornado==6.4.*"),
        ("tornado ==6.4", "tornado==6.4"),
        ("tornado 6.4", "tornado==6.4"),
        ("tornado !=6.4.*", "tornado!=6.4.*"),
    ],
)
def test_a_spec_is_a_requirement_to_pip(spec: str, for_pip: str) -> None:
    assert requirement(spec) == for_pip


@pytest.mark.parametrize("spec", ["a 1|2", "a >=1.*", "a *_cuda"])
def test_what_pip_cannot_say_is_refused(spec: str) -> None:
    with pytest.raises(UserError, match="has a constraint that pip does not know"):
        requirement(spec)


def test_specs_are_read_strictly_and_merged(tmp_path: Path) -> None:
    path = tmp_path / "environment.yml"
    path.write_text("dependencies:\n  - a >= 1, <3\n  - b\n  - a<2\n")
    assert environment_specs(path) == ["a >=1,<3", "b", "a <2"]
    assert merge_specs(environment_specs(path)) == ["a >=1,<3,<2", "b"]
    path.write_text("dependencies:\n  - pip:\n    - a\n")
    with pytest.raises(UserError, match="not a conda package"):
        environment_specs(path)


def test_an_environment_stands_alone(tmp_path: Path) -> None:
    path = write_overlay(tmp_path / "lab", "jupyterlab >=4", "pip")
    (path / "README.md").write_text("# lab\n")
    stack = Stack.of(ROOT, environment=path)
    assert stack.specs == ["jupyterlab >=4", "pip", "barehub-environment-lab"]
    assert (stack.own, stack.title, stack.name) == ({"barehub-environment-lab"}, "environment lab", "lab")
    assert stack.options.startswith(" --environment ")
    assert (stack.lock_for("linux-64"), stack.wheels) == (path / "environment.lock.yml", path / "wheels.txt")
    [package] = build_own_packages(stack, tmp_path, tmp_path)
    assert IndexJson.from_package_archive(package).depends == ["python >=3.11", "jupyterlab >=4", "pip"]
    (path / "README.md").unlink()
    assert Stack.of(ROOT, environment=path).own == set()


def test_what_is_no_environment_is_refused(tmp_path: Path) -> None:
    overlay = write_overlay(tmp_path / "one", "a")
    with pytest.raises(UserError, match="has no overlays"):
        Stack.of(ROOT, [overlay], overlay)
    with pytest.raises(UserError, match=r"has no environment\.yml"):
        Stack.of(ROOT, environment=write_overlay(tmp_path / "two", examples__1="a"))


def test_the_lock_of_lab_is_of_its_specs() -> None:
    stack = Stack.of(ROOT, environment=ROOT / "construct/environments/lab")
    lock = Lock.read(stack.lock_for("linux-64"))
    assert {spec.split()[0] for spec in stack.specs} - stack.own <= lock.lines.keys()
    assert lock.wheels_sha256 == file_sha256(stack.wheels)
