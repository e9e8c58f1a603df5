"""The engine conda-ship: what its `fill` does with the runtime."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

FILL = Path(__file__).parents[2] / "construct/conda_ship/fill.sh"


@pytest.mark.parametrize("shell", [shell for shell in ("dash", "bash") if shutil.which(shell)])
def test_several_signals_at_once_do_not_cut_its_cleaning_up_short(tmp_path: Path, shell: str) -> None:
    """Ctrl-C reaches each process of the terminal, and the installer passes it on: two signals in a moment."""
    channel, engine, releases = tmp_path / "channel", tmp_path / "engine", tmp_path / "releases"
    for directory in (channel, engine, releases):
        directory.mkdir()
    shutil.copyfile(FILL, engine / "fill")
    (engine / "runtime").write_text(f"#!/bin/sh\n: >{releases}/.1.conda-ship.lock\necho works\nexec sleep infinity\n")
    (engine / "runtime").chmod(0o755)
    for turn in range(30):
        stage = tmp_path / f"stage-{turn}"
        stage.mkdir()
        words = [shell, engine / "fill", channel, releases / "1", stage]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "works\n"
            os.killpg(process.pid, signal.SIGTERM)
            for _ in range(20):
                if process.poll() is None:
                    process.terminate()
            assert process.stdout.read() == ""
        assert process.returncode == 143
        assert list(releases.iterdir()) == []
