"""Programs that the unit tests start, such as `python -m barehub.proxy_unit.supervisor`, import this tree."""

import os
from pathlib import Path

import pytest
from barehub.layout import Layout

os.environ["PYTHONPATH"] = str(Path(__file__).parents[2] / "post_install")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty BASE, and the release that will be installed there."""
    layout = Layout(tmp_path / "base", root=tmp_path / "root", prefix=tmp_path / "base/releases/2026.11.24")
    layout.config.mkdir(parents=True)
    (layout.share / "jupyterhub_config.d").mkdir(parents=True)
    return layout
