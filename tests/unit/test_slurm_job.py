"""The overlay `slurm`: the job's script, run here by bash, with a users' environment that is this test's Python."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from barehub_slurm.options import RefusedError

from tests.unit.slurm_node import Node, node_with_hub


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with node_with_hub(tmp_path) as new:
        yield new


def test_the_server_starts_in_its_users_home(node: Node) -> None:
    (node.home / ".bash_profile").write_text(
        "export MINE='a b' UNSET=\nmodule() { echo module $* loaded; }\nexport -f module\numask 027; cd /; false\n"
    )
    (node.home / ".jupyterhub").mkdir()
    for name in ("job-9.log", "login-9"):  # a job that was killed leaves both
        (node.home / ".jupyterhub" / name).touch()
        os.utime(node.home / ".jupyterhub" / name, (0, 0))
    log, comments = node.run(node.script(prologue="module load cuda; umask"))
    assert comments == ""
    assert "no_proxy" not in log
    assert "module load cuda loaded\n0027\nserver:" in log
    for line in ("MINE=a b", f"cwd={node.home}", "SITE=it's", f"HOME={node.home}", "SLURM_EXPORT_ENV=ALL"):
        assert f"\n{line}\n" in log
    assert list((node.home / ".jupyterhub").iterdir()) == [node.home / ".jupyterhub/job-17.log"]


# These end the file, not the shell.
KEPT = ("return 1", "read answer && exit", "if then", "PATH=/nowhere; export PATH", "set -u; echo $no_such")


@pytest.mark.parametrize(
    "lines",
    [
        *KEPT, "exit", "exit 3", "exec sh -l", "module load x || exit", "kill -9 $$", "while :; do :; done",
        "sleep 60 & wait",         "set -e; false", "trap '' TERM; while :; do sleep 1; done",
        "exec >/dev/null 2>&1; exit", "cd() { exit; }; export -f cd; exit",
        "(sleep 20 &); exit", "set -o posix; exit",
    ],
)  # fmt: skip
def test_the_server_starts_whatever_the_login_files_say(node: Node, lines: str) -> None:
    (node.home / ".profile").write_text("exit\n")  # not read if there is a .bash_profile
    (node.home / ".bash_profile").write_text(f"export BEFORE=1\n{lines}\n")
    began = time.monotonic()
    # A busy machine takes its time for what ends; what does not end is given up sooner.
    log, comments = node.run(node.script(login_timeout=30 if lines in KEPT else 1))
    assert "server: 1 False" in log
    assert comments == ""
    assert time.monotonic() - began < 15
    assert [path.name for path in (node.home / ".jupyterhub").iterdir()] == ["job-17.log"]
    if lines in KEPT:
        assert "\nBEFORE=1\n" in log
    else:
        assert "Note: (your login file ~/.bash_profile ended the shell that read it, or took 1 s" in log


def test_if_it_cannot_start_without_them_the_reason_names_the_file(node: Node) -> None:
    (node.home / ".bash_login").write_text("exit\n")
    (node.path / "users/lib/jupyterhub.py").unlink()
    _, comments = node.run()
    assert "has no jupyterhub; the hub's is " in comments
    assert "(your login file ~/.bash_login ended the shell that read it" in comments


@pytest.mark.parametrize(
    "lines",
    [
        "export PYTHONPATH=$HOME/mods", "export PYTHONHOME=/x", "export PYTHONPATH=/x PYTHONWARNINGS=error",
        "export PYTHONHASHSEED=x PYTHONIOENCODING=x PYTHONMALLOC=x", "export IFS=YT PYTHONPATH=$HOME/mods",
        "unset() { :; }; export() { :; }; builtin export PYTHONHOME=/x",
        "export PYTHONSAFEPATH=1 PYTHONPLATLIBDIR=x", "export PYTHONINSPECT=1 PYTHONOPTIMIZE=2",
        "python() { exit 1; }; export -f python; exec() { false; }; export -f exec",
        "alias exec=false; shopt -s expand_aliases", "export BASH_ENV=$HOME/.bash_env",
    ],
)  # fmt: skip
def test_what_users_set_for_their_own_python_does_not_reach_the_server(node: Node, lines: str) -> None:
    (node.home / "mods").mkdir()
    for name in ("json", "jupyterhub", "socket"):
        (node.home / "mods" / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    (node.home / ".bash_env").write_text("exit\n")
    (node.home / ".bash_profile").write_text(f"{lines}\n")
    log, comments = node.run(BASH_ENV=str(node.home / ".bash_env"))
    assert "server: 1 False" in log
    assert comments == ""


@pytest.mark.parametrize(
    "lines",
    [
        "umask 0777", "declare -rx PATH=/nowhere", "readonly TMOUT=1; export TMOUT", "set -u; export SHELLOPTS",
        "export TMPDIR=/nope", "export POSIXLY_CORRECT=1 GLOBIGNORE='*' LC_ALL=xx",
        "declare -rx login=5 python=/x text=6", "exec 0<&- 1>&- 2>&-", "trap 'sleep 100' EXIT", "shopt -s failglob",
        "export VIRTUAL_ENV=/x CONDA_PREFIX=/y",
    ],
)  # fmt: skip
def test_what_is_set_for_other_shells_does_not_stop_the_server(node: Node, lines: str) -> None:
    (node.home / ".bash_profile").write_text(f"{lines}\n")
    log, comments = node.run(node.script(prologue='mkdir "$HOME/made"'))
    assert "server: 1 False" in log
    assert comments == ""
    assert "Note" not in log
    assert (node.home / "made").stat().st_mode & 0o700 == 0o700


@pytest.mark.parametrize(
    "lines",
    [
        "export LD_LIBRARY_PATH=$HOME/lib",
        "ulimit -S -v 20000",
        "ulimit -S -n 5",
        "export LD_PRELOAD=$HOME/lib/libc.so.6",
    ],
)
def test_libraries_and_limits_that_keep_python_from_starting_are_put_aside(node: Node, lines: str) -> None:
    (node.home / "lib").mkdir()
    for name in ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"):
        (node.home / "lib" / name).write_text("no library")
    (node.home / ".bash_profile").write_text(f"{lines}\n")
    log, comments = node.run()
    assert "server: 1 False" in log
    assert comments == ""
    if "PRELOAD" not in lines:  # which ld.so itself passes over
        assert "Note: (Python does not start with the libraries and limits of your login files" in log


def test_the_hub_is_reached_directly_and_as_this_job_says(node: Node) -> None:
    (node.home / ".bash_profile").write_text("export http_proxy=http://p:1 NO_PROXY=a.b JUPYTERHUB_SSL_KEYFILE=/x\n")
    log, _ = node.run()
    assert "\nno_proxy=127.0.0.1,a.b\n" in log
    assert "\nNO_PROXY=127.0.0.1,a.b\n" in log
    assert "JUPYTERHUB_SSL_KEYFILE" not in log


def test_packages_in_the_users_own_site_do_not_hide_the_environments(node: Node) -> None:
    """An environment of conda's looks into ~/.local (PEP 370), a venv does not."""
    version = subprocess.run(
        [f"{sys.base_prefix}/bin/python3", "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    site = node.home / f".local/lib/{version}/site-packages"
    site.mkdir(parents=True)
    (site / "evil.pth").write_text("import sys; sys.exit('the wrong site')\n")
    log, comments = node.run()
    assert "server: 1 False" in log
    assert comments == ""
    assert "PYTHONNOUSERSITE" not in log  # its kernels may have them


@pytest.mark.parametrize("environment", [{"HOME": ""}, {"PATH": ""}, {"PATH": "/nowhere", "USER": ""}])
def test_an_environment_that_slurm_could_not_read_is_no_missing_home(node: Node, environment: dict[str, str]) -> None:
    """`su` on the node was too slow, for instance: then nothing is set at all."""
    script = node.script()
    if not environment.get("HOME", "x"):  # what `~` is without HOME is the account's home, which is not the test's
        script = script.replace("HOME=~;", f"HOME={node.home};")
    log, comments = node.run(script, **environment)
    assert "server: 1 False" in log
    assert comments == ""


def test_a_home_that_is_missing_or_full_is_told_as_that(node: Node) -> None:
    _, comments = node.run(HOME="/no/such/home")
    assert "Comment=your home directory /no/such/home is not there on the node c1" in comments
    (node.home / ".jupyterhub").write_text("in the way")
    _, comments = node.run()
    assert f"your home directory {node.home} cannot be written to on the node c1: File exists" in comments
    (node.home / ".jupyterhub").unlink()
    (node.home / ".jupyterhub/job-17.log").mkdir(parents=True)
    _, comments = node.run()
    assert "cannot be written to on the node c1: Is a directory" in comments
    (node.home / ".jupyterhub/job-17.log").rmdir()
    (node.home / ".jupyterhub/job-17.log").symlink_to("/dev/full")  # as with a quota: it can be made, and not filled
    _, comments = node.run()
    assert "cannot be written to on the node c1: No space left on device" in comments


def test_slurm_is_asked_for_memory_and_gpus_only_if_there_are_any(node: Node) -> None:
    lines = node.script(memory=0, cores=3).splitlines()
    assert "#SBATCH --cpus-per-task=3" in lines
    assert [line for line in lines if "--mem" in line or "--gres" in line] == []
    lines = node.script(gpus=2, account="jupyter").splitlines()
    wanted = ["#SBATCH --mem=2048M", "#SBATCH --gres=gpu:2", "#SBATCH --account=jupyter", "#SBATCH --time=60"]
    assert [line for line in lines if line in wanted] == [wanted[0], wanted[3], wanted[1], wanted[2]]
    names = [
        line for line in node.script(options="--job-name=x --constraint=avx2").splitlines() if "--job-name" in line
    ]
    assert names == ["#SBATCH --job-name=x --constraint=avx2", "#SBATCH --job-name=jupyterhub-1"]  # the last counts
    end = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert [line for line in lines[end:] if line.startswith("#SBATCH")] == []  # sbatch would not read it


@pytest.mark.parametrize("name", ["account", "qos", "reservation"])
@pytest.mark.parametrize(
    "value", ["a\n#SBATCH --time=0", "a --mem=0", "a\r--mem=0", "a\x0b--mem=0", "a' --mem=0", 'a" b']
)
def test_no_word_of_a_hook_becomes_another_option(node: Node, name: str, value: str) -> None:
    with pytest.raises(RefusedError, match=name):
        node.script(**{name: value})


def test_the_server_starts_where_its_user_says(node: Node) -> None:
    (node.home / "it's $HOME").mkdir()
    (node.home / ".bash_profile").write_text(f'export PATH="{node.path}/bin:$PATH"\n')
    log, comments = node.run(node.script(directory="./it's $HOME"))
    assert f"\ncwd={node.home}/it's $HOME\n" in log
    assert comments == ""
    for directory in ("./none", "/no/such"):
        (node.path / "comments").unlink(missing_ok=True)
        _, comments = node.run(node.script(directory=directory))
        gone = directory.removeprefix("./")
        assert f"the working directory {gone} is not there on the node c1, or closed to you" in comments


def test_a_login_file_cannot_change_where_that_is(node: Node) -> None:
    (node.home / "work").mkdir()
    (node.home / ".bash_profile").write_text(
        "cd() { :; }; export CDPATH=/; shopt -s cdable_vars; export directory=/mine\n"
    )
    log, _ = node.run(node.script(directory="./work"))
    assert f"\ncwd={node.home}/work\n" in log
    assert "\ndirectory=/mine\n" in log


def test_a_kind_of_gpu_and_an_account_are_asked_for(node: Node) -> None:
    script = node.script(gpus=2, kind="a100", account="chem")
    assert "\n#SBATCH --gres=gpu:a100:2\n" in script
    assert "\n#SBATCH --account=chem\n" in script
    assert "\n#SBATCH --gres=shard:4\n" in node.script(gpus=4, kind="shard")
    assert "\n#SBATCH --gres=gpu:1\n" in node.script(gpus=1)
    assert "--gres" not in node.script()
