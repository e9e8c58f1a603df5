"""Every path in the layout that another account can make is a trap, of each kind: root's commands work, or refuse.

A path that is added to the layout below the hub's or the proxy's directories is among these at once.
"""

import os
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.lifecycle import backup, changes, directories
from barehub.lifecycle.servers import read_token
from barehub.lifecycle.uninstall import uninstall
from barehub.metrics import exposition
from barehub.proxy_unit import acme
from barehub.proxy_unit.pages import Pages
from barehub.proxy_unit.readiness import read
from barehub.rules import read_routes
from barehub.settings import Installation, Settings
from barehub.status import check, text
from barehub.untrusted import LIMIT

from tests.unit.backups import hub_at_work
from tests.unit.installations import NEW
from tests.unit.test_untrusted import NOBODY, SECRET, TRAPS, Trap, secret

__all__ = ["secret"]  # a fixture

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes directories of other accounts")


def of_others(layout: Layout) -> list[Path]:
    """The paths of the layout that are below a directory of the hub's or the proxy's account, the deepest first."""
    names = [name for name, value in vars(Layout).items() if isinstance(value, property)]
    paths = [path for name in names if isinstance(path := getattr(layout, name), Path)]
    theirs = (layout.hub_state, layout.rules, layout.acme)
    found = [path for path in paths if any(one in path.parents for one in theirs)]
    return sorted(found, key=lambda path: -len(path.parts))


@pytest.fixture
def hub(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    new = hub_at_work(layout, NEW, tmp_path, monkeypatch)
    for path in (new.rules_staging, new.backups):
        path.mkdir(parents=True, exist_ok=True)
    return new


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Nothing waits: for a FIFO's other end, for example."""

    def give_up(*_: object) -> None:
        raise AssertionError("root waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_the_paths_are_these(layout: Layout) -> None:
    """If this fails, look at how root reads the new one: barehub.untrusted."""
    assert {path.name for path in of_others(layout)} == {
        "jupyterhub_cookie_secret", "traefik-api.json", "barehub-api-token", "backups", "rules.yaml", ".new", "logo",
        "acme.json",
    }  # fmt: skip


def works(hub: Layout, target: Path) -> list[Callable[[], object]]:
    """What root runs, or what of it reads there."""
    installation = Installation(hub, Settings.load(hub) or Settings())
    return [
        lambda: text(status := check(hub)) + exposition(status),
        lambda: read_token(hub),
        lambda: read_routes(hub.rules_file),
        lambda: acme.keep_store(hub, running=True),
        lambda: read(hub.acme_store),
        lambda: Pages(hub).logo,
        lambda: changes.observe(installation, managed=False),
        lambda: directories.ensure_directories(installation),
        lambda: backup.back_up(hub, target, overwrite=True, say=lambda _: None),
        lambda: uninstall(hub, sure=True, ask=lambda _: "yes", say=lambda _: None),
    ]


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("depth", [0, 1])
def test_root_works_or_refuses_whatever_is_there(
    hub: Layout, tmp_path: Path, secret: Path, trap: Trap, depth: int
) -> None:
    paths = of_others(hub)
    files = [path for path in paths if path.name == "logo" or path.suffix or "-" in path.name]
    for path in files if depth == 0 else [path for path in paths if path not in files]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        trap(path, secret)
        if path.is_file() and path.stat().st_size > 2 * LIMIT:  # enough here: a backup would copy all of it
            os.truncate(path, LIMIT + 1)
    for path in (hub.hub_state, hub.rules, hub.acme):
        os.chown(path, NOBODY, NOBODY)
    before = secret.stat()
    (tmp_path / "safe").mkdir()
    for work in works(hub, tmp_path / "safe/hub.tar"):
        said: object = ""
        try:
            said = work()
        except UserError as error:
            said = str(error)
        assert SECRET not in str(said)
    after = secret.stat()
    assert (secret.read_text(), after.st_mode, after.st_uid, after.st_gid) == (
        SECRET, before.st_mode, before.st_uid, before.st_gid,
    )  # fmt: skip
    with suppress(FileNotFoundError), tarfile.open(tmp_path / "safe/hub.tar") as tar:
        for member in tar:
            if file := tar.extractfile(member):
                assert SECRET.encode() not in file.read(1 << 20)
