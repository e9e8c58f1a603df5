"""Start many servers on two nodes, with the overlay `slurm`: time from click to server, its cost, and a hub's restart.

    .venv/bin/python -m tests.bench.slurm INSTALLER [USERS [SECONDS]]

INSTALLER has the overlay and is named slurm; the USERS (50) click within so many SECONDS (0: at the same moment). The
bench needs root and Debian, as the end-to-end tests do. The jobs are real, but each reports a small web server of its
node in place of JupyterLab: otherwise the machine that plays the cluster would be what is measured. slurmctld's own
`sdiag` counts its calls. Times are also given as shares of the last one's, which a busy machine changes less.
This is what is aimed at, on two cores that nothing else uses:

    200            the first within 5 s, the median within 47 s, nobody told an untrue reason
    500 60         all, 95 % within 45 s
    1000 180       hub under 3 % of a core, one squeue an interval, after a restart all known within 8 s
"""

import os
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
INTERVAL = 5

# To the hub, the same as launch.py; what runs then costs next to nothing.
PYTHON = """\
#!/bin/sh
/usr/bin/python3 -ISE /opt/light/report.py && exec sleep infinity
"""
REPORT = """\
import json, os, urllib.request

body = json.dumps({"port": 45000}).encode()
headers = {"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}
urllib.request.urlopen(urllib.request.Request(os.environ["JUPYTERHUB_API_URL"] + "/batchspawner", body, headers))
"""
# To the hub, the same as jupyterhub-singleuser: one on each node.
SERVER = """\
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.end_headers()

    def log_message(self, *words):
        pass

http.server.ThreadingHTTPServer(("", 45000), Handler).serve_forever()
"""
# useradd takes some tenths of a second for each.
ACCOUNTS = """
for number in $(seq 0 {last}); do
    name=user$number id=$((3000 + number))
    echo "$name:x:$id:$id::/home/$name:/bin/bash" >&3
    echo "$name:x:$id:" >&4
    echo "$name:*:20000::::::" >&5
    echo "$name:$name" >&6
done 3>>/etc/passwd 4>>/etc/group 5>>/etc/shadow 6>/root/passwords
chpasswd --crypt-method=MD5 </root/passwords
"""
HOMES = """
for number in $(seq 0 {last}); do
    install -d -o $((3000 + number)) -g $((3000 + number)) /home/user$number
done
"""
# What a site has, not what makes tests fast.
LOAD_CONFIG = f"""\
c.SlurmJobSpawner.queue_interval = {INTERVAL}
c.Spawner.poll_interval = 30
c.SlurmJobSpawner.users_environment = "/opt/light"
# The bench asks for all users and routes at once, of which the API has 50 on a page.
c.JupyterHub.api_page_default_limit = c.JupyterHub.api_page_max_limit = 100_000
"""


