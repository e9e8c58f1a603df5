"""barehub.local_spawner: after a restart of the hub, a number is a server's only if its process is the same."""

import asyncio
import os
import re
import socket
import subprocess
from collections.abc import Callable
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


def in_a_child(prepare: Callable[[], object], word: str) -> str:
    """What a process has in its file of /proc, once it has prepared itself so."""
    words = ["cat", f"/proc/self/{word}"]
    return subprocess.run(words, preexec_fn=prepare, capture_output=True, text=True, check=True).stdout


def test_the_kernel_ends_servers_before_the_hub() -> None:
    assert int(Path("/proc/self/oom_score_adj").read_text()) < local_spawner.OOM_SCORE
    assert int(in_a_child(local_spawner.come_first, "oom_score_adj")) == local_spawner.OOM_SCORE


def test_one_account_cannot_have_all_of_the_units_tasks() -> None:
    for most, line in ((1000, "Max processes 1000 1000"), (10**9, ""), (0, "")):
        said = in_a_child(lambda most=most: local_spawner.limit_tasks(most), "limits")  # type: ignore[misc]
        (found,) = re.findall("^Max processes .*[0-9d] ", said, re.MULTILINE)
        before = re.search("^Max processes .*[0-9d] ", Path("/proc/self/limits").read_text(), re.MULTILINE)
        assert before
        assert " ".join(found.split()) == (line or " ".join(before[0].split()))


@pytest.mark.skipif(os.geteuid() != 0, reason="starts a server as another account")
def test_a_server_can_lift_none_of_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spawner = KnownProcessSpawner(user=SimpleNamespace(name="daemon", url="/"))
    monkeypatch.setattr(local_spawner, "most_tasks", lambda: 1234)
    monkeypatch.setattr(spawner, "get_env", lambda: {"PATH": os.defpath})
    monkeypatch.setattr(spawner, "get_args", list)
    lift = "ulimit -u 2000; ulimit -u; echo 0 >/proc/self/oom_score_adj; cat /proc/self/oom_score_adj; id -un"
    spawner.cmd = ["bash", "-c", lift]
    with (tmp_path / "said").open("w") as said:
        spawner.popen_kwargs = {"stdout": said, "stderr": subprocess.DEVNULL, "cwd": "/"}
        asyncio.run(spawner.start())
        spawner.proc.wait()
    tasks, score, account = (tmp_path / "said").read_text().split()
    assert (tasks, account) == ("1234", "daemon")
    capabilities = re.search("^CapEff:\t(.*)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert capabilities
    # Root in some containers lacks CAP_SYS_RESOURCE; then a user can lower the score again.
    assert score == (str(local_spawner.OOM_SCORE) if int(capabilities[1], 16) >> 24 & 1 else "0")


@pytest.mark.parametrize(("line", "directory"), [("0::/a.slice", ""), ("4:pids:/a.slice\n0::/a.slice", "pids")])
def test_the_limit_is_a_part_of_the_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, directory: str
) -> None:
    limit = tmp_path / directory / "a.slice/pids.max"
    limit.parent.mkdir(parents=True)
    (tmp_path / "cgroup").write_text(f"{line}\n")
    monkeypatch.setattr(local_spawner, "CGROUPS", tmp_path)
    monkeypatch.setattr(local_spawner, "OWN_GROUPS", tmp_path / "cgroup")
    for most, tasks in (("4915", 1228), ("max", 0), ("", 0)):
        limit.write_text(f"{most}\n")
        assert local_spawner.most_tasks() == tasks
    limit.unlink()
    assert local_spawner.most_tasks() == 0


def test_what_a_server_prints_is_not_the_hubs_in_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.fstat(1)
    monkeypatch.setattr(local_spawner, "JOURNAL", str(tmp_path / "stdout"))
    for where in ("8:1", f"{own.st_dev}:{own.st_ino}"):  # the hub's own output goes elsewhere; there is no journal
        monkeypatch.setenv("JOURNAL_STREAM", where)
        with local_spawner.journal("alice's server") as stream:
            assert stream is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(local_spawner.JOURNAL)
        listener.listen()
        spawner = KnownProcessSpawner(user=SimpleNamespace(name="alice", url="/"))
        monkeypatch.setattr(spawner, "get_env", dict)
        monkeypatch.setattr(spawner, "make_preexec_fn", lambda name: os.getpid)
        monkeypatch.setattr(spawner, "get_args", list)
        spawner.cmd = ["sh", "-c", "echo forged; echo forged >&2"]
        asyncio.run(spawner.start())
        assert spawner.popen_kwargs == {}
        with listener.accept()[0] as connection, connection.makefile() as lines:
            assert lines.read().splitlines() == ["alice's server", "", "6", "0", "0", "0", "0", "forged", "forged"]
        spawner.proc.wait()


def test_the_name_of_a_process_is_any_bytes() -> None:
    """Else a user could keep the hub from starting."""
    rename = "printf '\\377 ) 1' > /proc/$$/comm; echo; read line"
    with subprocess.Popen(["sh", "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout
        server.stdout.readline()
        assert b"\xff ) 1" in Path(f"/proc/{server.pid}/comm").read_bytes()
        assert asyncio.run(after_restart(state_of(server.pid)).poll()) is None
        server.kill()
