"""Runs in the job, on the compute node, with the users' own Python (3.6 or newer, nothing but its library):

    python launch.py OLDEST HUBS PATIENCE COMMAND...

Chooses a free port, tells the hub, and becomes COMMAND, the server. OLDEST is the oldest release of jupyterhub that
will do, HUBS the hub's own, PATIENCE the seconds for which the hub may be away. What is in the way becomes the
comment of the job, where the hub finds it even if it cannot be reached from here.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request


def main(oldest, hubs, patience, command):
    require_jupyterhub(oldest, hubs)
    port = free_port()
    tell(os.environ["JUPYTERHUB_API_URL"], port, time.time() + patience)
    # jupyterhub-singleuser takes its address from here.
    os.environ["JUPYTERHUB_SERVICE_URL"] = f"http://0.0.0.0:{port}{os.environ['JUPYTERHUB_SERVICE_PREFIX']}"
    try:
        os.execvp(command[0], command)
    except OSError as error:
        give_up(f"{command[0]} cannot be run on {node()}: {error.strerror}")


def require_jupyterhub(oldest, hubs):
    try:
        from jupyterhub import __version__ as found
    except ImportError:
        give_up(f"the users' environment {sys.prefix} has no jupyterhub; the hub's is {hubs}")
    if numbers(found) < numbers(oldest):
        why = "the users' environment {} has jupyterhub {}, which is too old for the hub's {}: it takes {} or newer"
        give_up(why.format(sys.prefix, found, hubs, oldest))


def numbers(version):
    return [int(part) for part in version.split(".") if part.isdigit()]


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def tell(api, port, deadline):
    """POST the port to the hub; it may be restarting, so for a while."""
    request = urllib.request.Request(  # noqa: S310 - the hub's own URL
        api.rstrip("/") + "/batchspawner",
        json.dumps({"port": port}).encode(),
        {"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"], "Content-Type": "application/json"},
    )
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            directly.open(request, timeout=10)
            return
        except urllib.error.HTTPError as error:
            why = f"it answered {error.code}"
            if error.code < 500:  # it will not change its mind
                deadline = 0
        except OSError as error:
            why = getattr(error, "reason", error)
        if time.time() > deadline:
            give_up(f"the server on {node()} could not reach the hub at {api}: {why}")
        time.sleep(1)


def node():
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def give_up(why):
    print(why, file=sys.stderr)
    subprocess.call(["scontrol", "update", "JobId=" + os.environ["SLURM_JOB_ID"], "Comment=" + why])
    sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:])
