"""Whatever another account puts where root reads: root neither follows it, waits for it, believes it, nor gives up."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from barehub import untrusted
from barehub.accounts import current_user
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle.servers import Api, ensure_token, read_token, wait_for_starting
from barehub.listeners import Owner
from barehub.proxy import api_credentials
from barehub.proxy_unit import acme
from barehub.proxy_unit.certificates import expiry_of
from barehub.proxy_unit.readiness import read
from barehub.proxy_unit.renewal import Source
from barehub.rules import RulesFile, read_routes
from barehub.untrusted import UntrustedError

from tests.unit.installations import answering

SECRET = "root:a secret of root's, on one line"
NOBODY = 65534


def link(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def hard_link(path: Path, secret: Path) -> None:
    os.link(secret, path)


def fifo(path: Path, secret: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, secret: Path) -> None:
    (path / "in").mkdir(parents=True)


def sparse(path: Path, secret: Path) -> None:
    path.touch()
    os.truncate(path, 6 << 30)


def someone_else(path: Path, secret: Path) -> None:
    path.write_text("0" * 64)
    os.chown(path, NOBODY - 1, NOBODY - 1)


def nested(path: Path, secret: Path) -> None:
    path.write_text("[" * 200_000)


def garbage(path: Path, secret: Path) -> None:
    path.write_bytes(os.urandom(5000))


def empty(path: Path, secret: Path) -> None:
    path.touch()


def cut(path: Path, secret: Path) -> None:
    path.write_text('{"jupyterhub": "{\\"routes\\": {')


def incomplete(path: Path, secret: Path) -> None:
    path.write_text('{"jupyterhub": "{\\"routes\\": {\\"a\\": {}}}"}')


TRAPS = (link, hard_link, fifo, directory, sparse, someone_else, nested, garbage, empty, cut, incomplete)
Trap = Callable[[Path, Path], None]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    return tmp_path / "secret"


@pytest.fixture
def installed(layout: Layout) -> Layout:
    """The directories of hub and proxy, which are theirs."""
    for path in (layout.hub_state, layout.rules, layout.acme, layout.proxy_state):
        path.mkdir(parents=True)
    if os.geteuid() == 0:
        for path in (layout.hub_state, layout.rules, layout.acme):
            os.chown(path, NOBODY, NOBODY)
    return layout


@pytest.fixture(params=TRAPS, ids=lambda trap: trap.__name__)
def trap(request: pytest.FixtureRequest, secret: Path) -> Iterator[Callable[[Path], None]]:
    """Put one of the traps at a path; afterwards the secret must be as it was."""
    before = secret.stat()
    made: list[Path] = []

    def put(path: Path) -> None:
        made.append(path)
        request.param(path, secret)

    if request.param is someone_else and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    yield put
    for path in made:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    after = secret.stat()
    assert (secret.read_text(), after.st_mode, after.st_uid) == (SECRET, before.st_mode, before.st_uid)


def test_the_token(installed: Layout, trap: Callable[[Path], None]) -> None:
    trap(installed.api_token)
    trap(installed.hub_state / ".barehub-api-token.new")
    assert read_token(installed) == ""
    ensure_token(installed, NOBODY, NOBODY)
    assert len(read_token(installed)) == 64
    assert SECRET not in installed.api_token.read_text()


def test_the_password_of_traefiks_api(installed: Layout, trap: Callable[[Path], None]) -> None:
    trap(installed.api_credentials)
    if not installed.api_credentials.is_dir():  # only the hub's account itself suffers from that
        password = api_credentials(installed.api_credentials)["password"]
        assert len(password) >= 32
        assert SECRET not in password


def test_the_rules(installed: Layout, trap: Callable[[Path], None]) -> None:
    trap(installed.rules_file)
    with pytest.raises(UntrustedError):
        read_routes(installed.rules_file)
    said: list[str] = []
    page = {"items": [], "_pagination": {"next": None}}
    with answering({"/hub/api/users?state=active&limit=200&offset=0": page}) as port:
        assert (
            wait_for_starting(
                installed,
                Api(f"http://127.0.0.1:{port}/hub/api/", "x", Owner("no-such.service", current_user())),
                0,
                said.append,
            )
            == []
        )
    assert str(installed.rules_file) in said[0]
    assert SECRET not in said[0]
    assert RulesFile(installed.rules_file, logging.getLogger("test")).load() == {}  # set aside
    assert read_routes(installed.rules_file) == {}


@pytest.mark.parametrize("name", ["acme.json", ".acme.json.new", "acme.json.damaged"])
def test_the_store(installed: Layout, trap: Callable[[Path], None], name: str) -> None:
    installed.acme_copy.write_text('{"r": {"Account": {"x": 1}}}')
    if name != "acme.json":
        installed.acme_store.write_text("damaged")
    trap(installed.acme / name)
    for running in (True, False):
        for line in acme.keep_store(installed, running=running):
            assert SECRET not in line
    assert installed.acme_copy.read_text() == '{"r": {"Account": {"x": 1}}}'
    assert SECRET not in read(installed.acme_store)


def test_the_proxys_certificate(installed: Layout, trap: Callable[[Path], None]) -> None:
    trap(installed.certificate)
    assert expiry_of(installed.certificate) is None


def test_an_administrators_certificate(installed: Layout, trap: Callable[[Path], None], tmp_path: Path) -> None:
    source_path = tmp_path / "cert.pem"
    trap(source_path)
    source = Source(str(source_path), str(source_path))
    if source_path.is_file() and source_path.stat().st_size <= untrusted.LIMIT:  # a link too, as certbot's has to be
        assert source.read() == (source_path.read_bytes(), source_path.read_bytes())
    else:
        with pytest.raises(UserError, match=f"ssl_cert: {source_path} is "):
            source.read()


def test_an_owner_that_is_expected(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / "file").write_text("text")
    os.chown(tmp_path / "file", NOBODY, NOBODY)
    assert untrusted.read_text(tmp_path / "file", (NOBODY,)) == "text"
    with pytest.raises(UntrustedError, match="belongs to the account with the number 65534"):
        untrusted.read_text(tmp_path / "file", (NOBODY - 1,))


def test_a_new_store_is_not_damaged(installed: Layout) -> None:
    """traefik makes it empty and fills it when the authority has answered."""
    installed.acme_store.touch(0o600)
    os.utime(installed.acme_store, (0, 0))
    shutil.chown(installed.acme_store, installed.acme.stat().st_uid)
    assert acme.keep_store(installed, running=True) == []
    assert installed.acme_store.exists()
