"""barehub.layout: which installation an interpreter belongs to, and which of its releases are complete."""

import sys

import pytest
from barehub.errors import UserError
from barehub.layout import Layout

from tests.unit.installations import NEW, OLD, make_release


def test_a_release_finds_its_own_base(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BAREHUB_BASE", raising=False)
    layout.hub.symlink_to(f"releases/{NEW}")
    monkeypatch.setattr(sys, "prefix", str(layout.hub))  # as `hub/bin/python` sees it
    assert Layout.from_environment().base == layout.base
    monkeypatch.setattr(sys, "prefix", "/usr")
    with pytest.raises(UserError, match="/usr is not a barehub release"):
        Layout.from_environment()
    monkeypatch.setenv("BAREHUB_BASE", "/opt/other")
    assert str(Layout.from_environment().base) == "/opt/other"


def test_a_release_without_a_receipt_is_not_complete(layout: Layout) -> None:
    make_release(layout, NEW)
    make_release(layout, OLD)
    layout.release("2026.12.01").mkdir()
    assert layout.complete == [OLD, NEW]
    assert layout.active is None
    layout.hub.symlink_to(f"releases/{OLD}")
    assert layout.active == OLD
    layout.receipt(NEW).write_text('{"name": "site"}')
    assert (layout.distribution(OLD), layout.distribution(NEW)) == ("barehub", "site")
