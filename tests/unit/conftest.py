"""Programs that the unit tests start, such as `python -m barehub.proxy_unit.supervisor`, import this tree."""

import importlib
import os
import shutil
import sys
from pathlib import Path

import pytest
from barehub.layout import Layout

from tests.unit.installations import SHARE, belongs_to

os.environ["PYTHONPATH"] = str(Path(__file__).parents[2] / "post_install")
# Half of the time that importing JupyterHub takes (barehub.evaluation says why); nothing here validates a URL.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # the import system's way to say "not found"


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    """Import once what each child that evaluates a configuration would import by itself."""
    for module in ("jupyterhub.app", "barehub.proxy"):
        importlib.import_module(module)


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
