"""HTTPS through barehub's proxy against plain traefik with a hand-written configuration, on this machine's loopback.

    python -m tests.bench.https        with the hub environment's Python: it needs barehub, jupyterhub and traefik

It also needs wrk and unshare. All of it happens in a network namespace of its own: the same certificate, the same
server that answers two bytes behind both, 64 connections; each in turn, the middle of all rounds counts. The ratio of
requests/s, and the inverse of that of p99, should be at least 0.95.
"""

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.routes import installation, run_inside, trivial_server, wrk
from tests.machines.authority import authority, issue
from tests.unit.proxies import answers, free_port, running, traefik, wait_until

SECONDS, ROUNDS = 6, 5
FLOOR = 0.95


@dataclass(frozen=True)
class Result:
    requests: float  # a second
    p99: float  # milliseconds


def main() -> int:
    if missing := [tool for tool in ("wrk", "unshare") if not shutil.which(tool)]:
        print(f"error: this needs {', '.join(missing)}", file=sys.stderr)
        return 1
    if "inside" not in sys.argv:
        return run_inside("tests.bench.https")
    root = authority()
    pair, chain = issue(root, "127.0.0.1"), root.cert
    with trivial_server() as target, contextlib.ExitStack() as stack:
        plain = stack.enter_context(plain_traefik(target, pair.cert + chain, pair.key))
        ours = stack.enter_context(barehub(target, pair.cert + chain, pair.key))
        measure(plain), measure(ours)  # to warm up
        rounds = [(measure(ours), measure(plain)) for _ in range(ROUNDS)]
    return report([one for one, _ in rounds], [other for _, other in rounds])


def report(ours: list[Result], plain: list[Result]) -> int:
    """Print the middle of each figure; 1 if a ratio is too low."""
    figures = [
        [statistics.median(getattr(one, name) for one in results) for name in ("requests", "p99")]
        for results in (ours, plain)
    ]
    print(f"{'':26}{'requests/s':>14}{'p99':>12}")
    for name, (requests, p99) in zip(("barehub", "plain traefik"), figures, strict=True):
        print(f"{name:26}{requests:>14,.0f}{p99:>9.1f} ms")
    ratios = (figures[0][0] / figures[1][0], figures[1][1] / figures[0][1])
    print(f"{'ratio, higher is better':26}{ratios[0]:>14.2f}{ratios[1]:>12.2f}")
    return 0 if min(ratios) >= FLOOR else 1


def measure(port: int) -> Result:
    return Result(*wrk(f"https://127.0.0.1:{port}/user/alice/", SECONDS))


@contextlib.contextmanager
def plain_traefik(target: str, cert: str, key: str) -> Iterator[int]:
    """traefik as its documentation sets it up; the port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        (path / "cert.pem").write_text(cert)
        (path / "key.pem").write_text(key)
        rules = {
            "http": {
                "routers": {"alice": {"rule": "PathPrefix(`/user/alice/`)", "service": "alice", "tls": {}}},
                "services": {"alice": {"loadBalancer": {"servers": [{"url": target}]}}},
            },
            "tls": {"certificates": [{"certFile": str(path / "cert.pem"), "keyFile": str(path / "key.pem")}]},
        }
        (path / "rules.yaml").write_text(json.dumps(rules))
        words = (f"--entryPoints.websecure.address=127.0.0.1:{port}", f"--providers.file.filename={path}/rules.yaml")
        with running(traefik(), *words, "--log.level=ERROR"):
            wait_until(lambda: answers(port))
            yield port


@contextlib.contextmanager
def barehub(target: str, cert: str, key: str) -> Iterator[int]:
    """The unit's two processes and a hub's side of the proxy; the port."""
    from barehub.config import load_hub
    from barehub.evaluation import proxy_wanted
    from barehub.layout import Layout
    from barehub.proxy import BarehubProxy
    from barehub.proxy_unit.prepare import prepare, write
    from barehub.proxy_unit.traits import make_proxy

    with installation() as base:
        port, api = free_port(), free_port()
        for name, text in (("cert", cert), ("key", key)):
            (base / f"{name}.pem").write_text(text)
        (base / "key.pem").chmod(0o600)
        (base / "jupyterhub_config.d/10-bench.py").write_text(
            f"c.JupyterHub.bind_url = 'https://127.0.0.1:{port}'\n"
            f"c.JupyterHub.ssl_cert, c.JupyterHub.ssl_key = '{base}/cert.pem', '{base}/key.pem'\n"
            f"c.TraefikProxy.traefik_api_url = 'http://127.0.0.1:{api}'\n"
        )
        os.environ["BAREHUB_BASE"] = str(base)
        layout = Layout(base, prefix=Path(__file__).parents[2] / "post_install/data")
        hub = load_hub(layout)
        proxy = make_proxy(layout, hub)
        wanted = proxy_wanted(layout, hub)
        write(layout, wanted.static, prepare(layout, wanted, say=print))
        with running(sys.executable, "-m", "barehub.proxy_unit.supervisor"):

            async def route() -> None:
                hubs: BarehubProxy = type(proxy)(parent=hub, ssl_cert=hub.ssl_cert)
                await hubs.add_route("/user/alice/", target, {"user": "alice", "server_name": ""})

            asyncio.run(route())
            yield port


if __name__ == "__main__":
    traefik()
    sys.exit(main())
