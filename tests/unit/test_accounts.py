"""barehub.accounts: which account the proxy gets, and how one is created."""

from pathlib import Path

import pytest
from barehub import accounts
from barehub.errors import Exit, UserError

from tests.unit.installations import fake_command

UNKNOWN = "barehub-no-such-account"


def test_an_account_is_created_once_without_a_home_or_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_command(tmp_path / "bin", "useradd", "", monkeypatch)
    assert accounts.create_account(UNKNOWN)
    (call,) = calls.read_text().splitlines()
    assert call.endswith(f" {UNKNOWN}")
    assert {"--system", "--no-create-home", "--shell=/usr/sbin/nologin"} <= set(call.split())
    assert not accounts.create_account("root")


def test_without_useradd_an_account_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no useradd") as caught:
        accounts.create_account(UNKNOWN)
    assert caught.value.code == Exit.USAGE
    assert "--proxy-user" in caught.value.fix


def test_an_account_that_does_not_exist_has_no_ids() -> None:
    assert accounts.ids("root") == (0, 0)
    with pytest.raises(UserError, match=f"there is no account {UNKNOWN}"):
        accounts.ids(UNKNOWN)


def test_only_an_account_that_exists_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_command(tmp_path / "bin", "userdel", "", monkeypatch)
    accounts.remove_account(UNKNOWN)
    assert calls.read_text() == ""
    accounts.remove_account("nobody")
    assert calls.read_text() == "nobody\n"
