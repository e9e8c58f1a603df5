"""The overlay `slurm`: examples/slurm-sudoers allows what the hub runs as users, in these words, and little else."""

import asyncio
import re
from math import inf
from pathlib import Path
from typing import Any

import pytest
from barehub_slurm import joblog
from barehub_slurm.accounts import Accounting, filled
from barehub_slurm.jobs import Queue
from barehub_slurm.partitions import Catalogue
from barehub_slurm.slurm import Slurm, SlurmError

from tests.unit.slurm_commands import USER

SUDOERS = Path(__file__).parents[2] / "construct/overlays/slurm/examples/slurm-sudoers"


def allowed() -> list[tuple[str, re.Pattern[str]]]:
    """Return the program and the arguments of each command in the file: sudoers(5), Cmnd_Alias."""
    text = SUDOERS.read_text().replace("\\\n", " ")
    found = []
    for aliases in re.findall(r"^Cmnd_Alias \w+ = (.*)$", text, re.MULTILINE):
        for command in re.split(r", +(?=/)", aliases):
            program, words = command.split(" ", 1)
            literal = re.escape(re.sub(r"\\([=,])", r"\1", words))
            found.append((program, re.compile(words if words.startswith("^") else f"^{literal}$")))
    return found


def is_allowed(command: str) -> bool:
    program, words = command.split(" ", 1)
    return any(program == one and pattern.fullmatch(words) for one, pattern in allowed())


def test_it_allows_all_that_the_hub_runs_as_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 4001)
    noted: list[str] = []

    class Noted(Slurm):
        async def run(self, command: str, *words: str) -> str:
            raise SlurmError("PrivateData= hides it")

        async def run_as_user(self, command: str, *words: str, **more: Any) -> str:
            noted.append(" ".join([str(Path(self.directory, command)), *words]))
            return "17" if command == "sbatch" else ""

    async def run() -> None:
        slurm = Noted("/usr/bin", USER, "sudo -n -u {username} --")
        await slurm.submit("")
        await slurm.would_start("")
        await slurm.cancel("17")
        await slurm.details("17")
        await Queue().jobs_as_user(slurm, "jupyterhub-0a1b2c3d", inf)
        await Catalogue().visible_to(slurm)
        await filled(Accounting(), slurm.run_as_user)
        await joblog.last_lines(slurm, "17", {})

    asyncio.run(run())
    assert len(noted) == 9
    assert [command for command in noted if not is_allowed(command)] == []


@pytest.mark.parametrize(
    "command",
    [
        "/usr/bin/sbatch --parsable --uid=root",
        "/usr/bin/scancel 17 -u ada",
        "/usr/bin/scancel --user=ada",
        "/usr/bin/scontrol update JobId=17 Comment=x",
        "/usr/bin/squeue -h -a -t all -n jupyterhub-0a1b2c3d -o %i --me",
        "/usr/bin/sacctmgr -nP delete user ada",
        "/usr/bin/tail -c 4000 -- /home/ada/.ssh/id_rsa",
        "/usr/bin/tail -c 4000 -- /home/ada/.ssh/id_rsa /home/ada/.jupyterhub/job-17.log",
        "/usr/bin/tail -c 4000 -- /home/ada/.jupyterhub/job-17.log/../../.ssh/id_rsa",
    ],
)
def test_it_allows_no_other_words(command: str) -> None:
    assert not is_allowed(command)
