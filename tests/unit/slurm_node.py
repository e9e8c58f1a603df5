"""A compute node below one directory: a home, a users' environment, commands; and the hub that its jobs report to."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from barehub_slurm.options import Request
from barehub_slurm.script import job_script

SERVER = """\
import os, sys
print("server:", sys.flags.no_user_site, "tornado" in sys.modules, flush=True)
print(*("{}={}".format(*one) for one in sorted(os.environ.items())), sep="\\n")
print("cwd=" + os.getcwd())
"""
# Listens as jupyterhub-singleuser does, with SO_REUSEADDR, until it is told to end.
LISTENER = """\
import os, re, socket, time
port = int(re.search(":([0-9]+)", os.environ["JUPYTERHUB_SERVICE_URL"]).group(1))
while not os.path.exists(os.environ["HOME"] + "/listen"):
    time.sleep(0.01)
with open(os.environ["HOME"] + "/pids", "w") as pids:
    print(os.getpid(), os.getppid(), file=pids)
with socket.create_server(("0.0.0.0", port)):
    while not os.path.exists(os.environ["HOME"] + "/end"):
        time.sleep(0.01)
"""


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does, and keeps what is reported, and from where."""

    reports: ClassVar[list[bytes]] = []
    ends: ClassVar[list[str]] = []  # the path of each request that tells of an end
    routed = threading.Event()  # while it is set, the proxy has a route

    def do_GET(self) -> None:
        assert "Authorization" not in self.headers
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.reports.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.end_headers()

    def do_DELETE(self) -> None:
        assert self.headers["Authorization"] == "token a token's"
        self.ends.append(self.path)
        while self.routed.is_set():
            time.sleep(0.01)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        pass


class Node:
    """A home, a users' environment, and a node's commands below one directory."""

    def __init__(self, path: Path, hub: str) -> None:
        self.path, self.hub, self.home = path, hub, path / "home"
        for directory in (self.home, path / "bin", path / "users/bin", path / "users/lib"):
            directory.mkdir(parents=True)
        self.program("bin/scontrol", f'#!/bin/sh\necho "$*" >>{path}/comments\n')
        # A Python whose site-packages are not isolated from ~/.local, as conda's are not.
        self.program("users/bin/python", f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 "$@"\n')
        self.program("users/bin/server", f"#!{path}/users/bin/python\n{SERVER}")
        (path / "users/lib/jupyterhub.py").write_text("__version__ = '6.1.1'\n")

    def program(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)

    def script(self, environment: str = "", **more: Any) -> str:
        environment = environment or f"{self.path}/users/"
        env = {
            "JUPYTERHUB_API_URL": self.hub,
            "JUPYTERHUB_API_TOKEN": "a token's",
            "JUPYTERHUB_SERVICE_PREFIX": "/user/alice/",
            "HOME": "/the/hubs",
            "SITE": "it's",
        }
        names = {"account": "", "qos": "", "reservation": "", "options": "", "prologue": ""}
        # The users' environment has jupyterhub on its path; here that is done by the prologue.
        names["prologue"] = f"export PYTHONPATH={self.path}/users/lib\n{more.pop('prologue', '')}"
        request = Request("main", more.pop("cores", 1), more.pop("memory", 2048), more.pop("gpus", 0), 60)
        chosen = {name: more.pop(name) for name in ("kind", "account", "qos", "directory") if name in more}
        request = replace(request, **chosen)
        spawner = SimpleNamespace(
            oldest_jupyterhub="5.0", report_timeout=5, login_timeout=more.pop("login_timeout", 30),
            cmd=["server"], get_args=lambda: ["--one"],
            get_env=lambda: env, port_range=more.pop("port_range", ""), get_req_subvars=lambda: names | more,
        )  # fmt: skip
        return job_script(spawner, request, "jupyterhub-1", environment)

    def run(self, script: str = "", **environment: str) -> tuple[str, str]:
        """Run the job; return its log and what it told Slurm."""
        self.start(script, **environment).wait(60)
        log, comments = self.home / ".jupyterhub/job-17.log", self.path / "comments"
        return log.read_text() if log.is_file() else "", comments.read_text() if comments.exists() else ""

    def start(self, script: str = "", **environment: str) -> "subprocess.Popen[bytes]":
        path = self.path / "job.sh"
        path.write_text(script or self.script())
        path.chmod(0o755)
        env = {"HOME": str(self.home), "SLURM_JOB_ID": "17", "SLURMD_NODENAME": "c1"}
        env |= {"PATH": f"{self.path}/bin:/usr/bin:/bin"} | environment
        return subprocess.Popen([path], env=env, stdin=subprocess.DEVNULL, start_new_session=True)

    @contextlib.contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Start a job, and wait for its end; a test that has failed does not wait."""
        with self.start() as job:
            try:
                yield job
            except BaseException:
                os.killpg(job.pid, signal.SIGKILL)
                raise


@contextlib.contextmanager
def node_with_hub(path: Path) -> Iterator[Node]:
    """A node below a directory, and a hub that answers, to which nothing has been reported yet."""
    Hub.reports.clear()
    Hub.ends.clear()
    Hub.routed.clear()
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield Node(path, f"http://127.0.0.1:{server.server_port}/hub/api")
        server.shutdown()
