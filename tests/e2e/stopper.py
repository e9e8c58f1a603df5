"""Stops the installer's hooks for good before a chosen step; test_power_cut.py puts it into a release's site-packages.

A step is a change of what is there: a file renamed, removed or linked, a program called that does something. (What is
written beside a file, to be renamed over it, does not count.) Steps are noted in /run/steps, by all processes together;
the one whose number is in /run/stop-at is not taken. Python's audit events (PEP 578) tell of them, so the code under
test knows nothing of it.
"""

import os
import signal
import sys

CHANGES = ("os.rename", "os.remove", "os.symlink", "shutil.rmtree")
VERBS = ("stop", "start", "restart", "enable", "daemon-reload", "barehub.lifecycle.database_worker")


def note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "subprocess.Popen":
        words = [os.fsdecode(word) for word in arguments[1]]
        if not any(verb in words for verb in VERBS):
            return
        what = " ".join(words)
    elif event in CHANGES:
        what = " ".join(str(one) for one in arguments if isinstance(one, str | os.PathLike))
    else:
        return
    if ("/opt/barehub" not in what and "systemctl" not in what) or (event == "os.remove" and what.endswith(".new")):
        return
    log = os.open("/run/steps", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.write(log, f"{event} {what}\n".encode())
    taken = os.pread(log, 1 << 20, 0).count(b"\n")
    os.close(log)
    with open("/run/stop-at") as file:
        stop_at = int(file.read())
    if taken == stop_at:
        os.write(os.open("/run/stopped", os.O_WRONLY | os.O_CREAT), what.encode())
        while True:
            signal.pause()


if os.path.exists("/run/stop-at") and {"install", "barehub.lifecycle.database_worker"} & set(sys.orig_argv):  # noqa: PTH110
    sys.addaudithook(note)
