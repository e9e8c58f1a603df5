"""The installer of an environment for users: releases side by side, a link, a lock for several nodes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from construct import conda_constructor
from tests.unit.installers import SHELLS, refused, run, write

# Any Python that other accounts can run as well: the checkout may be closed to them.
PYTHON = Path(shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin") or sys.executable).resolve()
# Stands in for an engine: a prefix with this Python, and a kernel.
FILL = f"""#!/bin/sh
set -eu
umask 077
mkdir -p "$2/bin" "$2/share/jupyter/kernels/python3" "$2/share/jupyter/kernels/ir"
ln -s {PYTHON} "$2/bin/python"
cp "$(command -v sleep)" "$2/bin/sleep"
echo "home = {PYTHON.parent}" >"$2/pyvenv.cfg"
echo '{{"argv": ["python", "-m", "ipykernel_launcher"], "language": "python"}}' \\
    >"$2/share/jupyter/kernels/python3/kernel.json"
echo '{{"argv": ["R"], "language": "R"}}' >"$2/share/jupyter/kernels/ir/kernel.json"
"""


def made(directory: Path, release: str = "2026.12.01", name: str = "lab", fill: str = FILL, **numbers: object) -> Path:
    """Write an environment's installer into `directory`."""
    receipt = json.dumps({"name": name, "version": release}, indent=1) + "\n"
    return write(
        directory / f"{name}-{release}", fill, receipt, KIND="environment", NAME=name, RELEASE=release, **numbers
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "jupyter"


def install(installer: Path, base: Path, *options: str, ok: bool = True, **environment: str) -> str:
    done = run(installer, "-b", "-p", str(base), *options, **environment)
    assert (done.returncode == 0) == ok, done
    return done.stdout


def kept(base: Path) -> list[str]:
    return sorted(path.name for path in (base / "releases").iterdir())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_release_is_filled_and_current(tmp_path: Path, base: Path, shell: str) -> None:
    done = run(made(tmp_path), "-b", "-p", str(base), shell=shell)
    assert done.returncode == 0, done
    assert (base / "current").readlink() == Path("releases/2026.12.01")
    assert {path.name for path in base.iterdir()} == {"current", "releases"}
    assert f'c.Spawner.cmd = ["{base}/current/bin/jupyterhub-singleuser"]' in done.stdout


def test_everyone_can_read_it_and_its_owner_write_it(tmp_path: Path, base: Path) -> None:
    installer = made(tmp_path)
    before = os.umask(0o077)
    try:
        install(installer, base)
    finally:
        os.umask(before)
    for path in (base, *base.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            assert mode & 0o022 == 0, path
            assert mode & 0o444 == 0o444, path
            assert not path.is_dir() or mode & 0o111 == 0o111, path


@pytest.mark.parametrize("shell", SHELLS)
def test_a_switch_that_fails_is_not_said_to_be_done(tmp_path: Path, base: Path, shell: str) -> None:
    done = run(made(tmp_path, fill=f"{FILL}mkdir {base}/current\n"), "-b", "-p", str(base), shell=shell)
    assert done.returncode != 0
    assert "c.Spawner.cmd" not in done.stdout


def test_on_another_file_system_the_cache_is_on_this_machines_disk_and_goes(tmp_path: Path) -> None:
    """Not twice as many files on a shared one."""
    told = tmp_path / "told"
    fill = f'{FILL}mkdir -p "$RATTLER_CACHE_DIR/package"; echo "$RATTLER_CACHE_DIR" | tee -a {told} >"$2/cache"\n'
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        base = Path(elsewhere)
        assert base.stat().st_dev != Path("/var/tmp").stat().st_dev
        install(made(tmp_path, fill=fill), base)
        assert (base / "current/cache").read_text().startswith("/var/tmp/lab.")
        install(made(tmp_path, "2026.12.08", fill=f"{fill}exit 1"), base, "-u", ok=False)
        install(made(tmp_path, "2026.12.09", fill=fill, INSTALLED_KB=10**12), base, "-u")
        assert (base / "current/cache").read_text() == f"{base}/.staging/cache\n"
    caches = told.read_text().splitlines()
    assert [one.startswith("/var/tmp/lab.") for one in caches] == [True, True, False]
    assert not any(Path(one).exists() for one in caches)


def test_a_kernel_of_python_is_that_of_the_release(tmp_path: Path, base: Path) -> None:
    install(made(tmp_path), base)
    kernels = base / "releases/2026.12.01/share/jupyter/kernels"
    argv = json.loads((kernels / "python3/kernel.json").read_text())["argv"]
    assert argv == [f"{base}/releases/2026.12.01/bin/python", "-m", "ipykernel_launcher"]
    assert json.loads((kernels / "ir/kernel.json").read_text())["argv"] == ["R"]


def test_constructors_installer_fills_it_as_well(tmp_path: Path, base: Path) -> None:
    """It unpacks into the prefix, and runs its two scripts."""
    scripts, label = Path(conda_constructor.__file__).parent, "2026.12.01"
    engine = tmp_path / f"lab-{label}/payload/engine"
    engine.mkdir(parents=True)
    whole = tmp_path / "whole.sh"
    unpacking = 'mkdir -p "$2/pkgs/one" "$2/conda-meta"; touch "$2/_conda" "$2/conda-meta/history"\n'
    running = f'export PREFIX="$2"; sh {scripts}/pre_install.sh; sh {scripts}/post_install.sh; rm -r "$2/pkgs"; exit\n'
    whole.write_text(FILL.replace("set -eu", 'set -eu; shift; [ "$1" = -p ]') + unpacking + running)
    conda_constructor.cut(whole, [], tmp_path, engine)
    told = install(made(tmp_path, fill=(scripts / "fill.sh").read_text()), base)
    assert told.endswith("changed: release, files\n")
    prefix = base / "releases" / label
    assert {path.name for path in base.iterdir()} == {"current", "releases"}
    assert {path.name for path in prefix.iterdir()} == {"bin", "conda-meta", "pyvenv.cfg", "share"}
    assert json.loads((prefix / "share/barehub/release.json").read_text())["name"] == "lab"
    (argv, *_) = json.loads((prefix / "share/jupyter/kernels/python3/kernel.json").read_text())["argv"]
    assert argv == f"{prefix}/bin/python"


def test_a_newer_one_goes_beside_and_back(tmp_path: Path, base: Path) -> None:
    first, second = made(tmp_path), made(tmp_path, "2026.12.08")
    install(first, base)
    refused(run(second, "-b", "-p", str(base)), 6, "already holds lab 2026.12.01")
    for line in ("changed: release, files", "nothing changed"):
        assert run(second, "-b", "-u", "-p", str(base)).stdout.splitlines()[-1] == line
    assert kept(base) == ["2026.12.01", "2026.12.08"]
    assert (base / "current").readlink() == Path("releases/2026.12.08")
    done = run(first, "-b", "-u", "-p", str(base))
    refused(done, 6, "which is newer than")
    assert done.stderr.endswith(f"to go back: sh {first} -b -p {base} --activate 2026.12.01\n")
    install(second, base, "--activate", "2026.12.01")
    assert (base / "current").readlink() == Path("releases/2026.12.01")
    install(second, base, "-us")
    assert (base / "current").readlink() == Path("releases/2026.12.01")
    assert kept(base) == ["2026.12.01", "2026.12.08"]


@pytest.mark.parametrize(
    ("options", "code", "what"),
    [
        (["--activate", "2026.01.01"], 6, "there is no release 2026.01.01"),
        (["--activate", "../x"], 2, "is not a release"),
        (["--activate", "2026.12.01", "-f"], 2, "installs nothing"),
        (["--keep", "0"], 2, "not a number of releases"),
        (["--from", "barehub"], 2, "unknown option: --from"),
        (["--hub-user", "root"], 2, "unknown option: --hub-user"),
    ],
)
def test_refusals_change_nothing(tmp_path: Path, base: Path, options: list[str], code: int, what: str) -> None:
    installer = made(tmp_path)
    install(installer, base)
    before = sorted(base.rglob("*"))
    refused(run(installer, "-b", "-p", str(base), *options), code, what)
    assert sorted(base.rglob("*")) == before


def test_a_dry_run_tells_and_writes_nothing(tmp_path: Path, base: Path) -> None:
    told = install(made(tmp_path), base, "--dry-run", "--keep", "2")
    assert f"write    {base}/releases/2026.12.01" in told
    assert f"switch   {base}/current from nothing to 2026.12.01" in told
    assert "remove   releases except the newest 2" in told
    assert not base.exists()


def test_keep_spares_what_is_in_use(tmp_path: Path, base: Path) -> None:
    for day in ("01", "02", "03", "04"):
        install(made(tmp_path, f"2026.12.{day}"), base, *(["-u"] if day != "01" else []))
    assert len(kept(base)) == 4
    with running(base / "releases/2026.12.01/bin/sleep"):
        told = install(made(tmp_path, "2026.12.05"), base, "-u", "--keep", "2")
    assert kept(base) == ["2026.12.01", "2026.12.04", "2026.12.05"]
    assert "release 2026.12.01 is kept: a process on this machine uses it" in told
    assert "removing release 2026.12.02" in told
    assert told.splitlines()[-1] == "changed: release, older releases, files"
    install(made(tmp_path, "2026.12.05"), base, "--keep", "1", "--activate", "2026.12.04")
    assert kept(base) == ["2026.12.04", "2026.12.05"]


@contextmanager
def running(program: Path) -> Iterator[None]:
    with subprocess.Popen([program, "600"]) as process:
        try:
            yield
        finally:
            process.kill()


def test_a_lock_names_who_holds_it(tmp_path: Path, base: Path) -> None:
    installer = made(tmp_path)
    lock = base / ".lock"
    lock.mkdir(parents=True)
    refused(run(installer, "-b", "-p", str(base)), 6, "process ? on an unknown machine")
    (lock / "owner").write_text("node7 4711 2026-12-01T08:00:00Z\n")
    done = run(installer, "-b", "-p", str(base))
    refused(done, 6, "another installer is at work")
    assert "process 4711 on node7, since 2026-12-01T08:00:00Z" in done.stderr
    assert f"rm -r {lock}" in done.stderr
    (lock / "owner").write_text(f"{os.uname().nodename} {2**22 + 1} 2026-12-01T08:00:00Z\n")
    refused(run(installer, "-b", "-p", str(base)), 6, "which does not run any more")
    assert [path.name for path in base.iterdir()] == [".lock"]


def test_the_next_run_cleans_up_after_a_power_cut(tmp_path: Path, base: Path) -> None:
    installer = made(tmp_path)
    for left in (".staging/channel", "releases/2026.12.01/bin", "releases/2026.11.30/bin"):
        (base / left).mkdir(parents=True)
    (base / ".staging/barehub").touch()
    install(installer, base)
    assert kept(base) == ["2026.12.01"]
    assert {path.name for path in base.iterdir()} == {"current", "releases"}


def test_an_engine_that_fails_leaves_nothing(tmp_path: Path, base: Path) -> None:
    broken = made(tmp_path, fill='#!/bin/sh\nmkdir -p "$2/bin"\nexit 3\n')
    done = run(broken, "-b", "-p", str(base))
    assert (done.returncode, base.exists()) == (1, False), done


def test_an_interrupted_run_leaves_what_was_there(tmp_path: Path, base: Path) -> None:
    install(made(tmp_path), base)
    before = sorted(base.rglob("*"))
    fifo = tmp_path / "begun"
    os.mkfifo(fifo)
    slow = made(tmp_path, "2026.12.02", fill=f'#!/bin/sh\nmkdir -p "$2/bin"\necho >{fifo}\nexec sleep 600\n')
    words = ["sh", slow, "-bu", "-p", base]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        fifo.read_text()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"interrupted" in errors
    assert sorted(base.rglob("*")) == before


def test_it_takes_no_directory_of_something_else(tmp_path: Path, base: Path) -> None:
    installer = made(tmp_path)
    install(made(tmp_path, name="stats"), base)
    refused(run(installer, "-b", "-p", str(base)), 6, "a release of stats, not of lab")
    done = run(made(tmp_path, "2026.12.08"), "-b", "-u", "-p", str(base))
    refused(done, 6, "holds stats 2026.12.01, which is not lab")
    assert "--from" not in done.stderr
    refused(run(write(tmp_path), "-b", "-p", str(base)), 6, "holds an environment for users")
    hub, other = tmp_path / "hub", tmp_path / "other"
    (hub / "releases/2026.11.24").mkdir(parents=True)
    (hub / "hub").symlink_to("releases/2026.11.24")
    refused(run(installer, "-b", "-p", str(hub)), 6, "holds a hub")
    other.mkdir()
    (other / "file").touch()
    refused(run(installer, "-b", "-p", str(other)), 6, "is not empty and holds no environment")


def test_not_everyone_may_replace_it(tmp_path: Path) -> None:
    project = tmp_path / "project"
    base = project / "inner/base"
    base.parent.mkdir(parents=True)
    project.chmod(0o777)
    refused(run(made(tmp_path), "-b", "-p", str(base)), 6, f"everyone can put something else in the place of {base}")
    assert not base.exists()
    for mode in (0o1777, 0o770):  # as /tmp, where nobody can move what is another's; and a group's own
        project.chmod(mode)
        install(made(tmp_path), base)


def test_room_is_checked(tmp_path: Path, base: Path) -> None:
    refused(run(made(tmp_path, NEEDED_KB=10**15), "-b", "-p", str(base)), 4, "MB free")
    refused(run(made(tmp_path, NEEDED_INODES=10**15), "-b", "-p", str(base)), 4, "inodes free")
    assert not base.exists()


def test_its_help_has_its_own_options_and_no_systemd(tmp_path: Path) -> None:
    told = run(made(tmp_path), "-h").stdout
    assert told.startswith("lab 2026.12.01 for Linux x86_64: an environment for users")
    assert "--activate DATE" in told
    assert "--hub-user" not in told
    assert told.splitlines()[-1].startswith("What follows this script")


def test_it_verifies_lists_and_extracts(tmp_path: Path) -> None:
    installer = made(tmp_path)
    assert "is intact" in run(installer, "--verify").stdout
    assert run(installer, "--list").stdout == "one 1.0\n"
    assert run(installer, "--extract", str(tmp_path / "mirror")).returncode == 0
    assert (tmp_path / "mirror/releases/lab-2026.12.01/environment.lock.yml").is_file()
