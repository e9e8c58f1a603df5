"""Run Slurm's own commands, as the hub or as a server's user. Nothing else in this package starts a program.

The formats are those of sbatch(1), squeue(1), sinfo(1), scontrol(1) and scancel(1). What runs as a user always has the
same words: examples/slurm-sudoers allows exactly these to a hub without privileges.

Slurm 22.05 and 24.11 print the same, except for these, which are read alike (tests/unit/test_slurm_versions.py):

    what                           22.05                24.11
    a job's memory                 TRES=                ReqTRES=, AllocTRES=
    Reason= of a job with SIGKILL  JobLaunchFailure     RaisedSignal:9(Killed)
    GRES of shards                 shard:4              shard:a100:4
    fields of partitions                                MaxCPUsPerSocket=, ExclusiveTopo=
    fields of jobs                 Power=               TresPerTask=
"""

import asyncio
import os
import pwd
import re
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

FROM_UNIT = ("SLURM_CONF", "SLURM_CONF_SERVER")  # where Slurm's configuration is (slurm.conf(5), "configless")
PATIENCE = 30.0  # seconds that a Slurm command may take; slurmctld can be busy

# slurmctld did not answer. Common to all commands (slurm_errno.c): "Unable to contact slurm controller (connect
# failure)", "Socket timed out on send/recv operation", "Zero Bytes were transmitted or received". 24.11 also says
# "Connection reset by peer" of a slurmctld that is just ending.
UNREACHABLE = re.compile(
    r"unable to contact slurm|socket timed out|zero bytes|connection (refused|reset|timed out)", re.I
)
# Nothing has reached it.
NOT_SENT = re.compile(r"connect failure|connection refused", re.I)


class SlurmError(Exception):
    """A Slurm command failed, with its own words, or did not answer in time."""

    def __init__(self, text: str, timed_out: bool = False) -> None:
        super().__init__(text)
        self.timed_out = timed_out

    @property
    def unreachable(self) -> bool:
        """Whether Slurm did not answer, which says nothing about what was asked."""
        return self.timed_out or bool(UNREACHABLE.search(str(self)))

    @property
    def uncertain(self) -> bool:
        """Whether Slurm may have done what it was told all the same."""
        return self.unreachable and not NOT_SENT.search(str(self))

    @property
    def job_is_gone(self) -> bool:
        """Whether there is nothing left to cancel."""
        return bool(re.search(r"invalid job id|already (completing|completed)", str(self), re.I))


async def output(
    *argv: str,
    name: str,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    patience: float | None = None,
    errors: bool = False,
) -> str:
    """Run a command, called `name` in messages, and return what it printed, or its `errors`. Raises SlurmError."""
    limit = PATIENCE if patience is None else patience
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath), **(env or {}), "LC_ALL": "C.UTF-8"},
            cwd="/",  # the hub's own directory is closed to users
            start_new_session=True,  # runuser and sudo have a child, which has to end with them
        )
    except OSError as error:
        raise SlurmError(f"{argv[0]}: {error.strerror}") from error
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), limit)
    except TimeoutError:
        raise SlurmError(f"{name} has not answered in {limit:g} s", timed_out=True) from None
    finally:
        if process.returncode is None:
            # PermissionError: sudo is root's, and a hub without privileges cannot end it.
            with suppress(ProcessLookupError, PermissionError, TimeoutError):
                os.killpg(process.pid, signal.SIGKILL)
                await asyncio.wait_for(process.wait(), 1)
    if process.returncode:
        raise SlurmError(err.decode(errors="replace").strip() or f"{name} exited with {process.returncode}")
    return (err if errors else out).decode(errors="replace").strip()


