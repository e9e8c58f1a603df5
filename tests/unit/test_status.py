"""barehub.status: what is wrong is named with a next step, and only then it is not healthy."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub.environments import hubs_version
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.lifecycle import database
from barehub.proxy_unit.static import as_text
from barehub.status import Status, check, show, text

from tests.unit.installations import NEW, OLD, answering, fake_command, make_active, make_database, make_release
from tests.unit.installers import give_by_acl
from tests.unit.test_environments import make_environment


@pytest.fixture
def installed(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """An installation whose hub and proxy answer."""
    make_release(layout, NEW)
    make_active(layout, monkeypatch)
    with answering({"/hub/health": {}}) as port, answering({"/hub/health": {}}) as hub_port:
        lines = (f'c.JupyterHub.bind_url = "http://127.0.0.1:{port}/"', f"c.JupyterHub.hub_port = {hub_port}")
        (layout.config / "50-site.py").write_text("\n".join(lines))
        yield layout


def test_an_installation_that_answers_is_healthy(installed: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    make_release(installed, OLD)
    make_database(database.own_database(installed), None)
    installed.backups.mkdir()
    installed.backup(OLD).touch()
    status = check(installed)
    assert status.problems == []
    assert (status.release, status.releases, status.hub, status.proxy) == (NEW, [OLD, NEW], 200, 200)
    assert status.database_revision == database.newest_revision()
    assert status.backups == [str(installed.backup(OLD))]
    assert show(status, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is True
    assert told["config"] == [str(installed.installer_config), str(installed.config / "50-site.py")]
    assert text(status).endswith("\nhealthy")
    assert f"also there  {OLD}\n" in text(status)


def test_no_installation_has_no_status(layout: Layout) -> None:
    with pytest.raises(UserError, match="holds no barehub") as caught:
        check(layout)
    assert caught.value.code == Exit.BASE


def test_a_hub_that_does_not_answer_is_a_problem(installed: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    with answering({}) as port:
        with (installed.config / "50-site.py").open("a") as file:
            file.write(f"\nc.JupyterHub.hub_port = {port}\n")
        problem = f"the hub answers 404 at http://127.0.0.1:{port}/hub/health"
        assert check(installed).problems == [problem]
    status = check(installed)
    assert status.problems == [problem.replace("answers 404", "does not answer")]
    assert show(status, as_json=False) == Exit.ERROR
    assert f"problem: {status.problems[0]}" in capsys.readouterr().out


def test_a_mistake_in_the_configuration_is_a_problem_with_its_line_and_hides_nothing_else(installed: Layout) -> None:
    make_database(database.own_database(installed), None)
    (installed.config / "60-wrong.py").write_text("\nc.A.b = undefined\n")
    with answering({}) as port:
        installed.static_config.write_text(
            as_text({"entryPoints": {"web": {"address": f"127.0.0.1:{port}", "http": {}}, "api": {"address": ":1"}}})
        )
        status = check(installed)
    (problem,) = status.problems
    assert problem.startswith(f"{installed.config}/60-wrong.py, line 2: NameError")
    assert (status.url, status.hub, status.proxy) == ("", None, 404)
    assert status.database_revision == database.newest_revision()
    rows = {line.split("  ")[0]: line.split("  ", 1)[-1].strip() for line in text(status).splitlines()}
    assert rows["url"] == "unknown: the configuration does not load"
    assert rows["hub"].startswith("unknown: ")
    assert rows["proxy"] == "answers 404"
    assert rows["database"].startswith(f"revision {database.newest_revision()}; unknown: the configuration may name")


def test_without_configuration_and_proxy_nothing_is_claimed(installed: Layout) -> None:
    (installed.config / "60-wrong.py").write_text("(")
    installed.static_config.unlink(missing_ok=True)
    shown = text(check(installed))
    assert "does not answer" not in shown
    assert "none yet" not in shown
    assert f"unknown: {installed.static_config}, which has its address, cannot be read" in shown


def test_a_damaged_record_is_a_problem_beside_which_the_rest_is_seen(installed: Layout) -> None:
    installed.record.write_text("{")
    status = check(installed)
    (problem,) = status.problems
    assert problem.startswith(f"{installed.record} is damaged")
    assert "delete" not in problem
    assert (status.hub, status.proxy) == (200, 200)
    assert "units" in status.unknown


def test_a_database_that_cannot_be_read_is_not_none_yet(installed: Layout) -> None:
    database.own_database(installed).write_text("no database at all")
    status = check(installed)
    assert status.database_revision is None
    assert "unknown: it cannot be read" in text(status)


def test_a_file_that_others_can_change_is_worth_a_warning(installed: Layout) -> None:
    (installed.config / "50-site.py").chmod(0o666)
    (warning,) = check(installed).warnings
    assert warning.endswith(f"chmod o-w {installed.config}/50-site.py")
    (installed.config / "50-site.py").chmod(0o644)
    give_by_acl(installed.config / "50-site.py", 65534)
    (warning,) = check(installed).warnings
    assert warning.endswith(f"chmod g-w {installed.config}/50-site.py")


def test_what_users_servers_run_from_is_shown_with_what_is_wrong(installed: Layout, tmp_path: Path) -> None:
    old, gone = make_environment(tmp_path / "releases/1", "1.5.0"), tmp_path / "gone"
    (tmp_path / "current").symlink_to("releases/1")
    with (installed.config / "50-site.py").open("a") as file:
        file.write(f'\nc.Spawner.cmd = ["{tmp_path}/current/bin/jupyterhub-singleuser"]\n')
    status = check(installed)
    assert status.environments == {f"{tmp_path}/current": f"{old}, jupyterhub 1.5.0"}
    misfit = f"jupyterhub 1.5.0, which is too old for the hub's {hubs_version()}"
    assert status.warnings == [f"the environment {tmp_path}/current has {misfit}: users may not get into its servers"]
    assert status.problems == []
    assert f"\nenvironment  {tmp_path}/current: {old}, jupyterhub 1.5.0\n" in text(status)
    with (installed.config / "50-site.py").open("a") as file:
        file.write(f'\nc.Spawner.cmd = ["{gone}/bin/jupyterhub-singleuser"]\n')
    assert check(installed).environments == {str(gone): f"{gone} does not exist on this machine"}


def test_units_that_are_not_active_are_problems(
    installed: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = 'case "$*" in *MainPID*) echo 0;; *-hub.service) echo failed;; *) echo active;; esac'
    fake_command(tmp_path / "bin", "systemctl", answers, monkeypatch)
    installed.system_units.mkdir(parents=True)
    for name in ("barehub.target", "barehub-hub.service"):
        (installed.system_units / name).touch()
    status = check(installed)
    assert status.units == {"barehub.target": "active", "barehub-hub.service": "failed"}
    assert status.problems == ["barehub-hub.service is failed: journalctl -u barehub-hub.service"]


def test_what_does_not_fit_the_release_is_a_problem(installed: Layout) -> None:
    make_database(database.own_database(installed))
    installed.static_config.write_text(as_text({"entryPoints": {}}))
    installed.hub.unlink()
    installed.hub.symlink_to(f"releases/{OLD}")
    link, proxy, schema = check(installed).problems
    assert link == f"{installed.hub} does not lead to a complete release: run the installer with -f"
    assert proxy.startswith("the proxy runs with an older configuration: systemctl restart barehub-proxy.service")
    assert schema.endswith(f"this release needs {database.newest_revision()}")


def test_text_names_what_is_unknown() -> None:
    lines = text(Status("/opt/barehub", None, [], problems=["x"])).splitlines()
    assert lines[1:3] == ["release   none is active", "url       unknown"]
    assert lines[-1] == "problem: x"
