"""Run in the job, on the compute node, with the users' own Python (3.6 or newer, standard library only):

    python launch.py OLDEST HUBS PATIENCE PORTS COMMAND...

Chooses a free port, of PORTS if that is a range such as 50000-50999, runs COMMAND, the server, and ends as it does.
On a node that others use, whoever else listens at the port would be served to the user in the server's place. So the
port is reported to the hub once it is the server's, and held here until no route leads to it: when the server has
ended, the hub is told, and answers when the route is gone.
OLDEST is the oldest version of jupyterhub that the hub accepts, HUBS the hub's own, PATIENCE the seconds for which the
hub may be away. The variable BAREHUB_LAB is the text of lab.js, which JupyterLab is to load. The reason of a failure
becomes the job's comment, where the hub finds it even if it cannot be reached from here.
"""

# ruff: noqa: UP006, UP035 - to Python 3.6, list[int] is an error

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path
from typing import List, NoReturn, Sequence

from barehub_slurm.node_ports import accounts_at, free_port

LAB = "barehub-slurm"  # the name that lab.js has, too
SIGNALS = range(1, 32)  # those of signal(7) that are not for real-time
# Seconds until the server gets a SIGTERM of ours. Slurm's reaches all processes of a job, unless it is for the first
# one alone (`--signal=B:`); and a server that is told twice may leave its kernels behind.
GRACE = 20


def main(oldest: str, hubs: str, patience: float, ports: str, command: List[str]) -> None:
    jupyterhub = require_jupyterhub(oldest, hubs)
    api = os.environ["JUPYTERHUB_API_URL"].rstrip("/")
    reach(api, urllib.request.Request(api + "/"), patience)  # noqa: S310 - the hub's own URL
    try:
        port, held = free_port(ports)
    except OSError:
        give_up(f"all ports of {ports} on {node()} are in use, and the site lets servers listen at no others")
    reach_hub_directly(api)
    with contextlib.suppress(OSError):  # without room in the home JupyterLab does without it
        extend_lab(os.environ.pop("BAREHUB_LAB"))
    # jupyterhub-singleuser takes its address from here.
    os.environ["JUPYTERHUB_SERVICE_URL"] = f"http://0.0.0.0:{port}{os.environ['JUPYTERHUB_SERVICE_PREFIX']}"
    command = without_user_site(command)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they must not end this process before the server
    server = os.fork()
    if not server:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        become(command)
    told = tell_when_ours(api, port, server, patience, jupyterhub, held)
    status = wait_for(server)
    if told:
        tell_end(api, patience)
    end_as(status)


def become(command: List[str]) -> NoReturn:
    try:
        os.execvp(command[0], command)
    except OSError as error:
        give_up(f"{command[0]} cannot be run on {node()}: {error.strerror}")


def tell_when_ours(
    api: str, port: int, server: int, patience: float, jupyterhub: str = "", held: Sequence[socket.socket] = ()
) -> bool:
    """Report the port when the server listens there, and let nobody else. Ends the job if another account does.

    Returns True when that is done, False if the server has ended before.
    """
    try:
        while not accounts_at(port):
            if os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return False
            time.sleep(0.1)
        for one in held:  # nobody else, not even with SO_REUSEADDR, can listen beside a socket that is without it
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        others = accounts_at(port) - {os.getuid()}
        if others:
            give_up(f"port {port} on {node()}, chosen for the server, was taken by the account {min(others)}")
        prefix = os.path.realpath(sys.prefix)  # a module may name it by a link that leads elsewhere later
        query = urllib.parse.urlencode({"environment": prefix, "jupyterhub": jupyterhub})
        reach(api, to_hub(f"{api}/batchspawner?{query}", "POST", json.dumps({"port": port}).encode()), patience)
    except BaseException:
        os.kill(server, signal.SIGTERM)
        raise
    return True


def wait_for(server: int) -> int:
    """Return the status of the server (wait(2)) once it has ended. It gets a SIGTERM that only we have got."""
    due = 0.0
    while True:
        got = signal.sigtimedwait(SIGNALS, GRACE if due else 3600)
        ended, status = os.waitpid(server, os.WNOHANG)
        if ended:
            return status
        if got and got.si_signo in (signal.SIGTERM, signal.SIGINT):
            due = due or time.time() + GRACE
        if due and time.time() >= due:
            os.kill(server, signal.SIGTERM)
            due = 0.0


def tell_end(api: str, patience: float) -> None:
    """Tell the hub that the server has ended. It answers when no route leads to the port any more."""
    why = ask(to_hub(api + "/batchspawner", "DELETE"), patience)
    if why:
        print(f"the hub at {api} could not be told that the server has ended: {why}", file=sys.stderr)


