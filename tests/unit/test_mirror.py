"""construct.mirror: what it refuses; tests/unit/test_index.py has the merging, tests/e2e/ the whole."""

from pathlib import Path

import pytest

from construct.lock import lock_from_channels
from construct.mirror import exclusive, mirror
from recipe.errors import UserError
from recipe.lock_file import Lock
from recipe.overlay import Stack
from tests.unit.channels import FORGE, write_channel, write_repository


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """A repository with a lock of the channel `forge`."""
    stack = Stack(write_repository(tmp_path / "repository"))
    lock_from_channels(stack, "linux-64", (), None, [str(write_channel(tmp_path / "forge", FORGE))])
    return stack


def test_a_mirror_holds_each_locked_package_and_running_it_twice_changes_nothing(tmp_path: Path, stack: Stack) -> None:
    directory = tmp_path / "mirror"
    seen = []
    for _ in range(2):
        mirror(stack, None, [str(tmp_path / "forge")], directory)
        seen.append({path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()})
    assert seen[0] == seen[1]
    names = {path.name for path in directory.glob("linux-64/*.conda")}
    lines = Lock.read(stack.lock_for("linux-64")).lines.values()
    assert names == {f"{line.archive_stem}.conda" for line in lines}
    assert [path.name.partition("-")[0] for path in directory.glob("noarch/*.conda")] == ["barehub"]


def test_a_directory_with_other_files_is_refused(tmp_path: Path, stack: Stack) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/file").touch()
    with pytest.raises(UserError, match="neither empty nor a channel"):
        mirror(stack, None, [str(tmp_path / "forge")], tmp_path / "mirror")


def test_two_do_not_add_to_one_channel_at_the_same_time(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(UserError, match="another process is adding"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass
