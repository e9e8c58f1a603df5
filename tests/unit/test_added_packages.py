"""barehub.lifecycle.added_packages: what an administrator added to a release is found, and missed in the next."""

import json
from pathlib import Path

import pytest
from barehub.errors import Exit, UserError
from barehub.lifecycle.added_packages import Package, added, report_added


def prefix(path: Path, *, conda: tuple[str, ...] = (), wheels: tuple[tuple[str, str], ...] = ()) -> Path:
    """A release that came with python and jupyterhub, and what was added to it."""
    site = path / "lib/python3.11/site-packages"
    (path / "conda-meta").mkdir(parents=True)
    (path / "share/barehub").mkdir(parents=True)
    files = [{"path": f"noarch/{name}.conda"} for name in ("python-3.11.9-h1", "jupyterhub-6.0-h1")]
    (path / "share/barehub/release.json").write_text(json.dumps({"files": files}))
    for name in ("python-3.11.9-h1", "jupyterhub-6.0-h1", *conda):
        (path / f"conda-meta/{name}.json").write_text("{}")
    for name, installer in (("jupyterhub-6.0", "conda"), *wheels):
        (site / f"{name}.dist-info").mkdir(parents=True)
        if installer:
            (site / f"{name}.dist-info/INSTALLER").write_text(f"{installer}\n")
    return path


def test_packages_are_found_whatever_installed_them(tmp_path: Path) -> None:
    wheels = (("site_spawner-1.2", "pip"), ("fast-0.1", "uv"), ("bare-2.0", ""))
    release = prefix(tmp_path / "a", conda=("scikit-learn-1.5.0-py311_0",), wheels=wheels)
    assert added(release) == [
        Package("bare", "2.0", "pip"),
        Package("fast", "0.1", "uv"),
        Package("scikit-learn", "1.5.0", "conda"),
        Package("site-spawner", "1.2", "pip"),
    ]


def test_what_the_next_release_lacks_is_listed_with_a_command(tmp_path: Path) -> None:
    wheels = (("site_spawner-1.2", "pip"), ("fast-0.1", "uv"))
    old, new = prefix(tmp_path / "2026.10.24", wheels=wheels), prefix(tmp_path / "2026.11.24", wheels=wheels[:1])
    said: list[str] = []
    report_added(old, new, required=False, say=said.append)
    assert said[0] == "added to 2026.10.24 by hand and not in 2026.11.24: fast 0.1 (uv)"
    assert said[1].endswith(f"{new}/bin/python -m pip install fast==0.1")
    with pytest.raises(UserError, match=r"not in 2026\.11\.24: fast 0\.1") as caught:
        report_added(old, new, required=True, say=said.append)
    assert caught.value.code == Exit.HOOK
    assert "pip install fast==0.1" in caught.value.fix


def test_nothing_is_said_where_nothing_is_missing(tmp_path: Path) -> None:
    """Another version is the administrator's choice, or the new release's; a name's spelling does not count."""
    old = prefix(tmp_path / "old", wheels=(("Site_Spawner-1.2", "pip"),), conda=("slurm-24.1-h0",))
    new = prefix(tmp_path / "new", wheels=(("site_spawner-1.3", "pip"),), conda=("slurm-25.0-h0",))
    report_added(old, new, required=True, say=pytest.fail)
