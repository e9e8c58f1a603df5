"""Slurm's commands as scripts: each prints what a test lets it say, and notes how it was called."""

import getpass
import os
from pathlib import Path

from barehub_slurm.slurm import Slurm

UID = os.getuid()
USER = getpass.getuser()
JOB = f"17|PENDING|Resources|{UID}|n/a|2026-11-24T09:31:36|N/A|4:00:00|main|jupyterhub-1"
RUNS = f"17|RUNNING|None|{UID}|localhost|2026-11-24T09:31:36|2026-11-24T09:32:00|4:00:00|main|jupyterhub-1"
ENDED = f"17|CANCELLED|None|{UID}|n/a|2026-11-24T09:31:36|N/A|4:00:00|main|jupyterhub-1"
SHOWN = "JobId=17 JobName=jupyterhub-1 JobState={} Reason=None ExitCode=0:0 TimeLimit=04:00:00 BatchHost=c1"
NO_JOB = "slurm_load_jobs error: Invalid job id specified"
AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


class Commands:
    """A directory of such commands. What runs as the user goes through a prefix that sets AS_USER."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for command in ("sbatch", "squeue", "scancel", "sinfo", "scontrol", "sacctmgr"):
            self.say(command)
        prefix = directory / "as-user"
        prefix.write_text('#!/bin/sh\nshift\nAS_USER=1 exec "$@"\n')
        prefix.chmod(0o755)

    def say(
        self, command: str, text: str = "", *, error: str = "", as_user: str | None = None, first: str = ""
    ) -> None:
        """Let a command print `text`, or fail with `error`. `as_user`: what it prints instead when the user asks;
        `first`: shell that runs before."""
        (self.directory / f"{command}.hub").write_text(text)
        (self.directory / f"{command}.user").write_text(text if as_user is None else as_user)
        fail = f"echo '{error}' >&2; exit 1" if error else ""
        script = f"""#!/bin/sh
echo "${{AS_USER:+user }}{command} $*" >>{self.directory}/calls
{first}
[ -n "$AS_USER" ] || {{ :; {fail}
}}
{fail if as_user is None else ":"}
if [ -n "$AS_USER" ]; then cat {self.directory}/{command}.user; else cat {self.directory}/{command}.hub; fi
"""
        path = self.directory / command
        staged = path.with_suffix(".new")
        staged.write_text(script)
        staged.chmod(0o755)
        staged.replace(path)

    def play(self, recorded: Path) -> None:
        """Let each command print what a real one did: recorded/NAME.txt for `scontrol show NAME`, sacctmgr, and sinfo.

        Others' partitions are not shown to the user.
        """
        files = f'cat {recorded}/$(echo "$2 $3" | sed "s/^show //; s/ .*//").txt'
        for command in ("scontrol", "sacctmgr"):
            self.say(command, first=files.replace("$2 $3", "$1 $2" if command == "scontrol" else "$2 $3"))
        sinfo = (recorded / "sinfo.txt").read_text()
        rows = [line.split("|") for line in sinfo.splitlines()]
        seen = "\n".join(dict.fromkeys(row[0].rstrip("*") for row in rows if row[-1] == "all"))
        self.say("sinfo", sinfo, as_user=seen)

    @property
    def calls(self) -> list[str]:
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def called(self, command: str) -> int:
        return sum(command in call.split()[:2] for call in self.calls)

    def slurm(self, **more: object) -> Slurm:
        return Slurm(str(self.directory), USER, f"{self.directory}/as-user {{username}}", **more)
