"""The engine conda-ship: what its `fill` does with the runtime."""

import os
import shutil
import signal
import subprocess
import sys
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


@pytest.mark.parametrize("modules", [1, 600])
def test_what_no_package_has_compiled_is_compiled_and_the_rest_not_opened(tmp_path: Path, modules: int) -> None:
    engine, stage, lib = tmp_path / "engine", tmp_path / "stage", tmp_path / "releases/1/lib"
    for directory in (engine, stage, lib / "__pycache__", tmp_path / "channel"):
        directory.mkdir(parents=True)
    shutil.copyfile(FILL, engine / "fill")
    # As the runtime does.
    (engine / "runtime").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m compileall -q -j 0 "$CONDA_SHIP_PREFIX/lib"\n'
    )
    (engine / "runtime").chmod(0o755)
    for number in range(modules):
        (lib / f"module{number}.py").write_text("answer = 42\n")
    (lib / "template.py").write_text("{% for %}\n")
    (lib / "done.py").write_text("answer = 42\n")
    compiled = lib / f"__pycache__/done.{sys.implementation.cache_tag}.pyc"
    compiled.write_bytes(b"")
    words = ["sh", "./engine/fill", tmp_path / "channel", tmp_path / "releases/1", stage]
    subprocess.run(words, cwd=tmp_path, check=True)
    names = {path.name.partition(".")[0] for path in compiled.parent.iterdir() if path.stat().st_size}
    few = {f"module{number}" for number in range(modules)}
    assert names == (few if modules < 500 else {*few, "done"})
