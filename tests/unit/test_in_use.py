"""barehub.in_use, and the spawners that tell it: what users' servers run from, for who may not ask the hub."""

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from barehub import in_use
from barehub.accounts import current_user
from barehub.environments import started_from
from barehub.layout import Layout
from barehub.local_spawner import KnownProcessSpawner
from barehub_slurm.following import Following
from barehub_slurm.jobs import Queue

from tests.unit.installations import interpreter
from tests.unit.proxies import wait_until
from tests.unit.test_environments import make_environment

NO_ENVIRONMENT: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def told(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, where a hub whose installation this is would write it."""
    monkeypatch.setattr(in_use, "servers", {})
    monkeypatch.setenv("BAREHUB_BASE", str(layout.base))
    layout.in_use.parent.mkdir(parents=True, exist_ok=True)
    return layout.in_use


def spawner(user: str, server: str = "") -> Any:
    return SimpleNamespace(user=SimpleNamespace(name=user), name=server)


def state(release: str) -> dict[str, Any]:
    return {"environment": started_from(f"/lab/releases/{release}", "6.1.1")}


def test_every_server_counts_and_is_gone_when_it_has_ended(told: Path) -> None:
    for user, server, release in (("ada", "", "1"), ("ada", "two", "2"), ("bob", "", "1")):
        in_use.note(spawner(user, server), state(release))
    assert told.read_text() == "/lab/releases/1\n/lab/releases/2\n"
    assert told.stat().st_mode & 0o777 == 0o644
    in_use.note(spawner("ada"), NO_ENVIRONMENT)
    assert told.read_text() == "/lab/releases/1\n/lab/releases/2\n"
    in_use.note(spawner("ada", "two"), state("1"))  # started again, after a switch
    assert told.read_text() == "/lab/releases/1\n"
    in_use.note(spawner("ada", "two"), {})
    in_use.note(spawner("bob"), {"environment": "from an older release"})
    assert told.read_text() == ""


def test_a_place_that_cannot_be_written_keeps_no_server_from_starting(
    told: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.parent.rmdir()
    in_use.note(spawner("ada"), state("1"))
    monkeypatch.delenv("BAREHUB_BASE")  # no installation at all
    in_use.note(spawner("ada"), state("2"))
    assert len([one for one in caplog.records if "nobody is told which environments" in one.message]) == 2


def test_the_default_spawner_starts_a_server_by_its_releases_real_path(
    tmp_path: Path, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import runpy\nsys.argv.insert(0, '')\nrunpy.run_module('barehub.environments', run_name='__main__')"
    monkeypatch.setattr(sys, "executable", str(interpreter(tmp_path / "python", code)))
    for release in ("1", "2"):
        make_environment(tmp_path / "lab/releases" / release, "6.1.1")
    server = tmp_path / "lab/releases/1/bin/jupyterhub-singleuser"
    server.write_text(f'#!/bin/sh\necho "$0" >{tmp_path}/ran\nexec sleep 600\n')
    current = tmp_path / "lab/current"
    current.symlink_to("releases/1")
    user = SimpleNamespace(name=current_user())
    new = KnownProcessSpawner(user=user, cmd=[f"{current}/bin/jupyterhub-singleuser"], log=logging.getLogger("test"))
    monkeypatch.setattr(KnownProcessSpawner, "get_args", lambda _: ["--one"])
    monkeypatch.setattr(KnownProcessSpawner, "get_env", lambda _: {"PATH": os.environ["PATH"]})
    monkeypatch.setattr(KnownProcessSpawner, "make_preexec_fn", lambda *_: lambda: None)

    async def story() -> None:
        await new.start()
        assert new.cmd == [f"{current}/bin/jupyterhub-singleuser"]  # the next one is of what `current` means then
        kept = json.loads(json.dumps(new.get_state()))
        assert kept["environment"] == started_from(f"{tmp_path}/lab/releases/1", "6.1.1")
        assert told.read_text() == f"{tmp_path}/lab/releases/1\n"
        current.unlink()
        current.symlink_to("releases/2")
        wait_until(lambda: (tmp_path / "ran").exists() and (tmp_path / "ran").read_text() == f"{server}\n")
        after = KnownProcessSpawner(user=user)  # the hub was restarted
        after.load_state(kept)
        assert after.get_state()["environment"] == kept["environment"]
        await new.stop(now=True)
        new.clear_state()
        assert "environment" not in new.get_state()
        assert told.read_text() == ""

    asyncio.run(story())


def test_a_job_that_is_queued_counts_already() -> None:
    """A release that the form offers by its date may not go while a job waits to run from it."""
    owner = SimpleNamespace(log=logging.getLogger("test"), slurm=SimpleNamespace(uid=4001))
    job = Following(owner, Queue())
    job.begin("jupyterhub-1", 1, prefix="/lab/releases/1")
    assert job.state["environment"] == started_from("/lab/releases/1", "")
    job.begin("jupyterhub-1", 1, prefix="module load lab")
    assert job.state["environment"] == {}  # until the job has told
