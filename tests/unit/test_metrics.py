"""`barehub status --prometheus`: what node_exporter's textfile collector gets, read by Prometheus's own parser."""

import os
from pathlib import Path

import pytest
from barehub import cli
from barehub.errors import Exit, UserError
from barehub.layout import Layout
from barehub.metrics import exposition, publish
from barehub.status import Status, check
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.installations import NEW, OLD, answering, fake_command
from tests.unit.test_environments import make_environment
from tests.unit.test_status import installed

__all__ = ["installed"]  # a fixture

Numbers = dict[str, dict[tuple[str, ...], float]]  # metric -> values of its labels but `base` -> number


def numbers(text: str) -> Numbers:
    """What Prometheus reads; it refuses a sample that comes twice."""
    found: Numbers = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            own = tuple(value for label, value in sample.labels.items() if label != "base")
            assert "base" in sample.labels
            assert own not in found.setdefault(sample.name.removeprefix("barehub_"), {})
            found[sample.name.removeprefix("barehub_")][own] = sample.value
    return found


def of(layout: Layout) -> Numbers:
    return numbers(exposition(check(layout)))


def test_a_healthy_installation(installed: Layout, tmp_path: Path) -> None:
    prefix = make_environment(tmp_path / "1", "1.5.0")
    with (installed.config / "50-site.py").open("a") as file:
        file.write(f'\nc.Spawner.cmd = ["{prefix}/bin/jupyterhub-singleuser"]\n')
    installed.backups.mkdir()
    installed.backup(NEW).touch()
    os.utime(installed.backup(NEW), (5, 5))
    installed.last_backup.touch()
    os.utime(installed.last_backup, (7, 7))
    found = of(installed)
    ((release, url),) = found["info"]
    assert release == NEW
    assert url.startswith("http://127.0.0.1:")
    assert found["healthy"] == found["config_valid"] == {(): 1}
    assert (found["problems"], found["warnings"], found["closed"]) == ({(): 0}, {(): 1}, {(): 0})
    assert found["up"] == {("hub",): 1, ("proxy",): 1}
    assert found["backup_timestamp_seconds"] == {(NEW,): 5}
    assert found["last_backup_timestamp_seconds"] == {(): 7}
    assert found["environment"] == {(str(prefix), "misfit"): 1}
    assert set(found["unknown"].values()) == {0}
    assert "certificate_end_timestamp_seconds" not in found  # no HTTPS


def test_what_is_wrong_is_a_number_and_what_is_not_known_is_none(
    installed: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (installed.config / "60-wrong.py").write_text("(")
    installed.maintenance.touch(mode=0o644)
    installed.static_config.unlink(missing_ok=True)
    fake_command(tmp_path / "bin", "systemctl", 'case "$*" in *-hub*) echo failed;; *-proxy*) ;; *) echo active;; esac',
                 monkeypatch)  # fmt: skip
    installed.system_units.mkdir(parents=True)
    for unit in ("barehub.target", "barehub-hub.service", "barehub-proxy.service"):
        (installed.system_units / unit).touch()
    found = of(installed)
    assert found["healthy"] == found["config_valid"] == {(): 0}
    assert found["closed"] == {(): 1}
    assert found["unit_active"] == {("barehub.target",): 1, ("barehub-hub.service",): 0}
    unknown = {what for (what,), value in found["unknown"].items() if value}
    assert unknown == {"units", "hub", "proxy", "certificate", "database"}
    assert "up" not in found


def test_a_hub_that_does_not_answer_is_down_and_its_proxy_up(installed: Layout) -> None:
    with answering({}) as port, (installed.config / "50-site.py").open("a") as file:
        file.write(f"\nc.JupyterHub.hub_port = {port}\n")
    assert of(installed)["up"] == {("hub",): 0, ("proxy",): 1}


def test_the_end_of_the_certificate_is_unknown_until_one_is_seen() -> None:
    status = Status("/b", NEW, [NEW], url="https://hub.example.org/")
    assert numbers(exposition(status))["unknown"][("certificate",)] == 1
    status.certificate_ends = "2026-12-24T12:00:00+00:00"
    found = numbers(exposition(status))
    assert found["unknown"][("certificate",)] == 0
    assert found["certificate_end_timestamp_seconds"] == {(): 1798113600}


def test_names_cannot_break_the_format() -> None:
    odd = 'a "b" \\ \n c\x1b{}'
    found = numbers(exposition(Status("/b", None, [], environment_states={odd: "fits"})))
    assert found["environment"] == {(odd.replace("\x1b", "\\x1b"), "fits"): 1}
    assert found["healthy"] == {(): 1}


def test_a_file_is_replaced_as_a_whole_and_everybody_can_read_it(tmp_path: Path) -> None:
    path, old, new = tmp_path / "barehub.prom", Status("/b", OLD, []), Status("/b", NEW, [])
    publish(old, str(path))
    path.chmod(0o600)
    with path.open() as reader:
        publish(new, str(path))
        assert reader.read() == exposition(old)
    assert path.read_text() == exposition(new)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_are_as_before_are_as_fresh_as_others(tmp_path: Path) -> None:
    path, status = tmp_path / "barehub.prom", Status("/b", NEW, [])
    publish(status, str(path))
    os.utime(path, (5, 5))
    publish(status, str(path))
    assert path.stat().st_mtime > 5


@pytest.mark.parametrize("name", ["there.txt", "missing/there.prom"])
def test_a_file_that_the_collector_would_not_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no place for node_exporter") as refused:
        publish(Status("/b", None, []), str(tmp_path / name))
    assert "--collector.textfile.directory" in refused.value.fix


def test_the_command_succeeds_when_it_has_told_what_is_wrong(
    installed: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (installed.config / "60-wrong.py").write_text("(")
    assert cli.main(["status", "--prometheus"]) == 0
    assert numbers(capsys.readouterr().out)["healthy"] == {(): 0}
    assert cli.main(["status", "--prometheus", str(tmp_path / "barehub.prom")]) == 0
    assert capsys.readouterr().out == ""
    assert numbers((tmp_path / "barehub.prom").read_text())["healthy"] == {(): 0}
    os.utime(tmp_path / "barehub.prom", (5, 5))
    installed.record.rename(tmp_path / "away")
    assert cli.main(["status", "--prometheus", str(tmp_path / "barehub.prom")]) == Exit.BASE
    assert (tmp_path / "barehub.prom").stat().st_mtime == 5  # which is how to notice it
    with pytest.raises(SystemExit):
        cli.main(["status", "--json", "--prometheus"])
