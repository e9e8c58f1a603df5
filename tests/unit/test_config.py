"""barehub.config: the configuration files, their order, and the message about a mistake."""

import logging
import shutil
from pathlib import Path

import pytest
from barehub import config
from barehub.config import ConfigError, config_files, load_files, masked_files
from barehub.health import Endpoints
from barehub.layout import Layout
from barehub.lifecycle.database import own_database
from jupyterhub.app import JupyterHub
from traitlets.config import Config

from tests.unit.installations import SHARE, belongs_to
from tests.unit.proxies import REPOSITORY

EXAMPLES = [
    path
    for folder in ("post_install/data/share/barehub", "construct/overlays/*")
    for path in sorted(REPOSITORY.glob(f"{folder}/examples/50-*.py"))
]


def test_files_of_both_directories_are_loaded_by_name_and_base_masks_the_release(layout: Layout) -> None:
    release = layout.share / "jupyterhub_config.d"
    for path in (release / "10-a.py", release / "30-c.py", layout.config / "20-b.py", layout.config / "30-c.py"):
        path.write_text(f"c.Seen.setdefault('order', []).append({path.parent.parent.name + '/' + path.name!r})\n")
    (layout.config / "README").write_text("not Python")
    loaded = Config()
    load_files(layout, loaded, lambda *_: None)
    assert loaded.Seen.order == ["barehub/10-a.py", "base/20-b.py", "base/30-c.py"]
    assert masked_files(layout) == [release / "30-c.py"]
    assert config_files(layout)[-1] == layout.config / "30-c.py"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("c.A.b = 1\nc.A.b = (\n", r"50-site\.py, line 2: SyntaxError: '\(' was never closed"),
        ("import os\n\nc.A.b = undefined\n", r"50-site\.py, line 3: NameError: name 'undefined' is not defined"),
        ("import json\njson.loads('{')\n", r"50-site\.py, line 2: json\.decoder\.JSONDecodeError"),
        (b"c.A.b = '\xff'\n", r"50-site\.py.*: SyntaxError"),
    ],
)
def test_a_mistake_is_reported_with_file_and_line(layout: Layout, text: str | bytes, complaint: str) -> None:
    (layout.config / "50-site.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_files(layout, Config(), lambda *_: None)
    assert str(caught.value).startswith(str(layout.config))


def test_the_base_configuration_loads_into_jupyterhub(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SHARE, layout.share, dirs_exist_ok=True)
    belongs_to(layout, monkeypatch)
    (layout.config / "50-site.py").write_text('c.JupyterHub.bind_url = "http://127.0.0.1:1234/base/"\n')
    hub = config.load_hub(layout)
    assert hub.db_url == f"sqlite:///{own_database(layout)}"
    assert hub.cleanup_servers is False
    endpoints = Endpoints.of(hub)
    assert endpoints.public == "http://127.0.0.1:1234/base/"
    assert endpoints.hub == "http://127.0.0.1:8081/base/hub/health"
    (layout.config / "50-site.py").write_text('c.JupyterHub.hub_port = "eight"\n')
    with pytest.raises(ConfigError, match="hub_port"):
        config.load_hub(layout)


@pytest.mark.parametrize("example", ["50-pam-users.py", "60-idle-culler.py"])
def test_the_examples_load(layout: Layout, example: str) -> None:
    shutil.copyfile(SHARE / "examples" / example, layout.config / example)
    load_files(layout, Config(), lambda *_: None)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_no_example_lets_root_in(layout: Layout, example: Path) -> None:
    shutil.copyfile(example, layout.config / example.name)
    loaded = Config()
    load_files(layout, loaded, lambda *_: None)
    assert loaded.Authenticator.allow_all is True
    assert loaded.Authenticator.blocked_users == {"root"}


def test_no_line_of_the_log_does_anything_to_a_terminal(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`/hub/api/users/%1b%5b31m` is answered 403, and logged."""
    monkeypatch.setattr(logging, "_logRecordFactory", logging.getLogRecordFactory())  # restored afterwards
    belongs_to(layout, monkeypatch)
    JupyterHub().load_config_file(str(SHARE / "jupyterhub_config.py"))
    logging.getLogger("any").warning("not authorized: user=%s", "\x1b[31mx\r\n[I JupyterHub] \u202eada")
    assert caplog.messages == ["not authorized: user=\\x1b[31mx\\r\n[I JupyterHub] \\u202eada"]


def test_the_cullers_example_and_other_files_add_to_the_same_lists(layout: Layout) -> None:
    shutil.copyfile(SHARE / "examples/60-idle-culler.py", layout.config / "60-idle-culler.py")
    for name in ("50-mine.py", "70-mine.py"):
        text = f'c.JupyterHub.services.append({{"name": "{name}", "url": "http://127.0.0.1:9"}})\n'
        (layout.config / name).write_text(text)
    traits = Config()
    load_files(layout, traits, lambda *_: None)
    hub = JupyterHub(config=traits)
    assert [service["name"] for service in hub.services] == ["50-mine.py", "idle-culler", "70-mine.py"]
    assert [role["name"] for role in hub.load_roles] == ["idle-culler"]


def test_a_mistake_has_one_place(layout: Layout) -> None:
    file = layout.config / "50-mine.py"
    file.write_text("\nc.JupyterHub.authenticator_class = 'none'\n")
    what = "the 'authenticator_class' trait refuses it"
    assert config.located(layout, what) == f"{file}, line 2: {what}"
    assert config.located(layout, f"{file}, line 2: {what}") == f"{file}, line 2: {what}"
