"""barehub.settings: the record of an install's options."""

import pytest
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.settings import Installation, Settings

from tests.unit.installations import ME


def test_settings_are_kept(layout: Layout) -> None:
    assert Settings.load(layout) is None
    assert ME.save(layout)
    assert not ME.save(layout)
    assert Settings.load(layout) == ME


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "nmae": "x"}', '{"schema": 2, "name": "x"}'])
def test_damaged_settings_are_an_error_with_a_cure(layout: Layout, text: str) -> None:
    layout.record.write_text(text)
    with pytest.raises(UserError) as caught:
        Settings.load(layout)
    assert caught.value.fix
    assert caught.value.code == Exit.BASE


def test_a_directory_without_a_record_is_no_installation(layout: Layout) -> None:
    with pytest.raises(UserError, match="holds no barehub") as caught:
        Installation.load(layout, fix="name another directory")
    assert (caught.value.code, caught.value.fix) == (Exit.BASE, "name another directory")
    ME.save(layout)
    assert Installation.load(layout, fix="") == Installation(layout, ME)
