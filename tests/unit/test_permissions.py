"""barehub.permissions: who can read what, and who can change what the hub runs."""

from dataclasses import replace
from pathlib import Path

import pytest
from barehub import permissions
from barehub.errors import UserError, printable, render
from barehub.layout import Layout
from barehub.settings import Installation

from tests.unit.installations import ME

SECRETS = (
    'c.GenericOAuthenticator.client_secret = "s3cr3t"',
    "c.LDAPAuthenticator.lookup_dn_user_password = 'x'",
    'c.JupyterHub.services = [{"name": "x", "api_token": "0123"}]',
    'c.JupyterHub.db_url = "postgresql://hub:pass@db.example.org/hub"',
    'os.environ["JUPYTERHUB_CRYPT_KEY"] = token = "aaaa"',
)
NONE = (
    'c.JupyterHub.db_url = "postgresql:///hub"',
    '# c.GenericOAuthenticator.client_secret = "s3cr3t"',
    'c.Authenticator.admin_users = {"tokenmaster"}',
    "c.LDAPAuthenticator.lookup_dn_user_password = open('/etc/ldap.secret').read()",
    'c.JupyterHub.bind_url = "http://[::1]:8000"',
)


@pytest.fixture
def config(layout: Layout) -> Path:
    """A file of the configuration. pytest's own directories are closed, so only the last one counts here."""
    layout.config.chmod(0o755)
    path = layout.config / "50-site.py"
    path.touch(mode=0o644)
    return path


def warnings(layout: Layout) -> list[str]:
    return permissions.warnings(Installation(layout, replace(ME, hub_user="root")))


@pytest.mark.parametrize("line", SECRETS)
def test_a_secret_that_everybody_can_read(
    layout: Layout, config: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    config.write_text(f"import os\n{line}\n")
    monkeypatch.setattr(permissions, "everybody_reads", lambda path: path.stat().st_mode & 0o004)
    [warning] = warnings(layout)
    assert warning.startswith(f"everybody can read {config}, and it seems to hold a secret: chown root:root {config};")
    assert "s3cr3t" not in warning
    config.chmod(0o640)
    assert warnings(layout) == []


@pytest.mark.parametrize("line", NONE)
def test_what_is_no_secret(layout: Layout, config: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    config.write_text(line)
    monkeypatch.setattr(permissions, "everybody_reads", lambda path: True)
    assert warnings(layout) == []


def test_a_closed_directory_protects_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o750)
    (tmp_path / "closed/key.pem").touch(mode=0o644)
    (tmp_path / "closed/key.pem").chmod(0o644)
    assert permissions.exposed_key(str(tmp_path / "closed/key.pem")) == []
    assert permissions.exposed_key("/etc/passwd") == [
        "everybody can read /etc/passwd: chmod 600 /etc/passwd, and consider a new key"
    ]
    assert permissions.exposed_key("") == permissions.exposed_key("/nowhere") == []


def test_what_others_wrote_does_nothing_to_a_terminal() -> None:
    assert printable("a\x1b]0;owned\x07\u202eb\x9b\udcff é 漢", keep="") == r"a\x1b]0;owned\x07\u202eb\x9b\udcff é 漢"
    assert printable("two\nlines\r") == "two\nlines\\r"
    assert printable("x\nerror: forged", keep="") == r"x\nerror: forged"
    assert render(UserError("no \x1b[31m", "\x07")) == "error: no \\x1b[31m\n  fix: \\x07"
