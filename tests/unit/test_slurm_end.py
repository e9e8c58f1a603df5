"""A real hub, and a job whose server ends: what the hub does before the job frees its port. Slurm is a few scripts."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.proxies import wait_until
from tests.unit.real_hub import ADMIN, PEOPLE, RealHub, running, start
from tests.unit.slurm_commands import UID, USER, Commands
from tests.unit.slurm_recorded import RECORDED
from tests.unit.thief import stolen

CONFIG = """
import asyncio, os

class SlowProxy(NoProxy):
    async def delete_route(self, routespec):
        while os.path.exists({hold!r}):
            await asyncio.sleep(0.01)
        await super().delete_route(routespec)

    async def settle(self):
        pass

server = c.Spawner.cmd
exec(open({overlay!r}).read())
c.Spawner.cmd = server
c.Spawner.default_url = ""
c.JupyterHub.proxy_class = SlowProxy
c.Spawner.hub_connect_url = f"http://127.0.0.1:{{c.JupyterHub.hub_port}}"
c.JupyterHub.last_activity_interval = 1  # and with it the check of all routes
c.SlurmJobSpawner.commands = {commands!r}
c.SlurmSpawner.exec_prefix = {commands!r} + "/as-user {{username}}"
c.SlurmJobSpawner.queue_interval = 0.2
c.Spawner.poll_interval = 300  # the hub does not look by itself
c.SlurmJobSpawner.users_environment = {environment!r}
"""
SBATCH = """cd {here}; cat >job.sh; rm -f rc
(env -i HOME={here} PATH={here}:/usr/bin:/bin SLURM_JOB_ID=17 SLURMD_NODENAME=localhost setsid -w \
    sh -c 'echo $$ >pid; exec bash -p job.sh'
echo $? >rc) >/dev/null 2>&1 </dev/null &
"""
SQUEUE = """cd {here}; [ -e job.sh ] || exit 0
echo "17|$([ -e rc ] && echo FAILED || echo RUNNING)|None|{uid}|localhost|N/A|N/A|4:00:00|main|$(
    sed -n 's/^#SBATCH --job-name=//p' job.sh)"
"""
SCONTROL = """case "$*" in "show job"*) cd {here}; case $(cat rc) in 137) code=0:9 ;; *) code=1:0 ;; esac
echo "JobId=17 JobState=FAILED Reason=None ExitCode=$code TimeLimit=04:00:00 BatchHost=localhost"; exit ;; esac
"""


class Site:
    """The hub, its Slurm, and a server that runs. While the file `hold` is there, the proxy deletes no route."""

    def __init__(self, hub: RealHub, here: Path) -> None:
        self.hub, self.here, self.hold = hub, here, here / "hold"

    @property
    def target(self) -> str:
        """Where the user's route leads, if there is one."""
        found = self.hub.get("/hub/api/proxy", ADMIN).json().get(f"/user/{USER}/", {})
        return str(found.get("target", ""))

    @property
    def runs(self) -> bool:
        return bool(self.hub.get(f"/hub/api/users/{USER}", ADMIN).json()["server"])

    def server(self) -> int:
        """The number of the server's process."""
        job = (self.here / "pid").read_text().strip()
        return int(Path(f"/proc/{job}/task/{job}/children").read_text())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    commands, here = Commands(tmp_path), str(tmp_path)
    commands.play(RECORDED)
    commands.say("sbatch", "17", first=SBATCH.format(here=here))
    commands.say("squeue", first=SQUEUE.format(here=here, uid=UID))
    commands.say("scancel", first=f"kill -- -$(cat {here}/pid)")
    played = (tmp_path / "scontrol").read_text()
    (tmp_path / "scontrol").write_text(played.replace("\n", "\n" + SCONTROL.format(here=here), 1))
    overlay = Path(__file__).parents[2] / "construct/overlays/slurm/jupyterhub_config.d/40-slurm.py"
    names = {"hold": str(tmp_path / "hold"), "overlay": str(overlay), "environment": sys.prefix}
    with running(tmp_path / "base", CONFIG.format(commands=here, **names) + PEOPLE, "slurm") as hub:
        assert hub.ask("POST", f"/hub/api/users/{USER}", ADMIN).status_code == 201
        start(hub, USER, ADMIN)
        yield Site(hub, tmp_path)


def test_the_route_goes_before_the_port_does(site: Site) -> None:
    target = site.target
    port = int(target.rpartition(":")[2])
    site.hold.touch()
    os.kill(site.server(), signal.SIGKILL)
    wait_until(lambda: site.hub.get(f"/hub/api/users/{USER}", ADMIN).json()["pending"] == "stop")
    assert site.target == target
    assert stolen(port) == []
    assert not (site.here / "rc").exists()
    site.hold.unlink()
    wait_until(lambda: stolen(port))
    assert site.target == ""  # and the check of all routes every 0.1 s has not brought it back
    wait_until(lambda: not site.runs)
    assert (site.here / "rc").read_text() == "137\n"
    wait_until(lambda: re.search(f"User {USER} server stopped, with exit code: 0", site.hub.log.read_text()))
