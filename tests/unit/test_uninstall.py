"""barehub.lifecycle.uninstall: all of it goes, and only when that is meant."""

import fcntl
import os

import pytest
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.lifecycle.uninstall import uninstall

from tests.unit.installations import ME


def test_base_is_removed_with_all_its_state(layout: Layout) -> None:
    ME.save(layout)
    outside = layout.base.with_name("outside")
    outside.mkdir()
    (outside / "file").touch()
    (layout.base / "link").symlink_to(outside)
    said: list[str] = []
    uninstall(layout, sure=True, ask=pytest.fail, say=said.append)
    assert not layout.base.exists()
    assert (outside / "file").exists()
    assert said[-1] == f"{layout.base} is gone"


@pytest.mark.parametrize("answer", ["", "no", "yep"])
def test_anything_but_yes_removes_nothing(layout: Layout, answer: str) -> None:
    ME.save(layout)
    with pytest.raises(UserError, match="nothing was removed") as caught:
        uninstall(layout, sure=False, ask=lambda _: answer, say=lambda _: None)
    assert caught.value.code == Exit.USAGE
    assert layout.record.exists()
    uninstall(layout, sure=False, ask=lambda _: "Yes ", say=lambda _: None)
    assert not layout.base.exists()


def test_a_directory_that_is_no_barehub_is_left_alone(layout: Layout) -> None:
    with pytest.raises(UserError, match="holds no barehub") as caught:
        uninstall(layout, sure=True, ask=pytest.fail, say=lambda _: None)
    assert caught.value.code == Exit.BASE
    assert layout.config.exists()


def test_nothing_is_removed_while_an_installer_works(layout: Layout) -> None:
    ME.save(layout)
    descriptor = os.open(layout.base / ".lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="an installer is at work"):
        uninstall(layout, sure=True, ask=pytest.fail, say=lambda _: None)
    os.close(descriptor)
    assert layout.record.exists()
