"""`barehub run`: hub and proxy in the foreground, for a container or a machine without systemd."""

import os
import signal
import subprocess
import sys

from barehub.layout import Layout


def run(layout: Layout) -> int:
    """Run the proxy and the hub until one of them ends or a signal comes; return the exit status."""
    environment = {
        **os.environ,
        "BAREHUB_BASE": str(layout.base),
        "PATH": f"{layout.hub / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    python = layout.hub / "bin/python"
    if status := subprocess.run(
        [python, "-I", "-m", "barehub.proxy_unit.prepare"], env=environment, check=False
    ).returncode:
        return status  # it has said why
    commands = (
        [python, "-I", "-m", "barehub.proxy_unit.supervisor"],
        [layout.hub / "bin/jupyterhub", f"--config={layout.hub}/share/barehub/jupyterhub_config.py"],
    )
    # From here on a signal only ends the wait below; the children get theirs from us. A stop that was asked for is 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    children = [subprocess.Popen(command, env=environment, cwd=layout.hub_state) for command in commands]
    try:
        # As a container's first process we are also the parent of orphans.
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT).si_pid) not in [one.pid for one in children]:
            os.waitpid(ended, 0)
        return 1  # neither is meant to end by itself; what ended has said why
    finally:
        for child in reversed(children):
            child.terminate()
        for child in children:
            child.wait()
