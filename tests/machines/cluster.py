"""A Slurm cluster of test machines: a head and compute nodes on a private network, with a shared /home.

    with cluster(cached_root()) as machines:
        machines.head.succeed("sinfo")

Each machine lives in a network namespace of its own, joined by a cable (a veth pair) to a bridge, which is in yet
its own: nothing is in the host's namespace, and nothing leads out. A namespace lasts as long as the process that holds
it, and that ends with the test run.
"""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.machines.machine import Machine, booted

ADDRESSES = {"head": "10.9.0.1", "c1": "10.9.0.11", "c2": "10.9.0.12"}
HEAD = ADDRESSES["head"]
HOSTS = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in ADDRESSES.items())

# Unlike a real cluster: no cgroups, since a test machine cannot rely on them; time limits that can be waited
# for; `config_overrides` gives the nodes whatever resources are written here. With no accounting database there
# are no limits per user, but partitions have some.
SLURM_CONF = """\
ClusterName=testing
SlurmctldHost=head
SlurmUser=slurm
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
EnforcePartLimits=ALL
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=0
KillWait=2
MessageTimeout=2
SlurmdTimeout=15
GresTypes=gpu
NodeName=c1 CPUs={cpus} RealMemory={memory}
NodeName=c2 CPUs={cpus} RealMemory={memory} Gres=gpu:1
PartitionName=main Nodes=c1,c2 Default=YES MaxTime=1-0
PartitionName=private Nodes=c2 AllowGroups=root
PartitionName=hidden Nodes=c2 Hidden=YES
PartitionName=second Nodes=c2 MaxTime=2:00:00
"""
# What `add_accounting` does: slurmdbd with a database of its own, on the head.
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=head
AccountingStorageEnforce=associations,limits,qos
"""
SLURMDBD_CONF = """\
DbdHost=head
SlurmUser=slurm
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=for-tests-alone
"""
DATABASE = (
    "create user slurm@localhost identified by 'for-tests-alone'; grant all on slurm_acct_db.* to slurm@localhost"
)
GRES_CONF = "NodeName=c2 Name=gpu File=/dev/null\n"


@dataclass
class Cluster:
    head: Machine
    nodes: dict[str, Machine]

    @property
    def machines(self) -> list[Machine]:
        return [self.head, *self.nodes.values()]

    def jobs(self) -> list[str]:
        """Return the jobs that are queued or running, as `id user state`."""
        return self.head.succeed("squeue", "--noheader", "--format=%i %u %T").splitlines()

    def add_accounting(self, *commands: str) -> None:
        """Start slurmdbd, let sacctmgr run these commands, and make slurmctld ask it."""
        head = self.head
        head.write("/etc/slurm/slurmdbd.conf", SLURMDBD_CONF)
        head.succeed("chown", "slurm:", "/etc/slurm/slurmdbd.conf")
        head.succeed("chmod", "600", "/etc/slurm/slurmdbd.conf")
        head.succeed("systemctl", "enable", "--now", "--quiet", "mariadb")
        head.succeed("mariadb", "--execute", DATABASE)
        for machine in self.machines:
            conf = machine.succeed("cat", "/etc/slurm/slurm.conf").replace(
                "AccountingStorageType=accounting_storage/none\n", ACCOUNTING
            )
            machine.write("/etc/slurm/slurm.conf", conf)
        head.succeed("systemctl", "enable", "--now", "--quiet", "slurmdbd")
        # The first answer can be a failure although the cluster was added.
        head.eventually("sh", "-c", "sacctmgr -i add cluster testing; sacctmgr -n show cluster | grep testing")
        for command in commands:
            head.succeed("sacctmgr", "-i", *command.split())
        head.succeed("systemctl", "restart", "slurmctld")
        head.eventually("sh", "-c", "test $(sinfo --noheader --format=%T%D --partition=main) = idle2")

    def add_user(self, name: str, uid: int, home: bool = True) -> None:
        """Add an account on all machines, whose password is its name."""
        for machine in self.machines:
            machine.succeed("useradd", "--create-home" if home else "--no-create-home", f"--uid={uid}", name)
        self.head.succeed("sh", "-c", f"echo {name}:{name} | chpasswd")


@contextlib.contextmanager
def cluster(root: Path, cpus: int = 2, memory: int = 4000) -> Iterator[Cluster]:
    """A head with slurmctld and two nodes with slurmd, which have `cpus` and `memory` (MB) as far as Slurm knows."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="home-", dir=root.parent)))
        shutil.copytree(root / "home", home, dirs_exist_ok=True, symlinks=True)
        for directory in home.iterdir():
            owner = (root / "home" / directory.name).stat()
            for path in (directory, *directory.rglob("*")):
                shutil.chown(path, owner.st_uid, owner.st_gid)
        home.chmod(0o755)
        bridge = stack.enter_context(namespace())
        ip(bridge, "link", "add", "bridge", "type", "bridge")
        ip(bridge, "link", "set", "bridge", "up")
        machines = {}
        for name, address in ADDRESSES.items():
            own = stack.enter_context(namespace())
            ip(bridge, "link", "add", name, "type", "veth", "peer", "name", "cluster0", "netns", str(own))
            ip(bridge, "link", "set", name, "master", "bridge", "up")
            ip(own, "address", "add", f"{address}/24", "dev", "cluster0")
            ip(own, "link", "set", "cluster0", "up")
            machine = booted(name, root, network=f"/proc/{own}/ns/net", binds={home: "/home"})
            machines[name] = stack.enter_context(machine)
        new = Cluster(machines.pop("head"), machines)
        for machine in new.machines:
            machine.write("/etc/hosts", HOSTS)
            machine.write("/etc/slurm/slurm.conf", SLURM_CONF.format(cpus=cpus, memory=memory))
            machine.write("/etc/slurm/gres.conf", GRES_CONF)
            machine.succeed("systemctl", "enable", "--now", "--quiet", "munge")
        new.head.succeed("systemctl", "enable", "--now", "--quiet", "slurmctld")
        for node in new.nodes.values():
            node.succeed("systemctl", "enable", "--now", "--quiet", "slurmd")
        new.head.eventually("sh", "-c", "test $(sinfo --noheader --format=%T%D --partition=main) = idle2")
        yield new


@contextlib.contextmanager
def namespace() -> Iterator[int]:
    """A new network namespace: yields the id of the process that holds it."""
    words = ["setpriv", "--pdeathsig=KILL", "unshare", "--net", "sh", "-c", "echo; exec sleep infinity"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as holder:
        try:
            if holder.stdout.readline() != b"\n":
                raise OSError("no new network namespace")
            ip(holder.pid, "link", "set", "lo", "up")
            yield holder.pid
        finally:
            holder.kill()


def ip(namespace: int, *words: str) -> None:
    """Run ip(8) in the network namespace that a process holds."""
    subprocess.run(["nsenter", f"--target={namespace}", "--net", "ip", *words], check=True)