def end_as(status: int) -> NoReturn:
    """End as the server did, since Slurm says of a job how its first process has ended."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core file of interest is the server's
        with contextlib.suppress(OSError):  # SIGKILL
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    sys.exit(os.WEXITSTATUS(status))


def require_jupyterhub(oldest: str, hubs: str) -> str:
    """Return the version of jupyterhub; ends the job if there is none, or one that is too old."""
    try:
        from jupyterhub import __version__ as found
    except ImportError as error:
        if getattr(error, "name", "") == "jupyterhub":
            give_up(f"the users' environment {sys.prefix} has no jupyterhub; the hub's is {hubs}")
        give_up(f"jupyterhub in the users' environment {sys.prefix} cannot be imported: {error}")
    if numbers(found) < numbers(oldest):
        why = "the users' environment {} has jupyterhub {}, which is too old for the hub's {}: it takes {} or newer"
        give_up(why.format(sys.prefix, found, hubs, oldest))
    return str(found)


def without_user_site(command: List[str]) -> List[str]:
    """Keep packages in ~/.local out of the server: an old jupyterhub there would hide that of the environment.

    The server's kernels may have them, so it gets an option and not a variable, if it is a script of Python's.
    """
    path = shutil.which(command[0]) or command[0]
    try:
        with open(path, "rb") as script:
            first = script.readline(1024).decode(errors="replace").rstrip()
    except OSError:
        first = ""
    found = re.match(r"#!\s*(/\S*/python[0-9.]*)$", first)
    if found:
        return [found.group(1), "-s", path, *command[1:]]
    os.environ["PYTHONNOUSERSITE"] = "1"
    return command


def numbers(version: str) -> List[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def to_hub(url: str, method: str, body: bytes = b"") -> urllib.request.Request:
    """Return a request of the job's: it has the server's token."""
    headers = {"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"], "Content-Type": "application/json"}
    return urllib.request.Request(url, body or None, headers, method=method)  # noqa: S310 - the hub's own URL


def reach(api: str, request: urllib.request.Request, patience: float) -> None:
    """Send the hub a request, as `ask` does. Ends the job if that fails."""
    why = ask(request, patience)
    if why:
        give_up(f"the server on {node()} could not reach the hub at {api}: {why}")


def ask(request: urllib.request.Request, patience: float) -> str:
    """Send the hub a request; why that failed, if it did. Retries for `patience` seconds: the hub may be restarting."""
    deadline = time.time() + patience
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            directly.open(request, timeout=10)
            return ""
        except urllib.error.HTTPError as error:
            why = f"it answered {error.code}"
            if error.code < 500:  # retrying would not help
                return why
        except OSError as error:
            why = str(getattr(error, "reason", error))
        if time.time() > deadline:
            return why
        time.sleep(1)


def reach_hub_directly(api: str) -> None:
    """Keep the server and its kernels from asking a proxy for the hub, if their variables name any proxy."""
    proxies = urllib.request.getproxies_environment()
    if proxies.keys() - {"no"}:
        hub = urllib.parse.urlsplit(api).hostname
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = "{},{}".format(hub, proxies.get("no", ""))


def extend_lab(script: str) -> None:
    """Make JupyterLab, of whatever environment, load this script as a prebuilt extension. Raises OSError.

    Files and fields: "Prebuilt extensions" in JupyterLab's documentation for developers. The script's name changes with
    its text, since browsers keep what has been served under a name.
    """
    path = Path.home().resolve() / ".cache/barehub/jupyter"
    load = f"static/{zlib.crc32(script.encode()):08x}.js"
    build = {"load": load, "extension": "./extension"}
    package = {"name": LAB, "version": "1.0.0", "jupyterlab": {"extension": True, "_build": build}}
    for name, text in ((load, script), ("package.json", json.dumps(package))):
        file = path / "labextensions" / LAB / name
        file.parent.mkdir(parents=True, exist_ok=True)
        staged = file.with_name(f"{file.name}.{socket.gethostname()}-{os.getpid()}")
        staged.write_text(text, encoding="utf-8")
        staged.replace(file)
    # Before the user's own, which stay.
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(path), os.environ.get("JUPYTER_PATH")]))


def node() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def give_up(why: str) -> NoReturn:
    why += os.environ.get("BAREHUB_NOTE", "")
    print(why, file=sys.stderr)
    with contextlib.suppress(OSError):  # scontrol is not on the PATH of the login files; the log has the reason
        subprocess.call(["scontrol", "update", "JobId=" + os.environ["SLURM_JOB_ID"], "Comment=" + why])
    sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4], sys.argv[5:])
