"""What an administrator tells people by a file: the HTML that comes of it, whose file it may be, and who is told."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from barehub import notices
from barehub.config import load_hub
from barehub.layout import Layout
from barehub.notices import Announcement, as_html
from barehub.status import check, text
from jinja2 import Environment, FileSystemLoader
from jupyterhub._data import DATA_FILES_PATH

from tests.unit.installations import NEW, make_active, make_release


@pytest.mark.parametrize(
    ("written", "html"),
    [
        ("", ""),
        (" \n\n ", ""),
        ("one\ntwo\n\n\nthree", "one<br>two<br><br>three"),
        ("a\r\n\r\nb", "a<br><br>b"),
        ("# Maintenance\n**Friday**, 8 to 9", "<strong>Maintenance</strong><br><strong>Friday</strong>, 8 to 9"),
        ("<script>alert('1')</script>", "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;"),
        ("[the <guide>](https://x.org/?a=1&b=2)", '<a href="https://x.org/?a=1&amp;b=2">the &lt;guide&gt;</a>'),
        ("see https://x.org/a.html.", 'see <a href="https://x.org/a.html">https://x.org/a.html</a>.'),
        ("[us](mailto:hpc@x.org) [form](/hub/spawn)",
         '<a href="mailto:hpc@x.org">us</a> <a href="/hub/spawn">form</a>'),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ('[x](https://x.org/" id="y)',
         '[x](<a href="https://x.org/">https://x.org/</a>&quot; id=&quot;y)'),
        ("**<b>** 2 ** 3 $HOME {{ 7 * 7 }}", "<strong>&lt;b&gt;</strong> 2 ** 3 $HOME {{ 7 * 7 }}"),
    ],
)  # fmt: skip
def test_marks_become_html_and_all_else_is_escaped(written: str, html: str) -> None:
    assert as_html(written) == html


def page(variables: dict[str, Any]) -> str:
    """JupyterHub's own template, as its handlers show it."""
    environment = Environment(loader=FileSystemLoader(Path(DATA_FILES_PATH, "templates")), autoescape=True)
    shown = {name: value("alice") if callable(value) else value for name, value in variables.items()}
    return environment.get_template("404.html").render(
        shown, static_url=lambda path, **_: path, base_url="/hub/", status_code=404, no_spawner_check=True
    )


@pytest.fixture
def installed(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    make_release(layout, NEW)
    make_active(layout, monkeypatch)
    return layout


@pytest.mark.parametrize(
    ("site", "before"),
    [
        ("", None),
        ("c.JupyterHub.template_vars = {'mine': 1}", None),
        ("c.JupyterHub.template_vars = {'announcement': '<b>ours</b>'}", "<b>ours</b>"),
        ("c.JupyterHub.template_vars.update({'announcement': '<b>ours</b>'})", "<b>ours</b>"),
        ("c.JupyterHub.template_vars = {'announcement': lambda user: f'<b>{user}</b>'}", "<b>alice</b>"),
    ],
)
def test_an_announcement_is_on_the_hubs_pages_as_long_as_its_file_is_there(
    installed: Layout, site: str, before: str | None
) -> None:
    (installed.config / "50-site.py").write_text(site)
    variables = load_hub(installed).template_vars
    box = 'class="container text-center announcement'

    def without_file() -> None:
        assert (box in page(variables)) == (before is not None)
        assert (before or "") in page(variables)

    without_file()
    installed.announcement.write_text("Down on **Friday** <i>")
    installed.announcement.chmod(0o644)
    assert "Down on <strong>Friday</strong> &lt;i&gt;" in page(variables)
    installed.announcement.write_text("Down on Monday")
    assert "Down on Monday" in page(variables)
    installed.announcement.unlink()
    without_file()
    assert variables.get("mine") == (1 if "mine" in site else None)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_what_others_can_change_is_not_shown_and_status_says_so(installed: Layout, mode: int) -> None:
    installed.announcement.write_text("Send me your password")
    installed.announcement.chmod(mode)
    assert not Announcement(installed)
    status = check(installed)
    assert status.notices == {"announcement": str(installed.announcement)}
    (warning,) = (one for one in status.warnings if "announcement.md" in one)
    assert warning.startswith(f"{installed.announcement} can be changed by other accounts, so it is not shown: ")
    assert warning.endswith(f"ls -l {installed.announcement}")


def test_a_link_is_not_followed_and_status_says_so(installed: Layout, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    installed.maintenance.symlink_to(tmp_path / "secret")
    assert notices.shown(installed.maintenance) == ""
    status = check(installed)
    assert f"maintenance  {installed.maintenance}\n" in text(status)
    assert any(one.startswith(f"{installed.maintenance} cannot be read") for one in status.warnings)
    assert not status.closed


@pytest.mark.parametrize("name", ["announcement", "maintenance", "maintenance_page"])
def test_what_is_too_large_is_not_shown_and_status_says_so(installed: Layout, name: str) -> None:
    path = getattr(installed, name)
    path.write_bytes(b"\xef\xbb\xbf" + b"\xff" * (notices.SIZE - 3))  # with a mark of Windows' editors, and no UTF-8
    path.chmod(0o644)
    assert notices.text_of(path) == "\ufffd" * (notices.SIZE - 3)
    assert f"{path}\n" in text(check(installed))
    path.write_bytes(b"x" * (notices.SIZE + 1))
    assert notices.shown(path) == notices.page(installed) == ""
    status = check(installed)
    assert any(one.startswith(f"{path} is larger than 256 KB, so it is not shown: ") for one in status.warnings)
    assert not status.closed


def test_a_page_of_the_sites_own_closes_the_hub_and_status_names_it(installed: Layout) -> None:
    installed.maintenance_page.touch(mode=0o644)
    assert f"maintenance page  {installed.maintenance_page}\n" in text(status := check(installed))
    assert status.closed


def test_what_the_hub_and_the_proxy_cannot_read_is_not_shown_and_status_says_so(installed: Layout) -> None:
    installed.maintenance.write_text("Back at 14:00")
    installed.maintenance.chmod(0o644)
    assert not any("maintenance" in one for one in check(installed).warnings)
    assert "the hub is open only to its administrators and the group maintenance" in text(check(installed))
    installed.maintenance.chmod(0o600)
    warned = any(one.endswith(f"chmod 644 {installed.maintenance}") for one in check(installed).warnings)
    assert warned == (os.geteuid() == 0)  # another account's hub and proxy are its own


def test_whether_it_is_there_depends_on_the_account_that_looks() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "maintenance.md")
        Path(directory).chmod(0o755)
        assert not notices.is_there_for("daemon", path)
        path.touch(mode=0o644)
        assert notices.is_there_for("daemon", path)
        path.chmod(0o600)
        root = os.geteuid() == 0  # who else cannot become another account
        assert notices.is_there_for("daemon", path) != root
        assert notices.is_there_for("no-such-account", path) != root
