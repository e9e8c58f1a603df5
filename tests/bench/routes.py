"""traefik behind BarehubProxy against configurable-http-proxy, JupyterHub's default, on this machine's loopback.

    python -m tests.bench.routes        with the hub environment's Python: it needs barehub, jupyterhub and traefik

It also needs npm and node (configurable-http-proxy is installed into a cache directory), wrk and unshare. All of it
happens in a network namespace of its own. What is measured, for both in turn:

    1000 routes     from an empty table until the hub is told that all of them are served, added at once
    requests/s      through one of them, 64 connections, a server that answers two bytes
    p99             the time that 99 of 100 of these requests stay below
"""

import asyncio
import contextlib
import gc
import json
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.unit.proxies import answers, free_port, get, make_base, running, traefik, wait_until

CHP = "configurable-http-proxy@5.3.0"
ROUTES = 1000
CONNECTIONS, SECONDS, ROUNDS = 64, 5, 3
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "barehub-bench"

AddRoute = Callable[[str, str, dict[str, str]], Awaitable[None]]


@dataclass(frozen=True)
class Result:
    name: str
    routes: float  # seconds
    requests: float  # a second
    p99: float  # milliseconds


def middle(rounds: Sequence[Result]) -> Result:
    """The median of each figure."""
    figures = (statistics.median(getattr(one, name) for one in rounds) for name in ("routes", "requests", "p99"))
    return Result(rounds[0].name, *figures)


def milliseconds(text: str) -> float:
    """A time as wrk writes it: 870.00us, 12.31ms, 1.02s."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def main() -> int:
    if missing := [tool for tool in ("npm", "node", "wrk", "unshare") if not shutil.which(tool)]:
        print(f"error: this needs {', '.join(missing)}", file=sys.stderr)
        return 1
    if "inside" not in sys.argv:
        install_chp()
        return run_inside("tests.bench.routes")
    with trivial_server() as target:
        rounds = [(asyncio.run(barehub(target)), asyncio.run(chp(target))) for _ in range(ROUNDS)]
    results = [middle(of_one) for of_one in zip(*rounds, strict=True)]
    print(f"{'':26}{f'{ROUTES} routes':>14}{'requests/s':>14}{'p99':>12}")
    for result in results:
        print(f"{result.name:26}{result.routes:>12.2f} s{result.requests:>14,.0f}{result.p99:>9.1f} ms")
    ours, theirs = results
    ratios = (ours.routes / theirs.routes, ours.requests / theirs.requests, ours.p99 / theirs.p99)
    print(f"{'ratio':26}{ratios[0]:>14.2f}{ratios[1]:>14.2f}{ratios[2]:>12.2f}")
    return 0


def run_inside(module: str) -> int:
    """Run a benchmark in a network namespace, where no port is taken and nothing leads out. Returns its exit status."""
    inside = 'ip link set lo up && exec "$@"'
    words = ["unshare", "--map-root-user", "--net", "sh", "-c", inside, "sh", sys.executable, "-m", module, "inside"]
    return subprocess.run(words, check=False, timeout=600).returncode


def install_chp() -> None:
    if not (CACHE / "node_modules/configurable-http-proxy").is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", f"--prefix={CACHE}", "--no-audit", "--no-fund", CHP], check=True)


@contextlib.contextmanager
def trivial_server() -> Iterator[str]:
    """A server that says OK and is no bottleneck: another traefik, with its health check under any path."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        router = {"rule": "PathPrefix(`/`)", "service": "ping@internal"}
        (path / "rules.yaml").write_text(json.dumps({"http": {"routers": {"all": router}}}))
        words = (f"--entryPoints.web.address=127.0.0.1:{port}", "--ping.manualRouting=true", "--log.level=FATAL")
        with running(traefik(), *words, f"--providers.file.directory={path}"):
            wait_until(lambda: answers(port) and get(port) == (200, "OK"))
            yield f"http://127.0.0.1:{port}"


async def measured(name: str, port: int, target: str, add_route: AddRoute) -> Result:
    await add_route("/", target, {})
    gc.collect()  # of what came before: a full collection in the middle takes as long as all the rest
    started = time.monotonic()
    await asyncio.gather(
        *(add_route(f"/user/u{i}/", target, {"user": f"u{i}", "server_name": ""}) for i in range(ROUTES))
    )
    took = time.monotonic() - started
    for i in (0, ROUTES - 1):
        assert get(port, f"/user/u{i}/") == (200, "OK"), f"{name} does not serve /user/u{i}/"
    return Result(name, took, *wrk(f"http://127.0.0.1:{port}/user/u{ROUTES // 2}/", SECONDS))


def wrk(url: str, seconds: int) -> tuple[float, float]:
    """Ask for a page over CONNECTIONS connections: requests a second, and the 99th percentile in ms."""
    words = ["wrk", "--threads=2", f"--connections={CONNECTIONS}", f"--duration={seconds}s", "--latency", url]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^ +99% +(\S+)$.*^Requests/sec: +(\S+)", said, re.DOTALL | re.MULTILINE)
    if not found or "Non-2xx" in said:
        sys.exit(f"error: {url}: {said}")
    return float(found[2]), milliseconds(found[1])


async def barehub(target: str) -> Result:
    from barehub.proxy import BarehubProxy

    with installation() as base:
        web, api = free_port(), free_port()
        (base / "jupyterhub_config.d/10-bench.py").write_text(
            f"c.JupyterHub.bind_url = 'http://127.0.0.1:{web}'\n"
            "c.JupyterHub.proxy_class = 'barehub.proxy.BarehubProxy'\n"
            f"c.TraefikProxy.traefik_api_url = 'http://127.0.0.1:{api}'\n"
        )
        os.environ["BAREHUB_BASE"] = str(base)
        write_static_config()
        with running(sys.executable, "-m", "barehub.proxy_unit.supervisor"):
            proxy = BarehubProxy(public_url=f"http://127.0.0.1:{web}", traefik_api_url=f"http://127.0.0.1:{api}")
            return await measured("barehub, traefik", web, target, proxy.add_route)


@contextlib.contextmanager
def installation() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield make_base(Path(directory) / "base")


def write_static_config() -> None:
    """As the proxy's unit does, with this repository's base configuration."""
    from barehub.config import load_hub
    from barehub.layout import Layout
    from barehub.proxy_unit.prepare import write
    from barehub.proxy_unit.static import static_config
    from barehub.proxy_unit.traits import make_proxy

    base = Layout.from_environment().base
    layout = Layout(base, prefix=Path(__file__).parents[2] / "post_install/data")
    write(layout, static_config(layout, make_proxy(layout, load_hub(layout))))


async def chp(target: str) -> Result:
    from jupyterhub.proxy import ConfigurableHTTPProxy

    web, api, token = free_port(), free_port(), secrets.token_hex()
    words = ("--ip=127.0.0.1", f"--port={web}", "--api-ip=127.0.0.1", f"--api-port={api}", "--log-level=error")
    program = CACHE / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"
    with running("node", program, *words, CONFIGPROXY_AUTH_TOKEN=token):
        await asyncio.to_thread(wait_until, lambda: answers(api))
        proxy = ConfigurableHTTPProxy(
            should_start=False, api_url=f"http://127.0.0.1:{api}", auth_token=token,
            public_url=f"http://127.0.0.1:{web}",
        )  # fmt: skip
        return await measured("configurable-http-proxy", web, target, proxy.add_route)


if __name__ == "__main__":
    traefik()
    sys.exit(main())
