"""What can be said of construct.yaml and its scripts alone; tests/e2e/test_constructor.py has the rest."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
import yaml

from construct import conda_constructor, conda_ship
from construct.conda_constructor import cut
from construct.engines import build_engine, choose_engine
from recipe.errors import UserError

CONSTRUCT = Path(__file__).parents[2] / "construct"
LABEL = "2026.11.24"


def constructor_reads(payload: Path, **variables: str) -> dict[str, Any]:
    """construct.yaml as constructor reads it: no comments, selectors taken away, Jinja with `environ` and `os`."""
    lines = [one for one in (CONSTRUCT / "construct.yaml").read_text().splitlines() if not one.lstrip().startswith("#")]
    assert not [one for one in lines if re.search(r"\[[^\[\]]+\][^()]*$", one) and "{" not in one]
    text = "\n".join(lines)
    with pytest.raises(yaml.YAMLError):  # or constructor would not render it
        yaml.safe_load(text)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(CONSTRUCT), autoescape=False)
    environment.globals |= {"environ": {"BAREHUB_PAYLOAD": str(payload), **variables}, "os": os}
    return yaml.safe_load(environment.from_string(text).render())


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    payload = tmp_path / "payload"
    payload.mkdir()
    release = {"schema": 1, "name": "myhpc", "version": LABEL, "engine": {"name": "x", "version": "1"}, "glibc": "2.28"}
    (payload / "release.json").write_text(json.dumps({**release, "files": []}, indent=1))
    names = ("python", "jupyterhub-base", "barehub-overlay-slurm")
    lines = [f'  - "{name}==1.0[build=h_0,sha256={"0" * 64}]"\n' for name in names]
    (payload / "environment.lock.yml").write_text("name: x\nchannels:\n  - ./channel\ndependencies:\n" + "".join(lines))
    for name in ("preflight.sh", "ports.sh", "steps.sh"):
        shutil.copyfile(CONSTRUCT / name, payload / name)
    return payload


def test_the_definition_is_of_the_locked_packages(payload: Path) -> None:
    definition = constructor_reads(payload)
    assert definition["name"] == "myhpc"
    assert definition["version"] == LABEL
    assert definition["default_prefix"] == f"/opt/myhpc/releases/{LABEL}"
    locked = yaml.safe_load((payload / "environment.lock.yml").read_text())["dependencies"]
    assert definition["specs"] == locked
    assert definition["virtual_specs"] == ["__glibc >=2.28"]
    assert definition["extra_files"] == [{f"{payload}/release.json": "share/barehub/release.json"}]


def test_what_was_asked_for_is_what_the_environment_says(payload: Path) -> None:
    asked = yaml.safe_load((CONSTRUCT / "environment.yml").read_text())["dependencies"]
    assert constructor_reads(payload)["user_requested_specs"] == [*asked, "barehub-overlay-slurm"]


def test_the_channel_is_inside_or_two_levels_above(tmp_path: Path, payload: Path) -> None:
    """As the tar is unpacked, and as --extract leaves it."""
    papers = tmp_path / "mirror/releases/myhpc-1"
    papers.parent.mkdir(parents=True)
    payload.rename(papers)
    assert constructor_reads(papers)["channels"] == [f"file://{tmp_path}/mirror"]
    (papers / "channel").mkdir()
    assert constructor_reads(papers)["channels"] == [f"file://{papers}/channel"]


def test_no_path_of_the_building_machine_gets_out(payload: Path) -> None:
    definition = constructor_reads(payload)
    assert definition["channels"] == [definition["channels_remap"][0]["src"]]
    assert definition["channels_remap"][0]["dest"] == "https://channel.invalid/barehub"
    assert definition["register_envs"] is False


def test_the_scripts_get_the_functions_of_our_header(payload: Path) -> None:
    text = constructor_reads(payload)["script_env_variables"]["BAREHUB_FUNCTIONS"]
    # As constructor's header.sh has it.
    script = f"export BAREHUB_FUNCTIONS='{text}'\n" + 'printf %s "$BAREHUB_FUNCTIONS"'
    seen = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert seen == "".join((CONSTRUCT / name).read_text() for name in ("preflight.sh", "ports.sh", "steps.sh"))


def test_an_environment_for_users_is_made_behind_our_header_alone(payload: Path) -> None:
    """constructor's own installer would run a hub's hooks."""
    (payload / "release.json").write_text(json.dumps({"kind": "environment", "name": "lab", "version": LABEL}))
    with pytest.raises(SystemExit, match=r"lab is an environment for users.*\n  fix: .*--engine constructor"):
        constructor_reads(payload)


def test_behind_our_header_the_receipt_is_left_to_it(payload: Path) -> None:
    (payload / "release.json").write_text(json.dumps({"name": "barehub", "version": LABEL}))
    definition = constructor_reads(payload)
    assert (definition["name"], definition["version"]) == ("barehub", LABEL)
    assert not {"extra_files", "virtual_specs", "script_env_variables"} & definition.keys()


@pytest.mark.parametrize("place", ["default", "variable", "option", "two words"])
def test_a_cache_of_another_channel_is_refused(
    tmp_path: Path, payload: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """constructor would put its packages in twice, in an installer that fails on the target."""
    cache = tmp_path / ("home/.conda/constructor" if place == "default" else "cache")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    words = {"option": [f"--cache-dir={cache}"], "two words": ["--cache-dir", str(cache)]}
    monkeypatch.setattr("sys.argv", ["constructor", *words.get(place, ["construct/"])])
    variables = {"CONSTRUCTOR_CACHE": str(cache)} if place == "variable" else {}
    (payload / "channel/noarch").mkdir(parents=True)
    (payload / "channel/noarch/one-1-0.conda").touch()
    (cache / "linux-64").mkdir(parents=True)
    urls = cache / "linux-64/urls.txt"
    urls.write_text(f"file://{payload}/channel/noarch/one-1-0.conda\nhttps://elsewhere.example/noarch/two-1-0.conda\n")
    assert constructor_reads(payload, **variables)["name"] == "myhpc"
    urls.write_text(f"{urls.read_text()}file://{payload}/channel2/noarch/one-1-0.conda\n")
    with pytest.raises(SystemExit, match=r"(?s)packages of another channel.*\n  fix: .*--cache-dir .*/channel.cache"):
        constructor_reads(payload, **variables)


def test_without_the_variable_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        constructor_reads(tmp_path)


def test_an_installer_is_cut_and_put_together_again(tmp_path: Path) -> None:
    channel, engine, stage = tmp_path / "channel", tmp_path / "engine", tmp_path / "stage"
    for directory in (channel / "noarch", engine, stage):
        directory.mkdir(parents=True)
    packages = [channel / "noarch" / name for name in ("one.conda", "two.conda", "elsewhere.conda")]
    for package in packages:
        package.write_bytes(os.urandom(5000))
    head = b'#!/bin/sh\necho "$@" >>"$5/called"\nmkdir "$4"\nexit\n'.replace(b"$5", b"$TMPDIR").replace(b"$4", b"$3")
    whole = head + packages[1].read_bytes() + b"\0" * 512 + packages[0].read_bytes() + b"end"
    (tmp_path / "whole.sh").write_bytes(whole)
    cut(tmp_path / "whole.sh", packages, channel, engine)
    assert (engine / "glue").read_bytes() == head + b"\0" * 512 + b"end"

    fill = (CONSTRUCT / "conda_constructor/fill.sh").read_bytes()
    (engine / "fill").write_bytes(fill)
    words = ["sh", engine / "fill", channel, tmp_path / "prefix", stage]
    subprocess.run(words, check=True)
    assert (stage / "called").read_text() == f"-b -p {tmp_path}/prefix\n"
    assert (tmp_path / "prefix").is_dir()

    packages[0].write_bytes(os.urandom(5000))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "constructor.sh: FAILED" in done.stdout
    assert (stage / "called").read_text().count("\n") == 1


@pytest.mark.parametrize("shell", [shell for shell in ("dash", "bash") if shutil.which(shell)])
def test_a_signal_ends_all_that_works_for_the_engine(tmp_path: Path, shell: str) -> None:
    """Even a worker that does not mind being terminated: what it goes on writing would not be cleared away."""
    channel, engine, stage, fifo = tmp_path / "channel", tmp_path / "engine", tmp_path / "stage", tmp_path / "fifo"
    for directory in (channel, engine, stage):
        directory.mkdir()
    os.mkfifo(fifo)
    (tmp_path / "whole.sh").write_text("#!/bin/sh\n(trap '' TERM; echo works; exec sleep infinity) &\nwait\n")
    cut(tmp_path / "whole.sh", [], channel, engine)
    (engine / "fill").write_bytes((CONSTRUCT / "conda_constructor/fill.sh").read_bytes())
    words = ["sh", "-c", 'exec "$@" >"$0"', fifo, shell, engine / "fill", channel, tmp_path / "prefix", stage]
    with subprocess.Popen(words) as process, fifo.open() as output:
        assert output.readline() == "works\n"
        process.terminate()
        assert output.read() == ""  # ends when the last of them has
    assert process.returncode == 143


# Says what it sees of its surroundings, and makes an installer of the channel's one package.
STAND_IN = """\
#!/bin/sh
if [ "$1" = --version ]; then echo constructor 3.99.1; exit; fi
for word; do case $word in --output-dir=*) output=${word#*=} ;; esac; done
mkdir "$output"
env >"$output/environment"
[ -z "${FAIL:-}" ] || { echo no standalone conda executable was found; exit 2; }
{ echo 'mkdir -p "$3"; exit'; cat "$BAREHUB_PAYLOAD"/channel/noarch/*.conda; } >"$output/barehub-1.sh"
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command `constructor` on PATH."""
    path = tmp_path / "bin/constructor"
    path.parent.mkdir()
    path.write_text(STAND_IN)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return path


def build(tmp_path: Path) -> Path:
    payload = tmp_path / "payload"
    (payload / "channel/noarch").mkdir(parents=True)
    (payload / "channel/noarch/one-1-0.conda").write_bytes(os.urandom(5000))
    (payload / "environment.lock.yml").touch()
    records = [SimpleNamespace(subdir="noarch", file_name="one-1-0.conda")]
    return build_engine(conda_constructor, records, [], "linux-64", LABEL, payload, tmp_path / "work")


def test_constructor_sees_nothing_that_somebody_has_set_up_for_conda(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDA_CHANNELS", "https://elsewhere.example")
    monkeypatch.setenv("MAMBARC", "/somewhere/.mambarc")
    engine = build(tmp_path)
    assert (engine / "pieces").read_text().splitlines()[-1] == "package noarch/one-1-0.conda"
    seen = (tmp_path / "work/output/environment").read_text().splitlines()
    assert f"HOME={tmp_path / 'work'}" in seen
    assert not [line for line in seen if line.startswith(("CONDA_CHANNELS", "MAMBARC"))]


def test_what_constructor_says_is_told_when_it_fails(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(UserError, match="no standalone conda executable was found"):
        build(tmp_path)


def test_auto_takes_constructor_where_it_is_installed(stand_in: Path) -> None:
    assert choose_engine("auto") is conda_constructor
    assert conda_constructor.version() == "3.99.1"
    # PyPI has another package of that name.
    stand_in.write_text("#!/bin/sh\necho 0.1.0\n")
    assert choose_engine("auto") is conda_ship
    with pytest.raises(UserError, match="there is no constructor"):
        choose_engine("constructor")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("#!/bin/sh\necho 'Choose one of: classic' >&2; exit 1\n", "Choose one of: classic"),
        ("#!/bin/sh\necho usage; exit 2\n", "usage"),
        ("#!/bin/sh\nexit 3\n", "exit status 3"),
        ("#!/bin/sh\nkill -9 $$\n", "exit status -9"),
        ("#!/bin/sh\nread -r answer || { printf '\\377 no answer' >&2; exit 1; }\n", "no answer"),
        ("#!/removed/python\n", "No such file or directory"),
    ],
)
def test_a_constructor_that_does_not_run_is_told_with_its_words(
    stand_in: Path, capsys: pytest.CaptureFixture[str], program: str, said: str
) -> None:
    stand_in.write_text(program)
    with pytest.raises(UserError, match=r"(?s)constructor does not run.*" + said) as caught:
        choose_engine("constructor")
    assert "--engine conda-ship" in caught.value.fix
    assert choose_engine("auto") is conda_ship
    assert said in capsys.readouterr().err
    assert conda_constructor.command() is None
