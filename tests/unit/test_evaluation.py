"""barehub.evaluation: the configuration as the hub's account sees it, and one line for whatever is wrong with it."""

import os
import pwd
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub import process
from barehub.config import ConfigError, config_files, explain, hidden_packages, refused
from barehub.errors import UserError
from barehub.evaluation import Evaluated, evaluate, evaluate_here, main
from barehub.layout import Layout
from barehub.settings import Settings

from tests.unit.installations import ME, refusal

OTHER = "daemon" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
SECONDS = 60.0


@pytest.fixture
def readable(layout: Layout) -> Iterator[Path]:
    """A directory that every account can reach, unlike pytest's own."""
    directory = Path("/tmp") / f"barehub-{os.getpid()}-packages"
    directory.mkdir(mode=0o755)
    yield directory
    shutil.rmtree(directory)


def said(layout: Layout, text: str) -> Evaluated:
    (layout.config / "50-site.py").write_text(text)
    return evaluate(layout, ME)


def as_other(work: object) -> str:
    return process.call_as(OTHER, lambda: str(work()), {"PATH": os.defpath}, SECONDS)  # type: ignore[operator]


def test_another_account_works_with_its_groups_and_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    with open(os.devnull) as ours:
        facts = as_other(
            lambda: (
                os.geteuid(),
                sorted(os.getgroups()),
                "SECRET" in os.environ,
                Path(f"/proc/self/fd/{ours.fileno()}").exists(),
            )
        )
    account = pwd.getpwnam(OTHER)
    groups = sorted(os.getgrouplist(OTHER, account.pw_gid)) if os.geteuid() == 0 else sorted(os.getgroups())
    assert facts == str((account.pw_uid, groups, False, False))


def test_what_ends_or_stops_the_child_ends_nothing_else() -> None:
    assert process.call_as(OTHER, lambda: os._exit(3), {}, SECONDS) == ""
    assert process.call_as(OTHER, lambda: sys.exit(3), {}, SECONDS) == ""
    assert process.call_as(OTHER, lambda: os.read(os.pipe()[0], 1).decode(), {}, 0.01) == ""


def test_an_account_that_does_not_exist_is_named() -> None:
    if os.geteuid() == 0:
        with pytest.raises(UserError, match="there is no account nobody-here"):
            process.call_as("nobody-here", str, {}, SECONDS)


def test_what_the_configuration_says_is_told(configured: Layout) -> None:
    found = said(
        configured,
        'c.JupyterHub.bind_url = "https://hub.example.org/lab/"\nc.JupyterHub.db_url = "sqlite:///x.sqlite"\n',
    )
    assert (found.endpoints.public, found.db_url) == ("https://hub.example.org/lab/", "sqlite:///x.sqlite")
    with pytest.raises(ConfigError, match="needs a certificate"):
        found.require_proxy()
    found = said(configured, "import os\nassert os.getcwd().endswith('state/hub')\nprint('text')\n")
    assert found.require_proxy().static["entryPoints"]["web"]["address"] == ":8000"
    files = ('"/a.pem"', '"/b.pem"')
    found = said(
        configured,
        'c.JupyterHub.bind_url = "https://hub.example.org"\n'
        f"c.JupyterHub.ssl_cert, c.JupyterHub.ssl_key = {', '.join(files)}\n",
    )
    source = found.require_proxy().source
    assert source
    assert (source.cert, source.names) == ("/a.pem", ("hub.example.org",))


def test_the_files_of_secrets_are_told_and_the_secrets_are_not(configured: Layout) -> None:
    (configured.config / "password").write_text("s3cr3t\n")
    found = said(configured, "from barehub.secret import read_secret\nassert read_secret('password') == 's3cr3t'\n")
    assert found.secrets == (f"{configured.config}/password",)
    assert "s3cr3t" not in str(found)


OFFERING = """\
from barehub.offering import OffersEnvironments
from jupyterhub.spawner import LocalProcessSpawner
class Mine(OffersEnvironments, LocalProcessSpawner): pass
c.JupyterHub.spawner_class = Mine
c.Mine.environments = {"Lab": ENVIRONMENT, "Other": "/opt/other"}
"""


