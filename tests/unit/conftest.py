"""Programs that the unit tests start, such as `python -m barehub.proxy_unit.supervisor`, import this tree."""

import gc
import importlib
import os
import pkgutil
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import barehub
import pytest
from barehub.config import leave_out_grammars
from barehub.layout import Layout
from barehub.lifecycle import backup, database
from sqlalchemy.orm import configure_mappers

from tests.unit.backups import another_machine, hub_at_work
from tests.unit.installations import OLD, OLD_SCHEMA, SHARE, belongs_to, forked_worker, worker

os.environ["PYTHONPATH"] = str(Path(__file__).parents[2] / "post_install")
leave_out_grammars()


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    """Do once what each child that evaluates a configuration would do by itself: it is forked off here.

    That is, import what JupyterHub imports, every authenticator that is installed included, and map its tables. And the
    child may be of an account that cannot read the checkout.
    """
    for module in pkgutil.walk_packages(barehub.__path__, "barehub."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("jupyterhub.app").JupyterHub()
    configure_mappers()
    gc.freeze()  # a child that collects what was made here would copy it


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """What a test sets in the environment, by what it calls, ends with it."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(autouse=True)
def _forked_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "attempt_as", forked_worker)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty BASE, and the release that will be installed there."""
    layout = Layout(tmp_path / "base", root=tmp_path / "root", prefix=tmp_path / "base/releases/2026.11.24")
    layout.config.mkdir(parents=True)
    (layout.share / "jupyterhub_config.d").mkdir(parents=True)
    return layout


@pytest.fixture
def configured(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """The same with a release's own configuration, whose interpreter this one is."""
    shutil.copytree(SHARE, layout.share, dirs_exist_ok=True)
    belongs_to(layout, monkeypatch)
    layout.hub_state.mkdir(parents=True)
    return layout


@pytest.fixture(scope="module")
def other_machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for one BASE after another: a backup goes back to the path that it is of."""
    return tmp_path_factory.mktemp("machine")


@pytest.fixture(scope="module")
def made(other_machine: Path) -> bytes:
    """A backup of a hub with JupyterHub 5's schema, whose machine is gone."""
    layout = Layout(other_machine / "base", root=other_machine / "root")
    with pytest.MonkeyPatch.context() as then:
        hub = hub_at_work(layout, OLD, other_machine, then, OLD_SCHEMA)
        backup.back_up(hub, other_machine / "made.tar", overwrite=False, say=lambda _: None)
    return (other_machine / "made.tar").read_bytes()


@pytest.fixture
def saved(made: bytes, tmp_path: Path) -> Path:
    """The same, in a file of the test's own."""
    path = tmp_path / "hub.tar"
    path.write_bytes(made)
    path.chmod(0o600)
    return path


@pytest.fixture
def bare(other_machine: Path, made: bytes, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """The same BASE on another machine, where an installer has filled the prefix of this release."""
    monkeypatch.setattr(sys, "executable", worker(other_machine / "worker"))
    return another_machine(Layout(other_machine / "base", root=other_machine / "root"), monkeypatch)
