"""`barehub backup`, where the proxy's account has been taken over: it can neither stop nor fill a backup."""

import os
from pathlib import Path

from barehub.layout import Layout

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
