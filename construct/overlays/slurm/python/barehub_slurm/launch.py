"""Run in the job, on the compute node, with the users' own Python (3.6 or newer, standard library only):

    python launch.py OLDEST HUBS PATIENCE PORTS LAB COMMAND...

Chooses a free port, of PORTS if that is a range such as 50000-50999, and becomes COMMAND, the server. A process beside
it reports the port to the hub once it is the server's: on a node that others use, whoever else listens there would be
served to the user in the server's place.
OLDEST is the oldest version of jupyterhub that the hub accepts, HUBS the hub's own, PATIENCE the seconds for which the
hub may be away, LAB the text of lab.js, which JupyterLab is to load. The reason of a failure becomes the job's comment,
where the hub finds it even if it cannot be reached from here.
"""

# ruff: noqa: UP006, UP035 - to Python 3.6, list[int] is an error

import contextlib
import json
import os
import random
import re
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
from typing import List, NoReturn, Sequence, Set, Tuple

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
LAB = "barehub-slurm"  # the name that lab.js has, too
LISTEN = "0A"  # TCP_LISTEN of net/tcp_states.h


def main(oldest: str, hubs: str, patience: float, ports: str, lab: str, command: List[str]) -> None:
    jupyterhub = require_jupyterhub(oldest, hubs)
    api = os.environ["JUPYTERHUB_API_URL"].rstrip("/")
    reach(api, urllib.request.Request(api + "/"), patience)  # noqa: S310 - the hub's own URL
    port, claim = free_port(ports)
    server = os.getpid()
    if beside():  # which keeps the claim until the server listens
        tell_when_ours(api, port, server, patience, jupyterhub)
        os._exit(0)
    claim.close()
    reach_hub_directly(api)
    with contextlib.suppress(OSError):  # without room in the home JupyterLab does without it
        extend_lab(lab)
    # jupyterhub-singleuser takes its address from here.
    os.environ["JUPYTERHUB_SERVICE_URL"] = f"http://0.0.0.0:{port}{os.environ['JUPYTERHUB_SERVICE_PREFIX']}"
    command = without_user_site(command)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        give_up(f"{command[0]} cannot be run on {node()}: {error.strerror}")


def beside() -> bool:
    """Return True in a new process, which is no child of this one: the server knows nothing of it."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return False
    if os.fork():
        os._exit(0)
    return True


def tell_when_ours(api: str, port: int, server: int, patience: float, jupyterhub: str = "") -> None:
    """Report the port when the server listens there, and end the job if another account does. Ends with the server."""
    try:
        while True:
            found = accounts_at(port)
            others = found - {os.getuid()}
            if others:
                give_up(f"port {port} on {node()}, chosen for the server, was taken by the account {min(others)}")
            if found:
                break
            os.kill(server, 0)
            time.sleep(0.1)
        report = urllib.request.Request(  # noqa: S310 - the hub's own URL
            api + "/batchspawner?" + urllib.parse.urlencode({"environment": sys.prefix, "jupyterhub": jupyterhub}),
            json.dumps({"port": port}).encode(),
            {"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"], "Content-Type": "application/json"},
        )
        reach(api, report, patience)
    except ProcessLookupError:
        pass  # it has ended and said why
    except BaseException:
        os.kill(server, signal.SIGTERM)
        raise


def accounts_at(port: int, tables: Sequence[str] = TABLES) -> Set[int]:
    """Return the ids of the accounts that listen at a port, at whatever address."""
    found = set()
    for table in tables:
        try:
            with open(table) as file:
                lines = [line.split() for line in file][1:]
        except OSError:  # no IPv6
            continue
        found |= {int(one[7]) for one in lines if one[3] == LISTEN and int(one[1].rpartition(":")[2], 16) == port}
    return found


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


def free_port(ports: str = "") -> Tuple[int, socket.socket]:
    """Return a port that nobody on the node listens at, and the claim that keeps our other jobs from choosing it.

    `ports` is a range, FIRST-LAST, or empty: then the kernel chooses. Ends the job if there is none.
    """
    choice = [0] * 10
    if ports:
        first, last = map(int, ports.split("-"))
        choice = list(range(first, last + 1))
        random.shuffle(choice)  # or jobs that start at the same time would all try the first ones
    for one in choice:
        with contextlib.suppress(OSError):
            port = bindable(one)
            return port, claimed(port)
    return give_up(f"all ports of {ports} on {node()} are in use, and the site lets servers listen at no others")


def bindable(port: int) -> int:
    """Return a port that can be bound: this one, or one that the kernel chooses for 0. Raises OSError."""
    with socket.socket() as probe:
        # As servers do it: a port on which connections have just ended is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if port else 0)
        probe.bind(("", port))
        return int(probe.getsockname()[1])


def claimed(port: int) -> socket.socket:
    """Claim a port in the node's abstract namespace (unix(7)) until it is listened at. Raises OSError if it is in use.

    A server takes some seconds until it listens. Jobs that start meanwhile would choose the same port of a small range.
    """
    if accounts_at(port):  # of another family, which did not keep us from binding it
        raise OSError(f"{port} is in use")
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind("\0barehub/" + str(port))
    except OSError:
        claim.close()
        raise
    return claim


def reach(api: str, request: urllib.request.Request, patience: float) -> None:
    """Send the hub a request. Retry for `patience` seconds, because the hub may be restarting."""
    deadline = time.time() + patience
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            directly.open(request, timeout=10)
            return
        except urllib.error.HTTPError as error:
            why = f"it answered {error.code}"
            if error.code < 500:  # retrying would not help
                deadline = 0
        except OSError as error:
            why = str(getattr(error, "reason", error))
        if time.time() > deadline:
            give_up(f"the server on {node()} could not reach the hub at {api}: {why}")
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
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4], sys.argv[5], sys.argv[6:])