def test_the_environments_that_a_spawner_offers_are_told(configured: Layout) -> None:
    assert said(configured, "").environments == {}
    found = said(configured, 'c.Spawner.cmd = ["/opt/jupyter/bin/jupyterhub-singleuser"]\n')
    assert found.environments == {"/opt/jupyter": "/opt/jupyter"}
    found = said(configured, OFFERING.replace("ENVIRONMENT", "'/lab/current'"))
    assert found.environments == {"Lab": "/lab/current", "Other": "/opt/other"}
    with pytest.raises(ConfigError, match=r"50-site\.py, line 5: .* 'lab/current' for 'Lab'.*an absolute path$"):
        said(configured, OFFERING.replace("ENVIRONMENT", "'lab/current'"))


# What is in the file -> what is said; each is one line.
MISTAKES = {
    "c.JupyterHub.hub_port = '8081'": "50-site.py, line 1: the configuration is refused: The 'hub_port' trait",
    "\nc.Authenticator.admin_users = 5": "50-site.py, line 2: the configuration is refused: The 'admin_users'",
    "c.Spawner.mem_limit = '2X'": "the configuration is refused: 2X is not a valid memory specification",
    "c.JupyterHub.authenticator_class = 'no.Such'": "50-site.py, line 1: the configuration is refused: The 'auth",
    "c.JupyterHub.internal_ssl = True": "50-site.py, line 1: c.JupyterHub.internal_ssl is not possible",
    "import sys\nsys.exit('no')": "50-site.py, line 2: SystemExit: no",
    "import os\nos._exit(0)": "ends the process that runs it",
    "c.JupyterHub.hub_bind_url = 'http+unix://%2Frun%2Fhub'": "50-site.py, line 1: c.JupyterHub.hub_bind_url is",
    "c.JupyterHub.hub_connect_url = 'unix:///run/hub'": "50-site.py, line 1: c.JupyterHub.hub_connect_url is",
    "c.JupyterHub.bind_url = 'http://:eight'": "bind_url",
    "c.JupyterHub.bind_url = 'http://[::1'": "50-site.py, line 1: c.JupyterHub.bind_url is",
    "c.JupyterHub.bind_url = 'http+unix://%2Frun%2Fx'": "50-site.py, line 1: c.JupyterHub.bind_url is",
    "c.JupyterHub.db_url = 5": "50-site.py, line 1: the configuration is refused: The 'db_url' trait",
    "raise RuntimeError": "50-site.py, line 1: RuntimeError",
    "from barehub.secret import read_secret\nread_secret('pw')": "50-site.py, line 2: the secret /",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_line_and_no_traceback(configured: Layout, text: str) -> None:
    assert MISTAKES[text] in refusal(lambda: said(configured, text))


# What JupyterHub takes and the proxy's part refuses, by name, while the hub's own part is known.
NOT_FOR_THE_PROXY = {
    "c.JupyterHub.proxy_class = 'jupyterhub.proxy.ConfigurableHTTPProxy'": "c.JupyterHub.proxy_class is Configurable",
    "c.JupyterHub.bind_url = 'https://x.example.org'\nc.JupyterHub.ssl_key = '/k'": "needs a certificate",
    "c.BarehubProxy.trusted_networks = ['10.0.0.1/8']": "10.0.0.1/8 has host bits set",
    "c.TraefikProxy.traefik_api_url = 'http://[::1'": "IPv6",
}


@pytest.mark.parametrize("text", NOT_FOR_THE_PROXY)
def test_what_the_proxy_cannot_do_is_told_apart(configured: Layout, text: str) -> None:
    found = said(configured, text)
    assert found.endpoints.hub == "http://127.0.0.1:8081/hub/health"
    assert NOT_FOR_THE_PROXY[text] in refusal(found.require_proxy)


@pytest.mark.parametrize(
    ("text", "hub"),
    [
        ("c.JupyterHub.hub_ip = '::1'", "http://[::1]:8081/hub/health"),
        ("c.JupyterHub.hub_bind_url = 'http://[::]:9000'", "http://127.0.0.1:9000/hub/health"),
        ("c.JupyterHub.hub_bind_url = 'http://127.0.0.1'", "http://127.0.0.1:80/hub/health"),
        ("c.JupyterHub.base_url = 'a'", "http://127.0.0.1:8081/a/hub/health"),
        ("c.JupyterHub.base_url = '/a/b'", "http://127.0.0.1:8081/a/b/hub/health"),
        ("c.JupyterHub.bind_url = 'http://[::1]:8000/x'", "http://127.0.0.1:8081/x/hub/health"),
        ("c.JupyterHub.db_url = 'old.sqlite'", "http://127.0.0.1:8081/hub/health"),
        ("c.JupyterHub.hub_connect_ip = 'node'", "http://127.0.0.1:8081/hub/health"),
    ],
)
def test_what_jupyterhub_takes_is_taken(configured: Layout, text: str, hub: str) -> None:
    found = said(configured, text)
    assert found.endpoints.hub == hub
    found.require_proxy()


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffc.JupyterHub.hub_port = 9000\r\n",
        "c.JupyterHub.hub_port = (\r\n    9000\r\n)\r\n",
        "c = get_config()\nc.JupyterHub.hub_port = 9000\n",
        "c = get_config()  # noqa\nc.JupyterHub.hub_port = 9000",
        "get_config().JupyterHub.hub_port = 9000",
        "# -*- coding: latin-1 -*-\nc.JupyterHub.hub_port = 9000",
    ],
)
def test_what_editors_and_older_configurations_do_is_taken(configured: Layout, text: str) -> None:
    with (configured.config / "50-site.py").open("w", newline="") as file:
        file.write(text)
    assert evaluate(configured, ME).endpoints.hub == "http://127.0.0.1:9000/hub/health"


