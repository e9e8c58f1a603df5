"""Cuts the power at moments of an installation, and then of an upgrade, and says what is there after a boot.

    .venv/bin/python -m tests.bench.power_cut OLDER.sh NEWER.sh [--cuts 10] [--seed 1]

What was not synced is lost: the machine's file system ends without writing even its journal. The moments are spread
over the whole run, with the seed's jitter; tests/e2e/test_power_cut.py cuts before each step of the hooks. After each
cut the machine boots. Where a release is active, `barehub verify` has to find nothing, and alice to be logged in. Then
the installer runs again, whatever there was, and the same has to hold. Some minutes; needs root and Debian.
"""

import argparse
import random
import sys
import time
from pathlib import Path

from tests.bench.install import seconds
from tests.machines.hub_client import BAREHUB, HubSession, let_users_in
from tests.machines.machine import Machine, booted
from tests.machines.rootfs import cached_root

DISK = 4000  # MiB
COMMANDS = {"installation": ("sh", "/mnt/older.sh", "-b"), "upgrade": ("sh", "/mnt/newer.sh", "-b", "-u")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("older", type=Path, metavar="OLDER.sh")
    parser.add_argument("newer", type=Path, metavar="NEWER.sh")
    parser.add_argument("--cuts", type=int, default=10, help="of each of the two (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with booted("cut", cached_root(), own=DISK) as machine:
        for name, path in (("older", arguments.older), ("newer", arguments.newer)):
            machine.copy_in(path, f"/mnt/{name}.sh")
        for what in COMMANDS:
            prepare(machine, what)
            whole = seconds(lambda what=what: machine.succeed(*COMMANDS[what]))
            print(f"{what} takes {whole:.1f} s", flush=True)
            for number in range(arguments.cuts):
                prepare(machine, what)
                moment = whole * (number + chance.random()) / arguments.cuts
                print(f"  cut after {moment:5.1f} s: {cut_and_look(machine, what, moment)}", flush=True)
    return 0


def prepare(machine: Machine, what: str) -> None:
    """Go back to what is there before: nothing, or the older release with somebody who may log in."""
    machine.run(BAREHUB, "uninstall", "-y")
    if what == "upgrade":
        machine.succeed(*COMMANDS["installation"])
        let_users_in(machine)
    machine.succeed("sync")


def cut_and_look(machine: Machine, what: str, moment: float) -> str:
    """Cut the power so many seconds after the start of the run, boot, and return what was there."""
    machine.succeed("systemd-run", "--quiet", "--collect", *COMMANDS[what])
    time.sleep(moment)  # what is measured, not waited for
    machine.power_cut()
    machine.boot()
    left = machine.run("readlink", "/opt/barehub/hub").stdout.strip() or "nothing is active"
    if left.startswith("releases/"):
        look(machine)
    machine.succeed(*COMMANDS[what])
    look(machine)
    return f"{left.removeprefix('releases/')}; after another run all is well"


def look(machine: Machine) -> None:
    """Fail unless hub and release are whole, and alice can log in."""
    machine.eventually(BAREHUB, "status")
    machine.succeed(BAREHUB, "verify")
    if machine.run("test", "-s", "/opt/barehub/jupyterhub_config.d/50-test.py").returncode:
        let_users_in(machine)
    alice = HubSession(machine, "alice")
    alice.login()
    assert alice.is_logged_in()


if __name__ == "__main__":
    sys.exit(main())
