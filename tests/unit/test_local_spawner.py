"""barehub.local_spawner: after a restart of the hub, a number is a server's only if its process is the same."""

import asyncio
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if os.environ.get("CI") != "true":
    pytest.importorskip("jupyterhub")

from barehub import local_spawner
from barehub.local_spawner import KnownProcessSpawner


def after_restart(state: dict[str, Any]) -> KnownProcessSpawner:
    spawner = KnownProcessSpawner(user=SimpleNamespace(name="alice"))
    spawner.load_state(state)
    return spawner


def state_of(pid: int) -> dict[str, Any]:
    spawner = KnownProcessSpawner(user=SimpleNamespace(name="alice"))
    spawner.pid = pid
    return spawner.get_state()


def test_a_server_that_runs_is_known_again() -> None:
    with subprocess.Popen(["sleep", "60"]) as server:
        for state in (state_of(server.pid), {"pid": server.pid}):  # an older release has noted no more than that
            assert asyncio.run(after_restart(state).poll()) is None
        server.kill()


def test_another_process_of_its_number_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        earlier = state_of(other.pid) | {"started": local_spawner.started(os.getpid())}
        spawner = after_restart(earlier)
        assert asyncio.run(spawner.poll()) == 0
        asyncio.run(spawner.stop())
        before = state_of(other.pid)
        monkeypatch.setattr(local_spawner, "BOOT_ID", local_spawner.BOOT_ID.with_name("uuid"))  # another boot
        assert asyncio.run(after_restart(before).poll()) == 0
        assert other.poll() is None
        other.kill()


def test_a_server_that_has_ended_is_gone() -> None:
    with subprocess.Popen(["true"]) as server:
        state = state_of(server.pid)
    assert asyncio.run(after_restart(state).poll()) == 0
    assert "started" not in state_of(0)


def test_the_name_of_a_process_is_any_bytes() -> None:
    """Else a user could keep the hub from starting."""
    rename = "printf '\\377 ) 1' > /proc/$$/comm; echo; read line"
    with subprocess.Popen(["sh", "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout
        server.stdout.readline()
        assert b"\xff ) 1" in Path(f"/proc/{server.pid}/comm").read_bytes()
        assert asyncio.run(after_restart(state_of(server.pid)).poll()) is None
        server.kill()