def main() -> int:
    installer, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    with cluster(cached_root(), cpus=count // 2 + 1, memory=count * 1024) as machines:
        install(machines, installer)
        for node in machines.nodes.values():
            for name, text in (("server.py", SERVER), ("report.py", REPORT)):
                node.write(f"/opt/light/{name}", text)
            node.write("/opt/light/bin/python", PYTHON, 0o755)
            node.succeed("systemd-run", "--quiet", "/usr/bin/python3", "/opt/light/server.py")
        machines.head.write(f"{CONFIG}/70-load.py", LOAD_CONFIG)
        names = [f"user{number}" for number in range(count)]
        for machine in machines.machines:
            machine.shell(ACCOUNTS.format(last=count - 1))
        machines.head.shell(HOMES.format(last=count - 1))
        machines.head.succeed("systemctl", "restart", HUB)
        machines.head.eventually(BAREHUB, "status")
        print(f"load of this machine {os.getloadavg()[0]:.1f} before, {os.cpu_count()} cores")
        with ThreadPoolExecutor(count) as threads:
            sessions = list(threads.map(lambda name: user(machines, name), names))
            ready = start(machines, sessions, threads, seconds)
            watch(machines, ready)
            restart(machines, ready)
            stop(machines, sessions, threads)
        print(f"load of this machine {os.getloadavg()[0]:.1f} after")
        require_clean(machines)
    return 0


def start(machines: Cluster, sessions: list[HubSession], threads: ThreadPoolExecutor, seconds: float) -> int:
    """Let all users ask for a server within so many seconds, and print how long it takes; how many got one."""
    head = machines.head
    cpu, calls, began = hub_cpu(head), slurm_calls(head), time.monotonic()

    def click(number: int) -> tuple[float, dict[str, Any]]:
        time.sleep(max(0.0, began + seconds * number / len(sessions) - time.monotonic()))
        clicked = time.monotonic()
        sessions[number].ask_for_server(cores=1, memory=0.5, hours=1)
        *_, last = sessions[number].progress()
        return time.monotonic() - clicked, last

    ended = list(threads.map(click, range(len(sessions))))
    took = time.monotonic() - began
    ready = sorted(waited for waited, last in ended if last.get("ready"))
    reasons = [last["message"] for _, last in ended if not last.get("ready")]
    print(f"{len(sessions)} users in {seconds:g} s: {len(ready)} got a server, {len(reasons)} a reason")
    for reason in sorted(set(reasons)):
        print(f"  {reasons.count(reason)} x {reason}")
    marks = {"first": ready[0], "median": statistics.median(ready), "95 %": ready[len(ready) * 95 // 100 - 1]}
    shares = (f"{name} {waited:.1f} s ({waited / ready[-1]:.0%})" for name, waited in marks.items())
    print(f"click to server      {', '.join(shares)}, last {ready[-1]:.1f} s")
    print(f"hub while starting   {(hub_cpu(head) - cpu) / took:.0%} of a core, peak memory {hub_memory(head)} MB")
    print(f"slurmctld            {(slurm_calls(head) - calls) / len(sessions):.1f} calls for each user's start")
    return len(ready)


def watch(machines: Cluster, ready: int) -> None:
    """Print what the servers that run cost."""
    head = machines.head
    cpu, calls, queues, began = hub_cpu(head), slurm_calls(head), slurm_calls(head, SQUEUE), time.monotonic()
    until(lambda: time.monotonic() - began > WATCHED, "the end of the watch", WATCHED + 5)
    seconds = time.monotonic() - began
    print(f"{ready} running          {(hub_cpu(head) - cpu) / seconds:.1%} of a core for the hub")
    print(f"                     {(slurm_calls(head, SQUEUE) - queues) * INTERVAL / seconds:.2f} squeue an interval")
    print(
        f"                     {(slurm_calls(head) - calls) * 60 / seconds / ready:.2f} slurmctld calls a user-minute"
    )


def restart(machines: Cluster, ready: int) -> None:
    """Restart the hub, and print when it answers, and when it knows all servers again."""
    began = time.monotonic()
    machines.head.succeed("systemctl", "restart", HUB)
    machines.head.eventually(BAREHUB, "status")
    answers = time.monotonic() - began
    until(lambda: len(api(machines, "proxy")) == ready + 1, "all routes", 300)
    print(f"hub restarted        answers after {answers:.1f} s, knows all after {time.monotonic() - began:.1f} s")


def stop(machines: Cluster, sessions: list[HubSession], threads: ThreadPoolExecutor) -> None:
    began = time.monotonic()
    list(threads.map(lambda session: session.stop_server(), sessions))
    until(lambda: not any(one["server"] or one["pending"] for one in api(machines, "users")), "the end", 300)
    print(f"all stopped          in {time.monotonic() - began:.1f} s")


ASKED = ("JOB", "SUBMIT", "KILL", "CANCEL", "PARTITION", "NODE_INFO")
SQUEUE = ("JOB_INFO",)


def slurm_calls(head: Machine, asked: tuple[str, ...] = ASKED) -> int:
    """Count the requests of users and of the hub that slurmctld has answered, without its nodes' and sdiag's own."""
    text = head.succeed("sdiag").partition("Remote Procedure Call statistics by message type")[2]
    kinds = re.findall(r"^\s*(REQUEST_\w+)\s+\(.*?count:(\d+)", text.partition("by user")[0], re.MULTILINE)
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
