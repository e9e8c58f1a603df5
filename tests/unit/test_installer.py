"""The installer's shell half fills a prefix and starts the hooks, or leaves what was there, without a machine."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from barehub.process import locked

from tests.unit.installers import SHELLS, refused, run, write


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    return write(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_it_installs_under_every_shell(installer: Path, tmp_path: Path, shell: str) -> None:
    base = tmp_path / "base"
    done = run(installer, "-b", "-p", str(base), "--bind-url", "http://:1234", "--no-start", shell=shell)
    assert done.returncode == 0, done
    asked = "--name=barehub --bind-url http://:1234 --no-start"
    hooks = f"hooks: -I -m barehub install --base={base} --release=2026.11.24 {asked}"
    assert done.stdout.splitlines()[-1] == hooks
    assert (base / "releases/2026.11.24/share/barehub/release.json").read_text() == "{}\n"
    assert {path.name for path in base.iterdir()} == {".lock", "releases"}


def test_the_caller_s_environment_stays_outside(installer: Path, tmp_path: Path) -> None:
    unwanted = ("PYTHONHOME", "PYTHONPATH", "CONDA_PREFIX", "MAMBA_ROOT_PREFIX", "PIP_INDEX_URL", "LD_LIBRARY_PATH")
    done = run(installer, "-b", "-p", str(tmp_path / "base"), **dict.fromkeys(unwanted, "/nowhere"), TMPDIR="/nowhere")
    assert done.returncode == 0, done
    seen = (tmp_path / "base/releases/2026.11.24/environment").read_text()
    assert not [name for name in (*unwanted, "TMPDIR") if f"{name}=" in seen]


@pytest.mark.parametrize("shell", SHELLS)
def test_no_variable_of_the_caller_s_is_one_of_the_script_s(installer: Path, tmp_path: Path, shell: str) -> None:
    """`engine` is the process that a run ends if it fails: here because of the lock."""
    base = tmp_path / "base"
    base.mkdir()
    with subprocess.Popen(["sleep", "600"]) as bystander, locked(base):
        hostile = {"engine": str(bystander.pid), "GZIP": "/nowhere", "IFS": "/", "SHELLOPTS": "braceexpand"}
        done = run(installer, "-b", "-p", str(base), shell=shell, **hostile)
        assert "another installer is at work" in done.stderr
        assert bystander.poll() is None
        bystander.kill()


def test_a_second_installer_is_refused_while_one_is_at_work(installer: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    with subprocess.Popen(
        ["flock", base / ".lock", "sh", "-c", "echo locked; read -r _"], stdin=-1, stdout=-1
    ) as holder:
        holder.stdout.readline()
        refused(run(installer, "-b", "-p", str(base)), 6, "another installer is at work")
        holder.communicate(b"\n")
    assert run(installer, "-b", "-p", str(base)).returncode == 0


def test_nobody_else_can_take_the_lock(installer: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    with subprocess.Popen(["flock", "-s", base, "sh", "-c", "echo locked; read -r _"], stdin=-1, stdout=-1) as stranger:
        stranger.stdout.readline()
        assert run(installer, "-b", "-p", str(base)).returncode == 0
        stranger.communicate(b"\n")
    assert (base / ".lock").stat().st_mode & 0o777 == 0o600
    with locked(base):
        refused(run(installer, "-b", "-f", "-p", str(base)), 6, "another installer is at work")


def test_a_failing_engine_leaves_nothing_behind(tmp_path: Path) -> None:
    installer = write(tmp_path, fill='#!/bin/sh\nmkdir -p "$2/bin"\necho went wrong\nexit 3\n')
    done = run(installer, "-b", "-p", str(tmp_path / "deep/base"))
    assert done.returncode == 1
    assert "went wrong" in done.stderr
    assert not (tmp_path / "deep").exists()


def test_an_interrupted_repair_leaves_the_release_as_it_was(installer: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    assert run(installer, "-b", "-s", "-p", str(base)).returncode == 0
    (base / "releases/2026.11.24/mine").write_text("still here")
    broken = write(tmp_path, fill="#!/bin/sh\nexit 3\n")
    assert run(broken, "-b", "-s", "-f", "-p", str(base)).returncode == 1
    assert (base / "releases/2026.11.24/mine").read_text() == "still here"
    assert not (base / ".staging").exists()
    assert run(write(tmp_path), "-b", "-s", "-f", "-p", str(base)).returncode == 0
    assert not (base / "releases/2026.11.24/mine").exists()


def test_what_a_killed_run_left_is_cleared_away(installer: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / ".staging/cache").mkdir(parents=True)
    (base / ".staging/barehub").touch()
    (base / "releases/2026.11.24/bin").mkdir(parents=True)
    (base / "releases/2026.10.24/bin").mkdir(parents=True)
    assert run(installer, "-b", "-s", "-p", str(base)).returncode == 0
    assert {path.name for path in base.iterdir()} == {".lock", "releases"}
    assert [path.name for path in (base / "releases").iterdir()] == ["2026.11.24"]


def test_a_repair_that_was_killed_gives_the_release_back(installer: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    aside = base / ".staging/replaced/2026.11.24"
    (aside / "share/barehub").mkdir(parents=True)
    (aside / "share/barehub/release.json").write_text("{}")
    (base / ".staging/barehub").touch()
    (base / "releases/2026.11.24/bin").mkdir(parents=True)
    done = run(installer, "-b", "-s", "-p", str(base))
    assert "release 2026.11.24 is in place" in done.stdout
    assert (base / "releases/2026.11.24/share/barehub/release.json").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_last_line_says_what_has_changed(installer: Path, tmp_path: Path, shell: str) -> None:
    base = tmp_path / "base"
    for options, line in (
        (["-k"], "changed: files, channel"),
        (["-k"], "nothing changed"),
        (["-f"], "changed: files"),
        ([], "nothing changed"),
    ):
        assert run(installer, "-b", "-s", "-p", str(base), *options, shell=shell).stdout.splitlines()[-1] == line
    package = base / "channel/linux-64/random.conda"
    package.write_bytes(b"x" + package.read_bytes()[1:])
    assert run(installer, "-bskp", str(base), shell=shell).stdout.splitlines()[-1] == "changed: channel"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_repair_keeps_the_units_that_systemds_links_lead_to(installer: Path, tmp_path: Path, shell: str) -> None:
    base = tmp_path / "base"
    assert run(installer, "-b", "-s", "-p", str(base), shell=shell).returncode == 0
    units = base / "releases/2026.11.24/systemd"
    units.mkdir()
    (base / "systemd").mkdir()
    (base / "systemd/barehub.target").symlink_to("../releases/2026.11.24/systemd/barehub.target")
    for name in ("barehub.target", "added"):
        (units / name).write_text("[Unit]\n")
    assert run(installer, "-b", "-s", "-f", "-p", str(base), shell=shell).returncode == 0
    assert (base / "systemd/barehub.target").read_text() == "[Unit]\n"
    assert [path.name for path in units.iterdir()] == ["barehub.target"]


def test_a_signal_ends_the_engine_and_cleans_up(tmp_path: Path) -> None:
    fifo = tmp_path / "started"
    os.mkfifo(fifo)
    fill = f'#!/bin/sh\nmkdir -p "$2/bin"\nexec sleep 100 >{fifo}\n'
    installer = write(tmp_path, fill=fill)
    command = ["sh", installer, "-b", "-p", tmp_path / "base"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        started = fifo.open()  # opens when the engine runs
        process.terminate()
        assert started.read() == ""  # ends when the engine has
        assert "interrupted" in process.communicate(timeout=120)[1]
        started.close()
    assert process.returncode == 143
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_what_was_signed_is_kept_with_the_release(tmp_path: Path, shell: str) -> None:
    """Whenever it lies beside the installer, and also when the release's files are written again without it."""
    base, beside = tmp_path / "base", tmp_path / "published"
    beside.mkdir()
    about = base / "releases/2026.11.24/share/barehub"
    installer = write(tmp_path, release='{"version": "2026.11.24"}\n').rename(beside / "installer.sh")
    words = (installer, "-b", "-s", "-p", str(base))
    assert run(*words, shell=shell).returncode == 0
    assert not list(about.glob("SHA256SUMS*"))

    signature, secret = "-----BEGIN SSH SIGNATURE-----\n", tmp_path / "secret"
    (beside / "SHA256SUMS.sig").write_text(signature)
    secret.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (beside / "SHA256SUMS.asc").symlink_to(secret)
    (beside / "SHA256SUMS").write_text(f"{'0' * 64}  other.release.json\n")  # some other release's
    assert run(*words, shell=shell).returncode == 0
    assert not list(about.glob("SHA256SUMS*"))

    sums = f"{hashlib.sha256((about / 'release.json').read_bytes()).hexdigest()}  it.release.json\n"
    (beside / "SHA256SUMS").write_text(sums)
    (beside / "SHA256SUMS").chmod(0o600)
    for options in ((), ("-f",)):
        assert run(*words, *options, shell=shell).returncode == 0
        kept = {path.name: path.read_text() for path in about.glob("SHA256SUMS*")}
        assert kept == {"SHA256SUMS": sums, "SHA256SUMS.sig": signature}
        assert (about / "SHA256SUMS").stat().st_mode & 0o777 == 0o644
        for path in beside.glob("SHA256SUMS*"):
            path.unlink()
    before = {path: path.stat().st_ctime_ns for path in about.iterdir()}
    (beside / "SHA256SUMS").write_text(sums)
    assert run(*words, shell=shell).returncode == 0
    assert {path: path.stat().st_ctime_ns for path in about.iterdir()} == before
