"""construct.engines, process and measure: what every engine has to do, and what is checked of its result."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from rattler import Channel, RepoDataRecord

from construct import conda_constructor, conda_ship
from construct.engines import ENGINES, Engine, build_engine, choose_engine
from construct.measure import measure
from construct.process import run_quietly
from construct.solve import solve_environment
from recipe.errors import UserError
from tests.unit.channels import write_channel

# Stands in for an engine's `fill`: a python that accepts everything, and a record of each package.
FILL = """#!/bin/sh
set -eu
mkdir -p "$2/bin" "$2/conda-meta"
printf '#!/bin/sh\\nexit %s\\n' "${STATUS:-0}" >"$2/bin/python"
chmod 755 "$2/bin/python"
for package in "$1"/linux-64/*.conda; do
    name=${package##*/}
    echo "{}" >"$2/conda-meta/${name%.conda}.json"
done
"""


class StandIn:
    """An engine that needs no builder."""

    NAME = "stand-in"
    COPIES = 1

    def __init__(self, fill: Path) -> None:
        self.FILL = fill  # as in the modules

    def command(self) -> list[str] | None:
        return []

    def require_command(self) -> list[str]:
        return []

    def version(self) -> str:
        return "1"

    def build(
        self,
        records: Sequence[RepoDataRecord],
        specs: Sequence[str],
        platform: str,
        release: str,
        payload: Path,
        work: Path,
    ) -> None:
        (payload / "engine/lock").write_text(" ".join(record.file_name for record in records))


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    write_channel(tmp_path / "payload/channel", [("one", "1.0", ()), ("two", "1.0", ())])
    return tmp_path / "payload"


@pytest.fixture
def records(payload: Path) -> list[RepoDataRecord]:
    return solve_environment([Channel((payload / "channel").as_uri())], ["one", "two"], "linux-64")


def make(tmp_path: Path, payload: Path, records: list[RepoDataRecord], fill: str = FILL) -> Path:
    (tmp_path / "fill.sh").write_text(fill)
    engine: Engine = StandIn(tmp_path / "fill.sh")
    return build_engine(engine, records, ["one"], "linux-64", "2026.11.24", payload, tmp_path / "work")


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_each_engine_has_a_fill_of_shell_only(engine: Engine) -> None:
    assert engine.FILL.read_text().startswith("#!/bin/sh\n# usage: fill CHANNEL PREFIX STAGE")
    subprocess.run(["sh", "-n", engine.FILL], check=True)
    assert engine.COPIES >= 2


def test_an_engine_is_chosen_by_name_and_has_to_be_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert choose_engine(conda_ship.NAME) is cast(Engine, conda_ship)
    monkeypatch.setenv("PATH", str(tmp_path))
    for engine in (conda_ship, conda_constructor):
        with pytest.raises(UserError, match=f"there is no {engine.NAME}"):
            choose_engine(engine.NAME)


def test_an_engine_lies_beside_its_fill_and_is_measured(
    tmp_path: Path, payload: Path, records: list[RepoDataRecord]
) -> None:
    engine = make(tmp_path, payload, records)
    assert sorted(path.name for path in engine.iterdir()) == ["fill", "lock"]
    assert os.access(engine / "fill", os.X_OK)
    measured = measure(engine, payload / "channel", records, tmp_path / "trial")
    assert measured.inodes == 5  # two directories, python and two records
    assert measured.kilobytes == 20
    assert measured.glibc_version == "0.0"


@pytest.mark.parametrize(
    ("fill", "complaint"),
    [
        ("#!/bin/sh\necho no room; exit 1\n", "the engine cannot fill a prefix:\nno room"),
        (FILL.replace(":-0", ":-1"), "the packages do not fit together"),
        (FILL + 'rm "$2"/conda-meta/two-*\n', r"did not install exactly the locked packages: two-1\.0-"),
        (FILL + 'touch "$2/conda-meta/more-1-0.json"\n', "did not install exactly the locked packages: more-1-0.json"),
    ],
)
def test_an_engine_that_does_something_else_fails_the_build(
    tmp_path: Path, payload: Path, records: list[RepoDataRecord], fill: str, complaint: str
) -> None:
    engine = make(tmp_path, payload, records, fill)
    with pytest.raises(UserError, match=complaint):
        measure(engine, payload / "channel", records, tmp_path / "trial")


def test_the_end_of_what_a_program_printed_is_in_the_error() -> None:
    words = ["sh", "-c", "echo one; echo two >&2; echo three; read x || exit 3"]
    with pytest.raises(UserError) as caught:
        run_quietly(words, {"PATH": os.defpath}, problem="it failed", fix="do it", last_lines=2)
    assert (str(caught.value), caught.value.fix) == ("it failed:\ntwo\nthree", "do it")
