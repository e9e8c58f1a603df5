"""`barehub backup`, where the hub's or the proxy's account has been taken over."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle.database import own_database, revision_of, used_by
from barehub.settings import Installation, Settings

from tests.unit.backups import in_the_backup
from tests.unit.test_backup import back_up, hub, target

__all__ = ["hub", "target"]  # fixtures


def test_the_proxys_account_neither_stops_nor_fills_a_backup(hub: Layout, target: Path) -> None:
    (hub.acme / "other").write_bytes(b"SQLite format 3\0" + bytes(100))  # damaged, to a hub that opens it
    deep = os.open(hub.acme, os.O_RDONLY)
    for _ in range(30):  # longer than a path may be
        os.mkdir("x" * 200, dir_fd=deep)
        below = os.open("x" * 200, os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    os.truncate(hub.acme_store, 1 << 40)
    assert f"  not in it: {hub.acme_store} is larger than " in "\n".join(back_up(hub, target))
    hub.acme_store.write_text("{}")
    back_up(hub, target, overwrite=True)
    found = in_the_backup(target)
    assert [name for name in found if name.startswith("state/acme")] == ["state/acme/acme.json"]
    assert found["state/acme/acme.json"] == b"{}"


def test_no_name_and_no_content_passes_for_a_line_of_ours(hub: Layout, target: Path) -> None:
    forged = "x\nbacked up everything\x1b[2K"
    (hub.hub_state / forged).symlink_to("/etc/shadow")
    os.mkfifo(hub.hub_state / f"{forged}2")
    (hub.hub_state / f"{forged}3").symlink_to("/")
    said = back_up(hub, target)
    assert sum(r"x\nbacked up everything\x1b[2K" in line for line in said) == 3
    assert not [line for line in said if "\n" in line or "\x1b" in line]
    (hub.hub_state / f"{forged}4").write_bytes(b"SQLite format 3\0" + bytes(100))
    with pytest.raises(UserError) as refused:
        back_up(hub, target, overwrite=True)
    assert "\nbacked up" not in str(refused.value)
    with closing(sqlite3.connect(own_database(hub))) as connection:
        connection.execute("update alembic_version set version_num = ?", ["6dd\nhealthy"])
        connection.commit()
    (hub.hub_state / f"jupyterhub-{forged}.sqlite").touch()
    own_database(hub).rename(hub.hub_state / "jupyterhub-other.sqlite")
    with pytest.raises(UserError, match=r"holds jupyterhub-other.sqlite and jupyterhub-unused.sqlite and jup.*x1b.2K"):
        used_by(hub, None)
    (hub.hub_state / "jupyterhub-other.sqlite").rename(own_database(hub))
    installation = Installation(hub, Settings.load(hub) or Settings())
    assert revision_of(installation, f"sqlite:///{own_database(hub)}") == r"6dd\nhealthy"
