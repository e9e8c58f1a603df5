"""`python -m barehub.proxy_unit.prepare`: what it writes, and what becomes of a broken configuration."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.machines.authority import authority, issue
from tests.unit import proxies
from tests.unit.proxies import REPOSITORY, answers, free_port, wait_until

if os.environ.get("CI") != "true":
    pytest.importorskip("jupyterhub_traefik_proxy")

from barehub.evaluation import ProxyWanted
from barehub.layout import Layout
from barehub.proxy_unit import prepare
from barehub.proxy_unit.renewal import Source


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    base = proxies.make_base(tmp_path / "base")
    monkeypatch.setenv("BAREHUB_BASE", str(base))
    return Layout(base, prefix=REPOSITORY / "post_install/data")


RunMain = Callable[[], tuple[int, str]]


def configure(layout: Layout, *lines: str) -> None:
    (layout.config / "50-test.py").write_text("\n".join(lines) + "\n")


@pytest.fixture
def run_main(layout: Layout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunMain:
    """Call it for the exit status and stderr of what the unit runs, with the configuration of this repository."""
    monkeypatch.setattr(Layout, "from_environment", lambda: layout)

    def run() -> tuple[int, str]:
        capfd.readouterr()
        return prepare.main(), capfd.readouterr().err

    return run


# As the unit does, but for the configuration of this repository.
MAIN = """
import sys
from pathlib import Path
from barehub.proxy_unit import prepare
from barehub.layout import Layout
Layout.from_environment = lambda: Layout(Path(sys.argv[1]), prefix=Path(sys.argv[2]))
sys.exit(prepare.main())
"""


BROKEN = {
    "c.JupyterHub.bind_url = nothing": "50-test.py, line 1: NameError: name 'nothing' is not defined",
    "def": "50-test.py, line 1: SyntaxError",
    "c.JupyterHub.bind_url = 3": "bind_url",
    "c.BarehubProxy.trusted_networks = ['here']": "'here' does not appear to be an IPv4 or IPv6 network",
    "c.JupyterHub.bind_url = 'https://:443'": "needs a certificate",
}


def test_a_broken_configuration_keeps_the_last_valid_one(layout: Layout, run_main: RunMain) -> None:
    configure(layout, "def")
    assert run_main()[0] == 1  # there is no other
    configure(layout, "")
    assert run_main()[0] == 0
    valid = layout.static_config.read_text()
    for line, message in BROKEN.items():
        configure(layout, line)
        status, told = run_main()
        assert status == 0
        assert message in told
        assert "the proxy goes on with its last configuration" in told
        assert "Traceback" not in told
        assert layout.static_config.read_text() == valid


@pytest.mark.parametrize("static", [{}, {"entryPoints": 3}, []])
def test_an_answer_that_makes_no_sense_keeps_the_last_valid_one(
    layout: Layout, run_main: RunMain, monkeypatch: pytest.MonkeyPatch, static: Any
) -> None:
    configure(layout, "")
    assert run_main()[0] == 0
    valid = layout.static_config.read_text()
    wanted = ProxyWanted(static, None, "", 0)
    monkeypatch.setattr(prepare, "evaluate", lambda *_: SimpleNamespace(require_proxy=lambda: wanted))
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setattr(prepare, "store_doors", lambda *_: None)
    status, told = run_main()
    assert status == 0
    assert "the proxy goes on with its last configuration" in told
    assert layout.static_config.read_text() == valid


def test_the_file_is_for_root_and_the_proxys_group(layout: Layout) -> None:
    if os.geteuid() == 0:
        os.chown(layout.proxy_state, 0, 33)
    subprocess.run([sys.executable, "-c", MAIN, layout.base, layout.prefix], check=True)
    status = layout.static_config.stat()
    assert (status.st_mode & 0o777, status.st_gid) == (0o640, layout.proxy_state.stat().st_gid)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_traefik_accepts_it_without_a_word(layout: Layout, run_main: RunMain, scheme: str) -> None:
    web, api = free_port(), free_port()
    pair = issue(authority(), "localhost")
    (layout.base / "cert.pem").write_text(pair.cert)
    (layout.base / "key.pem").write_text(pair.key)
    names = f"('{layout.base}/cert.pem', '{layout.base}/key.pem')" if scheme == "https" else "('', '')"
    configure(
        layout,
        f"c.JupyterHub.bind_url = '{scheme}://localhost:{web}'",
        f"c.JupyterHub.ssl_cert, c.JupyterHub.ssl_key = {names}",
        f"c.TraefikProxy.traefik_api_url = 'http://127.0.0.1:{api}'",
    )
    assert run_main()[0] == 0
    process = subprocess.Popen(
        [proxies.traefik(), f"--configfile={layout.static_config}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_until(lambda: (answers(web) and answers(api)) or process.poll() is not None)
    process.terminate()
    assert process.communicate(timeout=120)[0] == ""
    assert (Source.load(layout) is not None) == layout.certificate.exists() == (scheme == "https")
