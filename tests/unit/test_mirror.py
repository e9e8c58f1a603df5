"""construct.mirror: what it refuses; tests/unit/test_index.py has the merging, tests/e2e/ the whole."""

import platform
import subprocess
from pathlib import Path

import pytest

from construct.lock import lock_environment
from construct.mirror import exclusive, mirror
from recipe import pins
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.lock_file import Lock
from recipe.overlay import Stack
from tests.unit.channels import FORGE, write_channel, write_repository
from tests.unit.wheels import make


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A repository with a lock of the channel `forge`, whose tools are one wheel that pip finds without a network."""
    stack = Stack(write_repository(tmp_path / "repository"))
    (tmp_path / "index").mkdir()
    tool = make(tmp_path / "index", "tool")
    (stack.root / "recipe/tools.txt").write_text(f"tool==1.0 --hash=sha256:{tool.sha256}\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    lock_environment(stack, "linux-64", (), None, [str(write_channel(tmp_path / "forge", FORGE))])
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


def test_a_mirror_of_channels_has_what_makes_a_venv_without_a_network(
    tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tools' wheels, which pip takes with their hashes; the interpreter, as far as it has been fetched."""
    archive = tmp_path / "cpython-3.12.1+1-x86_64.tar.gz"
    archive.write_bytes(b"python")
    pinned = tmp_path / "python.txt"
    pinned.write_text(f"{platform.machine()} {archive.name} {file_sha256(archive)}\n")
    monkeypatch.setenv("BAREHUB_PYTHON_PINS", str(pinned))
    (stack.root / ".cache/python").mkdir()
    archive.rename(stack.root / ".cache/python" / archive.name)
    mirror(stack, None, [str(tmp_path / "forge")], tmp_path / "mirror")
    assert (tmp_path / "mirror/python" / archive.name).read_bytes() == b"python"
    assert [path.name for path in (tmp_path / "mirror/wheels").glob("*.whl")] == ["tool-1.0-py3-none-any.whl"]
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "mirror/wheels", check=True)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "mirror/wheels"))
    pins.download(stack.root / "recipe/tools.txt", tmp_path / "tools", "3.12")
    assert (tmp_path / "tools/tool-1.0-py3-none-any.whl").is_file()


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
