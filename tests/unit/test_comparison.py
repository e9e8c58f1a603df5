"""The installer's --diff: what an upgrade would change, told by the active release's python, which writes nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import jupyterhub
import pytest
from barehub.lifecycle.comparison import facts, newest_schema
from barehub.lifecycle.database import newest_revision

from tests.unit.installations import OLD_SCHEMA, POST_INSTALL, keep_history_until
from tests.unit.installers import SHELLS, refused, run, write

PYTHON = Path(sys.executable).resolve()
UNITS = POST_INSTALL / "barehub/units"
ALEMBIC = Path(jupyterhub.__file__).parent / "alembic"
OLD, NEW = "2026.10.24", "2026.11.24"
SHIPPED = {"jupyterhub-base": "5.5.4", "gone": "1.0", "barehub": "0.1.0", "traefik": "3.7.15"}


def receipt(name: str, label: str, packages: Mapping[str, str], build: str = "h0_0", **more: object) -> str:
    """A release.json with these packages; release and distribution stand in lines of their own."""
    files = [{"path": f"channel/linux-64/{one}-{version}-{build}.conda"} for one, version in packages.items()]
    return json.dumps({"name": name, "version": label, "files": files, **more}, indent=1) + "\n"


def make_active(base: Path, label: str = OLD, *, link: str = "hub", schema: str | None = OLD_SCHEMA) -> Path:
    """A release with a python of its own, and the files of barehub and JupyterHub that tell what it is."""
    prefix = base / "releases" / label
    site = prefix / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    for directory in (prefix / "bin", prefix / "conda-meta", prefix / "share/barehub", site):
        directory.mkdir(parents=True)
    (prefix / "bin/python").symlink_to(PYTHON)
    (prefix / "pyvenv.cfg").write_text(f"home = {PYTHON.parent}\n")
    (prefix / "share/barehub/release.json").write_text(receipt("barehub", label, SHIPPED))
    for name, version in SHIPPED.items():
        (prefix / f"conda-meta/{name}-{version}-h0_0.json").write_text("{}")
    if schema:
        shutil.copytree(ALEMBIC, site / "jupyterhub/alembic")
        keep_history_until(site / "jupyterhub/alembic/versions", schema)
        shutil.copytree(POST_INSTALL / "barehub", site / "barehub", ignore=shutil.ignore_patterns("__pycache__"))
    (base / link).symlink_to(f"releases/{label}")
    return prefix


def add_wheel(prefix: Path, name: str, version: str, installer: str = "pip") -> None:
    """Leave what pip leaves of a package."""
    [site] = prefix.glob("lib/python3*/site-packages")
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "INSTALLER").write_text(f"{installer}\n")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def newer(directory: Path, label: str = NEW, name: str = "barehub", **facts: object) -> Path:
    """An installer of a release that differs from the active one in packages, and has these facts."""
    packages = {"jupyterhub-base": "6.1.1", "barehub": "0.1.0", "traefik": "3.7.15", "new-one": "0.1"}
    text = receipt(name, label, packages, build="h1_0", facts=facts)
    return write(directory / f"{name}-{label}", release=text, NAME=name, RELEASE=label)


def like(prefix: Path, **changes: object) -> dict[str, object]:
    """The facts of a release, with some changed."""
    return {**facts(prefix), **changes}


def listing(base: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in base.rglob("*"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


@pytest.mark.parametrize("shell", SHELLS)
def test_it_says_what_an_upgrade_would_change_and_changes_nothing(tmp_path: Path, base: Path, shell: str) -> None:
    prefix = make_active(base)
    add_wheel(prefix, "site-spawner", "1.2")
    add_wheel(prefix, "New.One", "0.0", "uv")  # the new release brings it
    add_wheel(prefix, "jupyterhub", "5.5.5")  # the same, though conda calls it otherwise
    units = {**facts(prefix)["units"], "extra.timer": "[Timer]\n"}
    units["hub.service"] = units["hub.service"].replace("Restart=", "RestartSec=7\nRestart=")
    units["barehub.target"] = "# said otherwise\n" + units["barehub.target"]
    installer = newer(tmp_path, **like(prefix, schema="abc123", units=units, wheels=["jupyterhub"]))
    before = listing(base)
    done = run(installer, "--diff", "-p", str(base), shell=shell)
    assert done.returncode == 0, done
    told, room = done.stdout.rsplit("\nroom ", 1)
    assert (
        told
        == f"""\
barehub {NEW} is newer than {OLD}, which is active in {base}; to upgrade: sh {installer} -u -p {base}

changed:
  jupyterhub-base  5.5.4 -> 6.1.1

added:
  new-one  0.1

removed:
  gone  1.0

the same version, built again:
  barehub  0.1.0
  traefik  3.7.15

added by hand, and not carried over:
  site-spawner  1.2 (pip)

units:
  barehub.target: comments only
  extra.timer is new
  hub.service
    + RestartSec=7

database  schema {OLD_SCHEMA} -> abc123: a backup is made, and a copy is migrated;
          a database server (c.JupyterHub.db_url) is migrated in place; PostgreSQL is dumped first,
          any other is yours to back up
hub       restarts: it is away for 5 to 20 s, longer with a large database or a slow disk
proxy     goes on
servers   go on, with their kernels"""
    )
    assert f" MB are needed in {base}, " in room
    assert done.stderr == ""
    assert listing(base) == before


def test_the_proxy_restarts_only_for_what_it_runs_and_a_schema_may_stay(tmp_path: Path, base: Path) -> None:
    prefix = make_active(base)
    units = {**facts(prefix)["units"]}
    units["proxy.service"] += "# a comment, for which an upgrade restarts it, too\n"
    for change in ({"proxy": "other"}, {"units": units}):
        told = run(newer(tmp_path, **like(prefix, **change)), "--diff", "-p", str(base)).stdout
        assert (
            "proxy     restarts: new requests wait for up to 5 s, none is refused; open websockets reconnect\n" in told
        )
        assert f"database  schema {OLD_SCHEMA}, as before: a backup is made, nothing is migrated\n" in told


@pytest.mark.parametrize(
    ("label", "name", "what"),
    [
        ("2026.10.23", "barehub", "is older than 2026.10.24, which is active in {}: an upgrade to it is refused"),
        ("2026.10.23", "myhpc", "is older than barehub 2026.10.24, which is active in {}: an upgrade to it is refused"),
        ("2026.10.24.1", "barehub", "is newer than 2026.10.24, which is active in {}; to upgrade: sh "),
        (OLD, "barehub", "is active in {}; to write its files again: sh "),
        (NEW, "myhpc", "is another distribution than barehub 2026.10.24, which is active in {}; to replace that:"),
    ],
)
def test_the_first_line_says_what_it_is_to_the_active_release(
    tmp_path: Path, base: Path, label: str, name: str, what: str
) -> None:
    prefix = make_active(base)
    done = run(newer(tmp_path, label, name, **like(prefix)), "--diff", "-p", str(base))
    assert done.stdout.startswith(f"{name} {label} {what.format(base)}")
    assert ("nothing restarts: this release is active" in done.stdout) == (label == OLD)
    assert ("\n  sh " in done.stdout) == ("to replace that" in what)


def test_releases_for_users_are_compared_by_their_packages(tmp_path: Path, base: Path) -> None:
    make_active(base, link="current", schema=None)
    text = receipt("lab", NEW, SHIPPED, build="h1_0")
    installer = write(tmp_path / "lab", release=text, NAME="lab", RELEASE=NEW, KIND="environment")
    done = run(installer, "--diff", "-p", str(base))
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"lab {NEW} is another distribution than barehub {OLD}")
    assert re.search(r"\nthe same version, built again:\n(  .*\n)*  traefik +3.7.15\nroom ", done.stdout)
    os.chown(base, 65534, 65534)
    refused(run(installer, "--diff", "-p", str(base)), 6, "belongs to another account")


def test_without_a_release_there_is_nothing_to_compare_with(tmp_path: Path, base: Path) -> None:
    installer = newer(tmp_path)
    for option in ("--diff", "--audit"):
        refused(run(installer, option, "-p", str(base)), 6, f"there is no release in {base} to compare with")
        refused(run(installer, option, "-p", str(tmp_path / "none")), 6, "there is no release in")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another account")
def test_any_account_may_ask_and_what_it_cannot_read_is_not_said_to_be_missing() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        base = directory / "base"
        prefix = make_active(base)
        installer = newer(directory, **like(prefix))
        (prefix / "bin/python").unlink()
        (prefix / "bin/python").symlink_to("/usr/bin/python3")  # which that account can run, wherever this one is
        (prefix / "pyvenv.cfg").unlink()
        words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", installer, "--diff", "-p", base]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        assert "\n  jupyterhub-base  5.5.4 -> 6.1.1\n" in done.stdout
        (base / "releases").chmod(0o700)
        refused(subprocess.run(words, capture_output=True, text=True, check=False), 6, "or cannot be read")
        base.chmod(0o700)
        refused(subprocess.run(words, capture_output=True, text=True, check=False), 6, f"{base} cannot be entered")


def test_a_damaged_release_is_named_in_one_line(tmp_path: Path, base: Path) -> None:
    prefix, installer = make_active(base), newer(tmp_path)
    (prefix / "share/barehub/release.json").write_text("{")
    done = run(installer, "--diff", "-p", str(base))
    assert done.returncode == 1
    assert done.stderr.startswith("error: the active release cannot be read: ")
    assert len(done.stderr.splitlines()) == 2
    (prefix / "bin/python").unlink()
    refused(run(installer, "--diff", "-p", str(base)), 6, f"{OLD}, which is active in {base}, is not complete")


def test_root_runs_no_python_that_others_could_have_put_there(tmp_path: Path, base: Path) -> None:
    prefix = make_active(base)
    (prefix / "bin/python").unlink()
    (prefix / "bin/python").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (prefix / "bin/python").chmod(0o755)
    base.chmod(0o777)
    refused(run(newer(tmp_path), "--diff", "-p", str(base)), 6, f"others than root can change {base}")
    assert not (tmp_path / "ran").exists()


def test_the_schema_is_the_one_that_alembic_would_migrate_to(tmp_path: Path) -> None:
    assert newest_schema(ALEMBIC / "versions") == newest_revision()
    shutil.copytree(ALEMBIC / "versions", tmp_path / "versions")
    keep_history_until(tmp_path / "versions", OLD_SCHEMA)
    assert newest_schema(tmp_path / "versions") == OLD_SCHEMA
    # As alembic's newer templates write it; a merge follows several.
    (tmp_path / "versions/merge.py").write_text(
        f"revision: str = 'abc'\ndown_revision: tuple = ('x', '{OLD_SCHEMA}')\n"
    )
    (tmp_path / "versions/x.py").write_text("revision = 'x'\ndown_revision = None\n")
    assert newest_schema(tmp_path / "versions") == "abc"
    (tmp_path / "versions/other.py").write_text("revision = 'other'\ndown_revision = None\n")
    assert newest_schema(tmp_path / "versions") == ""
