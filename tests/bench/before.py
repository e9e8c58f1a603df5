"""What people wait for, against an earlier state of this repository: both measured in one run, in turn.

    .venv/bin/python -m tests.bench.before COMMIT [--rounds 5]       needs git and wrk, and traefik beside this Python

COMMIT's tree is unpacked to a temporary directory. Its code runs in the same environment, and measures itself by its
own tests/bench/routes.py. `b3609ce` is this repository before it had pages in place of what is away, notices,
maintenance, and numbers for monitoring.

    1000 routes        from an empty table until the hub is told that all of them are served
    requests/s, p99    through one of them, 64 connections, a server that answers two bytes
    login pages/s      of the hub, 2 connections
    hub's start        from its start until it answers; and the processor's time for it, which no other work changes
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIGURES = ("1000 routes, s", "requests/s", "p99, ms", "login pages/s", "hub's start, s", "of the processor, s")
CONFIG = """\
c.JupyterHub.bind_url = "http://127.0.0.1:{web}"
c.JupyterHub.hub_port = {hub}
c.JupyterHub.proxy_class = "barehub.proxy.BarehubProxy"
c.TraefikProxy.traefik_api_url = "http://127.0.0.1:{api}"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.log_level = "ERROR"
"""
# As in a release, barehub's own files are those of the interpreter's prefix.
HUB = """\
import sys
from jupyterhub.app import main
sys.prefix = {prefix!r}
sys.argv = ["jupyterhub", "--config={prefix}/share/barehub/jupyterhub_config.py"]
main()
"""


def main() -> int:
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measured()))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        archive = subprocess.run(["git", "-C", ROOT, "archive", arguments.commit], stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", directory], input=archive.stdout, check=True)
        rounds = [(measured_in(Path(directory)), measured_in(ROOT)) for _ in range(arguments.rounds)]
    print(f"{'':20}{arguments.commit[:12]:>14}{'this tree':>14}{'ratio':>8}{'of each round':>20}")
    for number, name in enumerate(FIGURES):
        before, now = (statistics.median(one[side][number] for one in rounds) for side in (0, 1))
        ratios = [one[1][number] / one[0][number] for one in rounds]
        print(f"{name:20}{before:>14,.2f}{now:>14,.2f}{now / before:>8.2f}{min(ratios):>12.2f} to{max(ratios):>5.2f}")
    return 0


def measured_in(tree: Path) -> list[float]:
    """Measure a tree by a Python that sees its modules alone."""
    environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{tree}/post_install"}
    words = [sys.executable, __file__, "measure"]
    done = subprocess.run(words, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return list(json.loads(done.stdout.splitlines()[-1]))


def measured() -> list[float]:
    """Return the figures of the tree in the current directory."""
    from tests.bench.routes import barehub, installation, trivial_server, write_static_config
    from tests.unit.proxies import free_port, running

    with trivial_server() as target:
        proxy = asyncio.run(barehub(target))
    with installation() as base:
        ports = {name: free_port() for name in ("web", "hub", "api")}
        (base / "jupyterhub_config.d/10-bench.py").write_text(CONFIG.format(**ports))
        os.environ["BAREHUB_BASE"] = str(base)
        write_static_config()
        url = f"http://127.0.0.1:{ports['hub']}/hub"
        with running(sys.executable, "-m", "barehub.proxy_unit.supervisor"):
            with started_hub(url):  # which makes the database, and the modules' bytecode
                pages = requests_in_a_second(f"{url}/login")
            starts = []
            for _ in range(3):
                with started_hub(url) as took:
                    starts.append(took)
    return [proxy.routes, proxy.requests, proxy.p99, pages, *(min(one) for one in zip(*starts, strict=True))]


@contextlib.contextmanager
def started_hub(url: str) -> Iterator[tuple[float, float]]:
    """A hub of the tree in the current directory; how long it took to answer, and the processor's time, in seconds."""
    began = time.monotonic()
    program = HUB.format(prefix=str(Path("post_install/data").absolute()))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as hub:
        try:
            while not answers(f"{url}/health"):
                if hub.poll() is not None:
                    sys.exit("error: the hub has ended")
                time.sleep(0.002)
            took = time.monotonic() - began
            fields = Path(f"/proc/{hub.pid}/stat").read_text().rpartition(")")[2].split()
            yield took, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        finally:
            hub.terminate()


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
        return bool(answer.status == 200)
    return False


def requests_in_a_second(url: str) -> float:
    words = ["wrk", "--threads=1", "--connections=2", "--duration=3s", url]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        sys.exit(f"error: {url}: {said}")
    return float(said.partition("Requests/sec:")[2].split()[0])


if __name__ == "__main__":
    sys.exit(main())
