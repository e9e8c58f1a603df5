"""The proxy's copy of certificate files: when it is replaced, and what becomes of files that cannot be used."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.machines.authority import authority, issue

if os.environ.get("CI") != "true":
    pytest.importorskip("cryptography")

from barehub import permissions
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.proxy_unit import renewal
from barehub.proxy_unit.renewal import Source

ROOT = authority()
MIDDLE = authority("Middle", ROOT)
GOOD = issue(MIDDLE, "hub.example.org")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    for directory in (layout.proxy_state, layout.acme):
        directory.mkdir(parents=True)
    return layout


@pytest.fixture
def source(tmp_path: Path) -> Source:
    put(tmp_path, GOOD.cert + MIDDLE.cert + ROOT.cert, GOOD.key)
    return Source(str(tmp_path / "cert"), str(tmp_path / "key"), ("hub.example.org",))


def put(directory: Path, cert: str, key: str) -> None:
    (directory / "cert").write_text(cert)
    (directory / "key").write_text(key)
    (directory / "key").chmod(0o600)


def test_the_copy_is_a_pair_for_the_proxy_alone(layout: Layout, source: Source) -> None:
    assert renewal.copy_files(layout, source) == []
    text = layout.certificate.read_text()
    assert text.startswith(GOOD.cert)
    assert text.count("BEGIN") == 4
    assert layout.certificate.stat().st_mode & 0o777 == 0o400


def test_an_expired_pair_is_served_where_there_is_no_better_one(layout: Layout, source: Source) -> None:
    late = issue(ROOT, "hub.example.org", days=1, since=3)
    put(layout.base, late.cert + ROOT.cert, late.key)
    assert "has expired" in renewal.copy_files(layout, source)[0]
    put(layout.base, GOOD.cert, GOOD.key)
    renewal.copy_files(layout, source)
    put(layout.base, late.cert + ROOT.cert, late.key)
    with pytest.raises(UserError, match="has expired on"):
        renewal.copy_files(layout, source)
    assert layout.certificate.read_text().startswith(GOOD.cert)


def test_an_invalid_pair_is_checked_once(layout: Layout, source: Source) -> None:
    renewal.copy_files(layout, source)
    put(layout.base, GOOD.cert, MIDDLE.key)
    with pytest.raises(UserError, match="is not that of the first certificate"):
        renewal.renew(layout, source)
    assert Source.load(layout) == replace(source, seen=source.digest)
    assert source.seen != source.digest
    (layout.base / "key").unlink()
    with pytest.raises(UserError, match=r"ssl_key: .*/key: No such file"):
        renewal.renew(layout, source)


def test_the_key_of_everybody_is_a_warning(layout: Layout, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(source.key).chmod(0o644)
    assert renewal.copy_files(layout, source) == []  # pytest's directories are closed
    monkeypatch.setattr(permissions, "everybody_reads", lambda path: path.stat().st_mode & 0o004)
    (warning,) = renewal.copy_files(layout, source)
    assert warning.startswith(f"everybody can read {source.key}")


def test_main_tells_what_is_wrong(layout: Layout, source: Source) -> None:
    source.save(layout)

    def renew() -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "barehub.proxy_unit.renewal", "--renew"]
        environment = os.environ | {"BAREHUB_BASE": str(layout.base)}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    assert (renew().returncode, renew().stderr) == (0, "")
    assert layout.certificate.exists()
    put(layout.base, GOOD.cert, MIDDLE.key)
    done = renew()
    assert done.returncode == 1
    assert done.stderr.startswith("error: the key in ssl_key is not that of the first certificate")
    assert done.stderr.endswith("\nthe proxy goes on with the certificate it has\n")
    layout.certificate_source.unlink()  # no HTTPS any more
    assert renew().returncode == 0


@pytest.mark.parametrize("changed", [True, False])
def test_a_change_of_the_files_reloads_the_unit(
    layout: Layout, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/told\n')
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    source = source if changed else replace(source, seen=source.digest)
    assert renewal.watch(layout, source, "x-proxy.service") == []
    assert (tmp_path / "told").exists() == changed
    assert not changed or (tmp_path / "told").read_text() == "reload x-proxy.service\n"


def test_a_check_every_minute_costs_little() -> None:
    program = (
        "import barehub.proxy_unit.renewal, sys; sys.exit(bool({'ssl', 'cryptography', 'asyncio'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
