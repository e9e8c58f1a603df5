"""`barehub run`: hub and proxy in the foreground, for a container or a machine without systemd."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from barehub import process
from barehub.layout import Layout


def run(layout: Layout) -> int:
    """Run the proxy and the hub until one of them ends or a signal arrives; return the exit status."""
    environment = {
        **os.environ,
        "BAREHUB_BASE": str(layout.base),
        "PYTHONNOUSERSITE": "1",  # as in the hub's unit
        "PATH": f"{layout.hub / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    python = layout.hub / "bin/python"
    if status := process.run(python, "-I", "-m", "barehub.proxy_unit.prepare", env=environment):
        return status  # it has printed why
    commands: tuple[tuple[str | Path, ...], ...] = (
        (python, "-I", "-m", "barehub.proxy_unit.supervisor"),
        (layout.hub / "bin/jupyterhub", f"--config={layout.hub}/share/barehub/jupyterhub_config.py"),
    )
    # From here on a signal only ends the wait below; the children get theirs from us. A stop on request is 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    children: list[subprocess.Popen[bytes]] = []
    try:
        with process.signals_later():
            children += [process.start(*command, env=environment, cwd=layout.hub_state) for command in commands]
        # As a container's first process we are also the parent of orphans.
        while (ended := next_ended()) not in [one.pid for one in children]:
            os.waitpid(ended, 0)
        return 1  # neither is meant to end by itself; the one that did has printed why
    finally:
        for child in reversed(children):
            child.terminate()
        for child in children:
            child.wait()


def next_ended() -> int:
    """Wait until a child ends and return its pid, without reaping it."""
    found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    assert found is not None  # noqa: S101 - only WNOHANG gives None
    return found.si_pid
