"""The installer as a file: a script with a tar behind it, the same bytes for the same input, and what it prints."""

import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from construct.build import release_label
from construct.contents import read_header
from construct.installer import HEADER_BYTES, render_header, write_installer
from recipe.errors import UserError
from tests.unit.installers import EMPTY_INDEX, MOMENT, NUMBERS, refused, run, write


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    return write(tmp_path)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path)
    before = hashlib.sha256(first.read_bytes()).hexdigest()
    payload = tmp_path / "payload"
    for path in payload.rglob("*"):
        os.utime(path, (1, 1))
    write_installer(first, payload, NUMBERS, MOMENT)
    assert hashlib.sha256(first.read_bytes()).hexdigest() == before


def test_a_comment_of_the_header_tells_size_and_hash_to_verify(installer: Path) -> None:
    data = installer.read_bytes()
    sha256 = hashlib.sha256(data[HEADER_BYTES:]).hexdigest()
    with installer.open("rb") as file:
        assert read_header(installer, file) == (len(data), sha256)
    line = f"\n# file_bytes={len(data)} payload_sha256={sha256}\n".encode()
    assert data.count(line) == 1
    installer.write_bytes(data.replace(line, b"\n"))
    with installer.open("rb") as file, pytest.raises(UserError, match="is not an installer that"):
        read_header(installer, file)


@pytest.mark.parametrize("where", ["umask 022", "is damaged", "# exit status", "header_sha256=", "\nmain", "\n\n\n"])
def test_one_changed_byte_of_the_header_is_noticed(installer: Path, where: str) -> None:
    data = bytearray(installer.read_bytes())
    place = bytes(data[:HEADER_BYTES]).find(where.encode())
    assert place > 0
    data[place + len(where) - 1] ^= 1
    installer.write_bytes(data)
    done = run(installer, "--verify")
    assert done.returncode != 0
    with installer.open("rb") as file, pytest.raises(UserError, match=r"script, was changed|is not an installer"):
        read_header(installer, file)


def test_a_placeholder_without_a_value_is_a_bug() -> None:
    with pytest.raises(KeyError):
        render_header({})


@pytest.mark.parametrize("label", ["2026.11.24", "2026.02.28.1", "2026.11.24.12"])
def test_release_labels(label: str) -> None:
    assert release_label(label) == label


@pytest.mark.parametrize("label", ["2026.11.31", "2026.1.1", "26.11.24", "2026.11.24.0", "2026.11.24-1", ""])
def test_other_labels_are_refused(label: str) -> None:
    with pytest.raises(UserError, match="is not a release date"):
        release_label(label)


def test_it_tells_what_it_holds_and_installs_nothing(installer: Path, tmp_path: Path) -> None:
    assert "is intact" in run(installer, "--verify").stdout
    assert run(installer, "--list").stdout == "one 1.0\n"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    refused(run(installer, "--extract", str(tmp_path / "other")), 2, "is not empty and no channel")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["file"]
    target = tmp_path / "mirror"
    for _ in range(2):
        assert run(installer, "--extract", str(target)).returncode == 0
        assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=target, check=False).returncode == 0
        assert sorted(path.name for path in target.iterdir()) == ["SHA256SUMS", "linux-64", "noarch", "releases"]
        assert (target / "noarch/repodata.json").read_text() == EMPTY_INDEX
    lock = target / "releases/barehub-2026.11.24/environment.lock.yml"
    assert lock.read_text() == "channels:\n  - ../..\n"
    with installer.open("rb") as file:
        file.seek(HEADER_BYTES)
        with tarfile.open(fileobj=file) as tar:
            assert "channel/linux-64/random.conda" in tar.getnames()
