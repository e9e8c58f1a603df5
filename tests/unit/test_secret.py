"""barehub.secret: secrets in files of their own."""

from pathlib import Path

import pytest
from barehub import permissions
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.secret import read_secret

from tests.unit.installations import ME


@pytest.fixture
def here(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAREHUB_BASE", str(layout.base))
    monkeypatch.setattr("barehub.secret.files_read", [])
    return layout.config


def test_a_secret_is_the_first_line(here: Path, tmp_path: Path) -> None:
    (here / "password").write_text("s3cr3t €\r\n\n")
    assert read_secret("password") == "s3cr3t €"
    (tmp_path / "elsewhere").write_text("other")
    assert read_secret(str(tmp_path / "elsewhere")) == "other"


def test_a_secret_that_is_not_there_says_where_it_belongs(here: Path) -> None:
    (here / "empty").write_text("\nx")
    (here / "binary").write_bytes(b"\xff\xfe")
    for name, why in (
        ("missing", "No such file"),
        ("empty", "is empty"),
        ("binary", "it is no text"),
        ("", "directory"),
    ):
        with pytest.raises(UserError, match=why) as refused:
            read_secret(name)
        assert f"chmod 640 {here / name}" in refused.value.fix


def test_a_secret_that_everybody_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "everybody_reads", lambda path: path.stat().st_mode & 0o004)
    path = tmp_path / "password"
    path.write_text("s3cr3t")
    path.chmod(0o644)
    [warning] = permissions.exposed_secrets([str(path)], ME)
    assert warning.startswith(f"everybody can read the secret {path}: chown root:root {path}; chmod 640 {path};")
    path.chmod(0o640)
    assert permissions.exposed_secrets([str(path)], ME) == []