@dataclass(frozen=True)
class Slurm:
    """Slurm as one user meets it. `prefix` runs a command as that user; `environment` goes to each command."""

    directory: str
    user: str
    prefix: str
    environment: Mapping[str, str] = field(default_factory=dict)
    submit_patience: float = PATIENCE

    @property
    def uid(self) -> int:
        """The user's number, -1 if there is no account. One account may have several names, but one number."""
        try:
            return pwd.getpwnam(self.user).pw_uid
        except KeyError:
            return -1

    async def run(self, command: str, *words: str) -> str:
        """Run a Slurm command as the hub. Raises SlurmError."""
        return await output(f"{self.directory}/{command}", *words, name=command, env=self.environment)

    async def run_as_user(
        self, command: str, *words: str, stdin: str = "", patience: float | None = None, errors: bool = False
    ) -> str:
        """Run a Slurm command, or a program by its path, as the user. Raises SlurmError."""
        try:
            prefix = [word.format(username=self.user) for word in shlex.split(self.prefix)]
        except (KeyError, IndexError, ValueError) as error:
            raise SlurmError(f"c.SlurmSpawner.exec_prefix is {self.prefix!r}: {error!r}") from None
        try:
            account = pwd.getpwnam(self.user)
        except KeyError:
            # As a server that does not answer: the directory of accounts (LDAP, sssd) may be away.
            raise SlurmError(f"the account {self.user} is not known on this machine", timed_out=True) from None
        names = {"USER": self.user, "LOGNAME": self.user, "HOME": account.pw_dir, "SHELL": account.pw_shell}
        argv, env = (*prefix, str(Path(self.directory, command)), *words), {**self.environment, **names}
        return await output(*argv, name=command, stdin=stdin, env=env, patience=patience, errors=errors)

    async def ask(self, command: str, *words: str) -> str:
        """Run a query as the hub; where Slurm keeps the answer from the hub (PrivateData), as the user."""
        try:
            return await self.run(command, *words)
        except SlurmError as error:
            if os.geteuid() == 0 or error.unreachable:
                raise
            return await self.run_as_user(command, *words)

    async def submit(self, script: str) -> str:
        """Submit the job and return its id. The script holds the token, so it goes by stdin."""
        printed = await self.run_as_user("sbatch", "--parsable", stdin=script, patience=self.submit_patience)
        if found := re.search(r"^(?:Submitted batch job )?(\d+)(;.*| on cluster .*)?$", printed, re.MULTILINE):
            return found[1]
        raise SlurmError(f"sbatch printed no job id but {printed[:200]!r}", timed_out=True)

    async def would_start(self, script: str) -> str:
        """Return what sbatch says of when this job would start, which it writes to stderr. Raises SlurmError."""
        return await self.run_as_user("sbatch", "--test-only", stdin=script, errors=True)

    async def cancel(self, job_id: str) -> None:
        await self.run_as_user("scancel", job_id)

    async def details(self, job_id: str) -> dict[str, str]:
        """Return what Slurm still knows of a job, see `details`. Raises SlurmError."""
        return details(await self.ask("scontrol", "show", "job", job_id, "-o"))

    async def node_address(self, node: str) -> str:
        """Return a node's NodeAddr, which need not be its name (slurm.conf(5)). Raises SlurmError."""
        found = re.search(r"\bNodeAddr=(\S+)", await self.run("scontrol", "show", "node", node, "-o"))
        return found[1] if found else ""


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return what Slurm's commands get of the hub's environment, and `more`."""
    return {**{name: os.environ[name] for name in FROM_UNIT if os.environ.get(name)}, **more}


def rows(text: str, columns: int) -> tuple[list[list[str]], list[str]]:
    """Split what was printed into its rows, and the lines that are none: plugins print to stdout as well."""
    lines = [line.split("|") for line in text.splitlines() if line.strip()]
    return [line for line in lines if len(line) == columns], ["|".join(line) for line in lines if len(line) != columns]


def fields(line: str) -> dict[str, str]:
    """Return the fields, NAME=VALUE each, of a line that `scontrol show ... --oneliner` printed."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def details(text: str) -> dict[str, str]:
    """Return the fields that matter here of what `scontrol show job ID --oneliner` printed."""
    found = {}
    for name in ("JobState", "Reason", "TimeLimit", "BatchHost", "ExitCode"):
        if match := re.search(rf" {name}=(\S+)", text):
            found[name] = match[1]
    if match := re.search(r"[=,]mem=(\d+\.?\d*[KMGT]?)", text):
        found["memory"] = match[1]
    # The only words here that are a user's own; they are shown to nobody else.
    if match := re.search(r" Comment=(.*?)\s+(?:StdErr|SystemComment)=", text, re.DOTALL):
        found["Comment"] = " ".join(match[1].split())[:500]
    return found


class Turns:
    """A few at a time, first come, first served. All at once would take as long, and the first would be done last."""

    def __init__(self) -> None:
        self.queue: list[Callable[[int], None]] = []
        self.semaphore: asyncio.Semaphore | None = None

    @property
    def waiting(self) -> int:
        return len(self.queue)

    @asynccontextmanager
    async def turn(self, at_once: int, tell: Callable[[int], None]) -> AsyncIterator[None]:
        """Wait for a turn. `tell` is told, whenever it changes, how many wait before it."""
        self.semaphore = self.semaphore or asyncio.Semaphore(max(1, at_once))
        self.queue.append(tell)
        tell(len(self.queue) - 1)
        try:
            await self.semaphore.acquire()
        finally:
            self.queue.remove(tell)
            for ahead, other in enumerate(self.queue):
                other(ahead)
        try:
            yield
        finally:
            self.semaphore.release()
