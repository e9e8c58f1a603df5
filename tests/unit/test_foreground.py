"""`barehub run`: hub and proxy end together, whichever ends first, and a stop on request is no error."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from barehub.layout import Layout

from tests.unit.proxies import wait_until

# Runs until it is told to end, and notes that.
SERVES = "trap 'touch {0}.ended; exit' TERM; touch {0}.up; while :; do sleep 0.05; done"


def start(layout: Layout, *, prepare: str = "exit 0", jupyterhub: str = "") -> subprocess.Popen[bytes]:
    """`barehub run` in an installation whose programs are shell scripts."""
    programs = layout.hub / "bin"
    programs.mkdir(parents=True)
    layout.hub_state.mkdir(parents=True)
    python = f'case "$*" in *prepare*) {prepare};; *supervisor*) {SERVES.format(layout.base / "proxy")};; esac'
    scripts = {"python": python, "jupyterhub": jupyterhub or SERVES.format(layout.base / "hub")}
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    environment = {**os.environ, "BAREHUB_BASE": str(layout.base)}
    return subprocess.Popen([sys.executable, "-m", "barehub", "run"], env=environment)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "base")


def test_a_proxy_that_cannot_be_prepared_starts_nothing(layout: Layout) -> None:
    assert start(layout, prepare="exit 5").wait(20) == 5
    assert not (layout.base / "proxy.up").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_both(layout: Layout, number: signal.Signals, status: int) -> None:
    process = start(layout)
    wait_until(lambda: all((layout.base / f"{name}.up").exists() for name in ("proxy", "hub")))
    process.send_signal(number)
    assert process.wait(20) == status
    assert all((layout.base / f"{name}.ended").exists() for name in ("proxy", "hub"))


def test_a_hub_that_ends_takes_the_proxy_with_it(layout: Layout) -> None:
    up = layout.base / "proxy.up"
    process = start(layout, jupyterhub=f"while ! test -e {up}; do sleep 0.05; done; exit 0")
    assert process.wait(20) == 1
    assert (layout.base / "proxy.ended").exists()
