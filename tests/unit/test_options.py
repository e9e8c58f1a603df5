"""barehub.lifecycle.options: what was asked for becomes settings and a configuration file."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.lifecycle import options
from barehub.lifecycle.options import Request

from tests.unit.installations import ME


def test_installer_options_become_a_readable_file_that_keeps_what_was_added(layout: Layout) -> None:
    said: list[str] = []
    request = Request("2026.11.24", bind_url="http://:8080")
    options.write_installer_config(layout, request, first=False, say=said.append)
    assert layout.installer_config.read_text().splitlines()[1:] == ['c.JupyterHub.bind_url = "http://:8080"']
    layout.installer_config.write_text(layout.installer_config.read_text() + "c.JupyterHub.log_level = 10\n")
    options.write_installer_config(layout, replace(request, bind_url="http://:9090"), first=False, say=said.append)
    assert layout.installer_config.read_text().splitlines()[1:] == [
        'c.JupyterHub.bind_url = "http://:9090"',
        "c.JupyterHub.log_level = 10",
    ]
    assert said == [f"wrote {layout.installer_config}"] * 2


def test_a_barehub_keeps_its_name(layout: Layout) -> None:
    with pytest.raises(UserError, match="is named barehub"):
        options.choose_settings(ME, Request("2026.11.24", name="other"))


def test_an_address_without_a_certificate_removes_the_one_of_the_last_address(layout: Layout) -> None:
    https = Request("2026.11.24", bind_url="https://h.example", tls_cert="/c.pem", tls_key="/k.pem")
    options.write_installer_config(layout, https, first=False, say=lambda _: None)
    assert 'c.JupyterHub.ssl_cert = "/c.pem"' in layout.installer_config.read_text()
    acme = Request("2026.11.24", bind_url="https://h.example", acme_email="ada@h.example")
    options.write_installer_config(layout, acme, first=False, say=lambda _: None)
    assert "ssl_" not in layout.installer_config.read_text()
    assert 'c.BarehubProxy.acme_email = "ada@h.example"' in layout.installer_config.read_text()


def test_no_options_write_nothing(layout: Layout) -> None:
    assert not options.write_installer_config(layout, Request("2026.11.24"), first=False, say=lambda _: None)
    assert not layout.installer_config.exists()


def test_settings_stay_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    before = replace(ME, created_account="daemon")
    assert options.choose_settings(before, Request("2026.11.24")) == before
    chosen = options.choose_settings(before, Request("2026.11.24", proxy_user="nobody", name="barehub"))
    assert chosen == replace(before, proxy_user="nobody")
    said: list[str] = []
    options.report_changed_options(before, chosen, said.append)
    assert said == ["--proxy-user was daemon and is nobody now"]


def test_only_root_runs_them_as_other_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    me = options.accounts.current_user()
    chosen = options.choose_settings(None, Request("2026.11.24"))
    assert (chosen.hub_user, chosen.proxy_user) == (me, me)
    with pytest.raises(UserError, match="only root") as caught:
        options.choose_settings(None, Request("2026.11.24", hub_user="root"))
    assert caught.value.code == Exit.USAGE


def test_the_proxy_has_an_account_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert options.choose_settings(None, Request("2026.11.24", name="lab")).proxy_user == "lab-proxy"
    shared = replace(ME, proxy_user="www-data")
    assert options.choose_settings(shared, Request("2026.11.24")) == shared  # an administrator's choice
    moved = options.choose_settings(shared, Request("2026.11.24"), shared_by_default=True)
    assert moved.proxy_user == "barehub-proxy"
    asked = Request("2026.11.24", proxy_user="www-data")
    assert options.choose_settings(shared, asked, shared_by_default=True) == shared


@pytest.mark.parametrize("before", [None, "c.JupyterHub.hub_port = 334\n# mine\n"])
def test_lines_that_did_not_work_go_and_a_link_stays_one(layout: Layout, tmp_path: Path, before: str | None) -> None:
    real = tmp_path / "10-install.py"
    if before:
        real.write_text(before)
        real.chmod(0o600)
        layout.installer_config.symlink_to(real)
    lines = {"c.JupyterHub.hub_port": None, "c.JupyterHub.ip": "x"}

    def work() -> None:
        with options.trying_lines(layout.installer_config, lines, lambda _: None):
            assert layout.installer_config.read_text().endswith('c.JupyterHub.ip = "x"\n')
            raise UserError("not up")

    with pytest.raises(UserError, match="not up"):
        work()
    if before:
        assert layout.installer_config.readlink() == real
        assert (real.read_text(), real.stat().st_mode & 0o777) == (before, 0o600)
    else:
        assert not layout.installer_config.exists()


def test_a_link_that_leads_in_a_circle_is_refused(layout: Layout) -> None:
    layout.installer_config.symlink_to(layout.installer_config)
    with pytest.raises(UserError, match="by a way that not only root can change"):
        options.write_lines(layout.installer_config, {"c.JupyterHub.ip": "x"}, lambda _: None)
    with options.trying_lines(layout.installer_config, {}, lambda _: None):
        pass  # without anything to write, it does not matter
