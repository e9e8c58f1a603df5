"""barehub.lifecycle.upgrade_rehearsal: a hub and a traefik that are real, and a user's server. Units are processes."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from barehub.accounts import current_user
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle import canary, second_hub
from barehub.lifecycle.install import install
from barehub.lifecycle.options import Request
from barehub.settings import Settings

from tests.unit.installations import NEW, OLD, OLD_SCHEMA, POST_INSTALL, fake_command, make_upgradable
from tests.unit.proxies import traefik

ME = current_user()
# Runs a module of this tree, as a release's `python -I -m MODULE` does.
RUN = """\
import runpy, sys
sys.path.insert(0, {tree!r})
sys.prefix = {prefix!r}
sys.argv = [word for word in sys.argv[1:] if word not in ("-I", "-m")]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
# systemctl, as far as the rehearsal goes: `barehub run` is both of its units.
SYSTEMCTL = """\
case "$1" in
    start) BAREHUB_BASE={copy} setsid {python} -m barehub run >{log} 2>&1 </dev/null & echo $! >{pid} ;;
    stop) [ -e {pid} ] || exit 0
        kill $(cat {pid}) && while kill -0 $(cat {pid}) 2>/dev/null; do sleep 0.05; done
        rm {pid} ;;
    show) case "$*" in *ActiveState*) [ ! -e {pid} ] || kill -0 $(cat {pid}) 2>/dev/null || echo failed ;; esac ;;
esac
"""
SITE = f"""
import sys
c.JupyterHub.spawner_class = "simple"
c.Spawner.cmd = [sys.executable, {str(Path(__file__).with_name("a_server.py"))!r}]
"""
HTTPS = """
c.JupyterHub.bind_url = "https://hub.example.org/pre/fix"
c.JupyterHub.ssl_cert, c.JupyterHub.ssl_key = "/no/such/cert", "/no/such/key"
c.JupyterHub.services = [{"name": "culler", "command": ["touch", "/no/such/directory/culled"]}]
"""


@pytest.fixture
def layout(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An older release that is active, and the newer one, whose programs run from this tree."""
    add_programs(layout, tmp_path)  # as long as this interpreter is known
    old = make_upgradable(layout, tmp_path, monkeypatch, OLD_SCHEMA)
    replace(old.settings, hub_user=ME, proxy_user=ME).save(layout)
    monkeypatch.setattr(second_hub, "SAFE", ())  # tests run side by side
    (layout.root / "run/systemd/system").mkdir(parents=True)
    (layout.config / "50-site.py").write_text(SITE)
    copy, python = layout.base / ".staging/rehearsal", layout.prefix / "bin/python"
    script = SYSTEMCTL.format(copy=copy, python=python, log=tmp_path / "log", pid=tmp_path / "pid")
    fake_command(tmp_path / "bin", "systemctl", script, monkeypatch)
    return layout


def add_programs(layout: Layout, directory: Path) -> None:
    programs = layout.prefix / "bin"
    programs.mkdir()
    (directory / "run.py").write_text(RUN.format(tree=str(POST_INSTALL), prefix=str(layout.prefix)))
    for name, words in {"python": "", "jupyterhub": "jupyterhub"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {directory}/run.py {words} "$@"\n')
        (programs / name).chmod(0o755)
    (programs / "traefik").symlink_to(traefik())
    (layout.prefix / "share/jupyterhub").symlink_to(Path(sys.prefix, "share/jupyterhub"))


def rehearsed(layout: Layout, user: str | None) -> list[str]:
    """What is said, without the times; everything is as it was before, whatever happens."""
    said: list[str] = []
    before = contents(layout.base)
    try:
        install(layout, Request(NEW, rehearse=True, canary=user), said.append)
    finally:
        assert contents(layout.base) == before
        assert not list((layout.root / "run/systemd/system").iterdir())
    return [re.sub(r" +\d+\.\d s$", "", line) for line in said]


def contents(base: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in base.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


LOCAL = "c.JupyterHub.spawner_class = 'barehub.local_spawner.KnownProcessSpawner'\n"
STEPS = [
    f"rehearsing the upgrade to {NEW}, beside the hub that runs",
    "  loaded the configuration",
    "  copied the database, and migrated the copy",
    "  started hub and proxy",
]
LAST = f"the rehearsal is over, and nothing is left of it: {OLD} is active as before"


def test_a_user_works_at_the_hub_of_a_site_with_https_and_a_prefix(layout: Layout) -> None:
    (layout.config / "60-https.py").write_text(HTTPS)
    assert rehearsed(layout, ME) == [
        *STEPS,
        f"  logged in {ME}",
        f"  started the server of {ME}",
        "  opened a kernel: the server has none",
        f"  stopped the server of {ME}",
        LAST,
    ]


def test_without_a_user_somebody_logs_in(layout: Layout) -> None:
    assert rehearsed(layout, None) == [*STEPS, "  logged in a canary", LAST]


@pytest.mark.parametrize(
    ("text", "user", "what"),
    [
        (LOCAL, "nobody-here", "could not start the server of nobody-here: .*There is no account nobody-here"),
        ("c.Spawner.cmd = ['sleep', '99']", ME, f"could not start the server of {ME}: not within 1 s"),
        ("c.JupyterHub.hub_port = 'x'", ME, "hub_port"),
        ("c.JupyterHub.load_roles = [{'name': 'reads', 'scopes': ['nope']}]", ME, "60-more.py, line 1: .*'nope'"),
    ],
)
def test_what_fails_is_said_with_the_step(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, text: str, user: str, what: str
) -> None:
    monkeypatch.setattr(canary.Canary.start_server, "__defaults__", (1.0,) if "sleep" in text else (60.0,))
    (layout.config / "60-more.py").write_text(text)
    with pytest.raises(UserError, match=what) as caught:
        rehearsed(layout, user)
    assert caught.value.fix


def test_a_canary_that_fails_refuses_the_upgrade(layout: Layout) -> None:
    (layout.config / "60-local.py").write_text(LOCAL)
    before = contents(layout.base)
    with pytest.raises(UserError, match="There is no account nobody-here"):
        install(layout, Request(NEW, canary="nobody-here"), lambda _: None)
    assert contents(layout.base).keys() == before.keys()
    assert layout.active == OLD
    assert Settings.load(layout)
