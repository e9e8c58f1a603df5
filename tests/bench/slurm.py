"""Start many servers at once on two nodes, with the overlay `slurm`: time from click to server, and its cost.

    .venv/bin/python -m tests.bench.slurm INSTALLER [USERS]

INSTALLER has the overlay and is named slurm. The bench needs root and Debian, as the end-to-end tests do. The jobs are
real, but each runs a small web server instead of JupyterLab: otherwise the machine that plays the cluster would be what
is measured. slurmctld's own `sdiag` counts its calls.
"""

import re
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.machines.cluster import Cluster, cluster
from tests.machines.hub_client import HubSession
from tests.machines.machine import Machine, until
from tests.machines.rootfs import cached_root
from tests.machines.slurm_site import BAREHUB, CONFIG, HUB, api, install, require_clean, user

WATCHED = 60  # seconds for which all servers run, to measure their cost

# To the hub, the same as launch.py and jupyterhub-singleuser.
PYTHON = """\
#!/bin/sh
exec /usr/bin/python3 /opt/light/server.py
"""
SERVER = """\
import http.server, json, os, urllib.request

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.end_headers()

    def log_message(self, *words):
        pass

server = http.server.ThreadingHTTPServer(("", 0), Handler)
body = json.dumps({"port": server.server_port}).encode()
headers = {"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}
urllib.request.urlopen(urllib.request.Request(os.environ["JUPYTERHUB_API_URL"] + "/batchspawner", body, headers))
server.serve_forever()
"""
# What a site has, not what makes tests fast.
LOAD_CONFIG = """\
c.SlurmJobSpawner.queue_interval = 5
c.Spawner.poll_interval = 30
c.SlurmJobSpawner.users_environment = "/opt/light"
"""


def main() -> int:
    installer, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50
    with cluster(cached_root(), cpus=count // 2, memory=count * 1024) as machines:
        install(machines, installer)
        for node in machines.nodes.values():
            node.write("/opt/light/server.py", SERVER)
            node.write("/opt/light/bin/python", PYTHON, 0o755)
        machines.head.write(f"{CONFIG}/70-load.py", LOAD_CONFIG)
        names = [f"user{number}" for number in range(count)]
        for number, name in enumerate(names):
            machines.add_user(name, 3000 + number)
        machines.head.succeed("systemctl", "restart", HUB)
        machines.head.eventually(BAREHUB, "status")
        measure(machines, names)
        require_clean(machines)
    return 0


def measure(machines: Cluster, names: list[str]) -> None:
    head = machines.head
    with ThreadPoolExecutor(len(names)) as threads:
        sessions = list(threads.map(lambda name: user(machines, name), names))
        cpu, calls = hub_cpu(head), slurm_calls(head)
        began = time.monotonic()

        def click(session: HubSession) -> tuple[float, dict[str, Any]]:
            session.ask_for_server(cores=1, memory=0.5, hours=1)
            *_, last = session.progress()
            return time.monotonic() - began, last

        ended = list(threads.map(click, sessions))
    ready = sorted(seconds for seconds, last in ended if last.get("ready"))
    reasons = [last["message"] for _, last in ended if not last.get("ready")]
    took = time.monotonic() - began
    print(f"{len(names)} users at once: {len(ready)} got a server, {len(reasons)} a reason")
    for reason in sorted(set(reasons)):
        print(f"  {reasons.count(reason)} x {reason}")
    print(f"click to server      median {statistics.median(ready):.1f} s, last {ready[-1]:.1f} s")
    print(f"hub while starting   {hub_cpu(head) - cpu:.1f} s CPU in {took:.1f} s, peak memory {hub_memory(head)} MB")
    spent = slurm_calls(head) - calls
    print(f"slurmctld            {spent} calls, {spent / len(names):.1f} for each user's start")

    cpu, calls, began = hub_cpu(head), slurm_calls(head), time.monotonic()
    until(lambda: time.monotonic() - began > WATCHED, "the end of the watch", WATCHED + 5)
    minutes = (time.monotonic() - began) / 60
    spent = slurm_calls(head) - calls
    print(f"all running          {spent / minutes / len(names):.2f} slurmctld calls per user-minute")
    print(f"                     {(hub_cpu(head) - cpu) / minutes / 60:.1%} of a CPU for the hub")

    began = time.monotonic()
    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(lambda session: session.stop_server(), sessions))
    until(lambda: not any(one["server"] or one["pending"] for one in api(machines, "users")), "no servers", 120)
    print(f"all stopped          in {time.monotonic() - began:.1f} s")


def slurm_calls(head: Machine) -> int:
    """Count the requests of users and of the hub that slurmctld has answered, without its nodes' and sdiag's own."""
    text = head.succeed("sdiag").partition("Remote Procedure Call statistics by message type")[2]
    kinds = re.findall(r"^\s*(REQUEST_\w+)\s+\(.*?count:(\d+)", text.partition("by user")[0], re.MULTILINE)
    asked = ("JOB", "SUBMIT", "KILL", "CANCEL", "PARTITION", "NODE_INFO")
    return sum(int(count) for kind, count in kinds if kind.removeprefix("REQUEST_").startswith(asked))


def hub_cpu(head: Machine) -> float:
    """Return the seconds of CPU time of the hub's process alone: proc(5), stat."""
    fields = head.read(f"/proc/{head.unit(HUB, 'MainPID')}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def hub_memory(head: Machine) -> int:
    """Return the most memory that the hub's process has had, in MB."""
    status = head.read(f"/proc/{head.unit(HUB, 'MainPID')}/status")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024


if __name__ == "__main__":
    sys.exit(main())
