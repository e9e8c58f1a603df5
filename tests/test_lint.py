"""What checks the code without running it, one test for each tool. None of them needs a network."""

import ast
import os
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from construct.installer import HEADER, render_header

ROOT = Path(__file__).parents[1]
OURS = (".ci", "construct", "post_install", "recipe", "tests")
WORKFLOWS = ROOT / ".github/workflows"
# See post_install/README.md.
ABOVE_THE_WINGS = {f"barehub.{name}" for name in ("cli", "status", "verify", "evaluation", "rehearsal")}


def clean(*words: str | Path) -> None:
    """Run one of .venv's tools, which must have nothing to say."""
    __tracebackhide__ = True
    program, *rest = (os.fspath(word) for word in words)
    done = subprocess.run(
        [os.fspath(Path(sys.prefix, "bin", program)), *rest],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{program} exited with {done.returncode}\n{done.stdout}", pytrace=False)


def shell_scripts() -> list[Path]:
    """Every script for sh but the header, which is a template."""
    files = [path for folder in OURS for path in (ROOT / folder).rglob("*") if path.is_file()]
    scripts = [path for path in files if path.suffix == ".sh" or path.open("rb").read(10) == b"#!/bin/sh\n"]
    return sorted(path for path in scripts if path != HEADER)


def test_ruff_check() -> None:
    clean("ruff", "check", "--no-cache", ".")


def test_ruff_format() -> None:
    clean("ruff", "format", "--no-cache", "--check", ".")


def test_mypy() -> None:
    clean("mypy", "--cache-dir=.cache/mypy")


def test_shellcheck(tmp_path: Path) -> None:
    """The header is checked as a target sees it."""
    header = tmp_path / "header.sh"
    header.write_bytes(render_header(dict.fromkeys(re.findall(r"@([A-Z_0-9]+)@", HEADER.read_text()), "1")))
    scripts = shell_scripts()
    assert ROOT / ".ci/run" in scripts
    clean("shellcheck", "--shell=sh", "--norc", header, *scripts)


def test_files_are_short_and_so_are_lines_of_shell() -> None:
    """One screen after the other: a longer file is two. The guide is read by section (`barehub help TOPIC`)."""
    kinds = ("*.py", "*.sh", "*.jinja", "*.md")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *kinds]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    files = {name: (ROOT / name).read_text().splitlines() for name in names if name and (ROOT / name).is_file()}
    assert [name for name, lines in files.items() if len(lines) > 300 and not name.endswith("/ADMIN.md")] == []
    shell = [(name, line) for name, lines in files.items() if name.endswith(".sh") for line in lines]
    assert [where for where in shell if len(where[1]) > 120] == []


def test_zizmor() -> None:
    """Security of the workflows: https://docs.zizmor.sh/audits/"""
    clean("zizmor", "--offline", "--no-progress", "--quiet", WORKFLOWS)


def test_workflows_fit_their_schema() -> None:
    clean("check-jsonschema", "--builtin-schema=vendor.github-workflows", *sorted(WORKFLOWS.iterdir()))


def imports(path: Path, module: str) -> set[str]:
    """The modules that a file names, at any depth of it: an import inside a function is an arrow as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found - {module}


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    """Which of the packages' own modules each of them imports; a package's `__init__` is the package."""
    files = {}
    for home in (ROOT, ROOT / "post_install", *ROOT.glob("construct/overlays/*/python")):
        for package in {path.parent for path in home.glob("*/__init__.py")}:
            for path in package.rglob("*.py"):
                name = ".".join(path.relative_to(home).with_suffix("").parts).removesuffix(".__init__")
                files[name] = path
    return {name: imports(path, name) & files.keys() for name, path in files.items()}


def test_no_import_goes_in_a_circle(arrows: dict[str, set[str]]) -> None:
    assert {"barehub.cli", "barehub_slurm.partitions", "construct.build", "recipe.lock"} <= arrows.keys()
    try:
        tuple(TopologicalSorter(arrows).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}", pytrace=False)


@pytest.mark.parametrize(
    ("below", "above"),
    [
        (r"recipe\.", r"construct|barehub|tests"),
        (r"barehub\.(?!lifecycle\.|proxy_unit\.)", r"barehub\.(lifecycle|proxy_unit)\."),
        (r"barehub\.proxy_unit\.", r"barehub\.lifecycle\."),
        (r"barehub", r"construct|recipe|tests"),
    ],
)
def test_no_room_imports_one_above_it(arrows: dict[str, set[str]], below: str, above: str) -> None:
    up = {name for name, to in arrows.items() if re.match(below, name) and any(re.match(above, one) for one in to)}
    assert up - ABOVE_THE_WINGS == set()