def test_a_file_that_the_hubs_account_may_not_read_is_a_matter_of_permissions(layout: Layout, readable: Path) -> None:
    path = readable / "50-secret.py"
    path.write_text("c.A.b = 1\n")
    path.chmod(0)

    def tried() -> str:
        try:
            path.read_bytes()
        except PermissionError as error:
            return "\n".join(explain(path, error))
        return "it can be read"

    what, fix = as_other(tried).split("\n")
    assert what == f"{path} cannot be read by the account {OTHER}"
    assert f"chmod g+rX {path}" in fix


def test_a_directory_that_the_hubs_account_may_not_list_is_no_empty_one(layout: Layout, readable: Path) -> None:
    (readable / "jupyterhub_config.d").mkdir(mode=0o700)
    if os.geteuid() != 0:
        (readable / "jupyterhub_config.d").chmod(0)
    theirs = Layout(readable, prefix=readable / "none")
    with pytest.raises(ConfigError, match=f"jupyterhub_config.d cannot be read by the account {OTHER}"):
        raise ConfigError(as_other(lambda: caught(lambda: config_files(theirs))))


def caught(work: object) -> str:
    try:
        return str(work())  # type: ignore[operator]
    except UserError as error:
        return str(error)


def test_a_package_that_pip_made_for_root_alone_is_named_with_the_way_out(layout: Layout, readable: Path) -> None:
    package = readable / "site-packages/ldapauthenticator"
    package.mkdir(parents=True)
    package.chmod(0)

    theirs = Layout(readable, prefix=readable / "none")

    def tried() -> str:
        sys.path.append(str(package.parent))
        error = refused(theirs, "The 'authenticator_class' trait must be a type, but 'ldap' could not be imported")
        return f"{hidden_packages()}\n{error}\n{error.fix}"

    hidden, what, fix = as_other(tried).split("\n")
    assert str(package) in hidden
    assert "may not read" in what
    assert fix.startswith("chmod -R a+rX ")
    package.chmod(0o755)


def test_a_reload_prints_the_mistake_and_says_that_the_hub_goes_on(
    configured: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ME.save(configured)
    monkeypatch.setenv("BAREHUB_BASE", str(configured.base))
    (configured.config / "50-site.py").write_text("c.A.b = nothing\n")
    assert main() == 78
    assert "50-site.py, line 1: NameError" in (text := capsys.readouterr().err)
    assert "the hub goes on" in text
    (configured.config / "50-site.py").write_text("")
    assert main() == 0


def test_files_that_editors_and_packagers_leave_are_no_configuration(layout: Layout) -> None:
    (layout.config / "50-site.py").write_text("")
    for name in (
        "50-site.py~",
        ".50-site.py",
        "50-site.py.rpmsave",
        "50-site.py.dpkg-old",
        "#50-site.py#",
        "50-site.txt",
    ):
        (layout.config / name).write_text("never")
    (layout.config / ".#50-site.py").symlink_to("root@host.1:2")
    (layout.config / "60-dir.py").mkdir()
    os.mkfifo(layout.config / "70-pipe.py")
    assert config_files(layout) == [layout.config / "50-site.py"]
    (layout.config / "80-gone.py").symlink_to("/nowhere")  # this one is meant
    assert [path.name for path in config_files(layout)] == ["50-site.py", "80-gone.py"]


def test_the_settings_of_a_missing_record_are_the_defaults(configured: Layout) -> None:
    assert '"endpoints"' in process.call_as(
        Settings().hub_user, lambda: evaluate_here(configured), dict(os.environ), SECONDS
    )
