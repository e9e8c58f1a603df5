"""Interrupts an installer at a step, however fast or slow the machine is.

The step is a command that the installer calls by its name. One of the same name, earlier on its PATH, opens GATE, a
FIFO, and reads from it: whoever opens the other end knows that the step has been reached, and it does not end before
the FIFO is closed. So what is interrupted can neither have missed the step nor have gone past it.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.machines.machine import Machine

GATE = "/run/gate"
PLACE = "/usr/local/sbin"  # the first place on the installer's own PATH

# $1 number of a signal, $2 BASE, then a command, which gets a process group of its own, as from a terminal. When it has
# come to the step, which is before there is a receipt of the new release, the signal goes to the group.
INTERRUPT = f"""
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which whatever runs in the background has ignored
number, base, *command = sys.argv[1:]
receipts = lambda: sorted(pathlib.Path(base, "releases").glob("*/share/barehub/release.json"))
before = receipts()
installer = subprocess.Popen(command, start_new_session=True)
while True:
    try:
        gate = os.open("{GATE}", os.O_WRONLY | os.O_NONBLOCK)
        break
    except OSError:  # nobody reads it yet
        assert installer.poll() is None, "it has ended before the step"
        time.sleep(0.05)
assert pathlib.Path(base, ".staging").is_dir()
assert receipts() == before
os.killpg(installer.pid, int(number))
print("installer:", installer.wait(timeout=240))
"""


@dataclass(frozen=True)
class Call:
    """A command that the installer calls, as a pattern of sh(1) over its words, and what is done before it runs."""

    command: str
    words: str
    first: str = f"read -r _ <{GATE}"


# In place of conda-ship's runtime: it has written something, and does not end by itself.
HALF_WAY = f'#!/bin/sh\\nmkdir -p "$CONDA_SHIP_PREFIX/lib" && : >"$CONDA_SHIP_PREFIX/lib/one" && read -r _ <{GATE}\\n'

# In the order of an installation. `ln` gathers the packages for conda-ship, before its runtime starts; `rm` is called
# by constructor's installer between unpacking its packages and linking them.
UNPACKING = (Call("tar", "'-xf - -C '*/.staging"),)
FILLING = (
    Call("ln", "*/python-3*", f"printf '{HALF_WAY}' >\"${{2%/bundle}}/engine/runtime\""),
    Call("rm", "'-f '*/preconda.tar.bz2"),
)
FILLED = (Call("chmod", "'-R go+rX,go-w '*/releases/*"),)


def interrupt_at(machine: Machine, step: Sequence[Call], signal: int, *command: str) -> str:
    """Send a signal to an installer's process group at the step; what it printed, and a line `installer: STATUS`.

    The step is the first of these calls that is made: engines differ.
    """
    machine.shell(f"rm -f {GATE}; mkfifo {GATE}")
    with before_calls(machine, step):
        return machine.succeed("python3", "-c", INTERRUPT, str(signal), "/opt/barehub", *command)


@contextlib.contextmanager
def before_calls(machine: Machine, step: Sequence[Call]) -> Iterator[None]:
    """Let what comes first be done whenever one of these calls is made."""
    for call in step:
        lines = "#!/bin/sh", f'case "$*" in {call.words}) {call.first} ;; esac', f'exec /usr/bin/{call.command} "$@"'
        machine.write(f"{PLACE}/{call.command}", "".join(f"{line}\n" for line in lines), mode=0o755)
    try:
        yield
    finally:
        machine.succeed("rm", *(f"{PLACE}/{call.command}" for call in step))
