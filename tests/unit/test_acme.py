"""traefik's store of certificates from an ACME server: its copy, and what becomes of a damaged one."""

import json
import os
import time
from pathlib import Path

import pytest
from barehub.layout import Layout
from barehub.proxy_unit import acme


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    for directory in (layout.proxy_state, layout.acme):
        directory.mkdir(parents=True)
    return layout


STORE = json.dumps({"server": {"Account": {"Email": "a@example.org"}, "Certificates": None}})


def test_a_valid_store_is_copied(layout: Layout) -> None:
    assert acme.keep_store(layout, running=False) == []
    layout.acme_store.write_text(STORE)
    layout.acme_store.chmod(0o600)
    assert acme.keep_store(layout, running=True) == []
    assert layout.acme_copy.read_text() == STORE
    assert layout.acme_copy.stat().st_mode & 0o777 == 0o600
    layout.acme_store.unlink()  # for a new one
    assert acme.keep_store(layout, running=False) == []
    assert not layout.acme_copy.exists()


@pytest.mark.parametrize("damage", ["", STORE[:20], "{}", "[]", '{"server": null}'])
def test_a_damaged_store_is_restored(layout: Layout, damage: str) -> None:
    for text in (STORE, damage):
        layout.acme_store.write_text(text)
        layout.acme_store.chmod(0o600)
        if text == damage:  # it may be just being written
            assert acme.keep_store(layout, running=True) == []
            os.utime(layout.acme_store, (0, time.time() - 60))
        said = acme.keep_store(layout, running=True)
    assert "was damaged; restored as of" in said[0]
    assert layout.acme_store.read_text() == STORE


def test_a_damaged_store_without_a_copy_is_set_aside(layout: Layout) -> None:
    layout.acme_store.write_text("{")
    layout.acme_store.chmod(0o600)
    assert "there is no copy; set aside" in acme.keep_store(layout, running=False)[0]
    assert [path.name for path in layout.acme.iterdir()] == ["acme.json.damaged"]


def test_a_store_that_others_can_read_is_fixed(layout: Layout) -> None:
    layout.acme_store.write_text(STORE)
    layout.acme_store.chmod(0o644)
    assert "had mode 644" in acme.keep_store(layout, running=False)[0]
    assert layout.acme_store.stat().st_mode & 0o777 == 0o600


def test_root_follows_no_link_that_the_proxy_has_made(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "shadow").write_text(STORE)
    layout.acme_store.symlink_to(tmp_path / "shadow")
    assert "Too many levels of symbolic links" in acme.keep_store(layout, running=False)[0]
    layout.acme_store.unlink()
    os.link(tmp_path / "shadow", layout.acme_store)
    assert "has other names" in acme.keep_store(layout, running=False)[0]
    assert not layout.acme_copy.exists()


def test_the_names_in_a_store() -> None:
    domains = [
        {"main": "a.example.org"},
        {"main": "b.example.org", "sans": ["*.c.example.org"]},
        {"main": "d", "sans": None},
    ]
    certificates = [{"domain": domain} for domain in domains]
    store = {"ca": {"Account": {}, "Certificates": certificates}, "other": {"Certificates": None}}
    assert acme.stored_names(json.dumps(store), "ca") == ["a.example.org", "b.example.org", "*.c.example.org", "d"]
    for text in (json.dumps(store), STORE, "", "{", "[]", '{"other": null}', '{"other": {"Certificates": [{}]}}'):
        assert acme.stored_names(text, "other") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_credentials_are_for_root_alone(layout: Layout) -> None:
    assert acme.check_environment(layout) == []
    layout.config.mkdir()
    layout.acme_environment.write_text("TOKEN=secret\n")
    layout.acme_environment.chmod(0o644)
    assert "is not root's alone" in acme.check_environment(layout)[0]
    layout.acme_environment.chmod(0o600)
    assert acme.check_environment(layout) == []
    os.chown(layout.acme_environment, 33, 33)
    assert "is not root's alone" in acme.check_environment(layout)[0]
