"""The installer's two halves: the shell header and the tar, without a machine to install on."""

import hashlib
import os
import shutil
import socket
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

import construct.installer
from construct.build import release_label
from construct.installer import HEADER_BYTES, render_header, write_installer, write_sums
from recipe.errors import UserError

ROOT = Path(__file__).parents[2]
MOMENT = datetime(2026, 11, 24, tzinfo=UTC)
SHELLS = [shell for shell in ("sh", "dash", "bash", "zsh") if shutil.which(shell)]
NUMBERS = {
    "NAME": "barehub",
    "RELEASE": "2026.11.24",
    "MACHINE": "x86_64",
    "BASE": "/opt/barehub",
    "GLIBC": "2.17",
    "GLIBC_MINOR": 17,
    "INSTALLED_KB": 10,
    "NEEDED_KB": 100,
    "NEEDED_INODES": 10,
}
# Stands in for an engine: makes a prefix whose python only says how it was called.
FILL = """#!/bin/sh
set -eu
mkdir -p "$2/bin" "$2/share/barehub"
printf '#!/bin/sh\\necho "hooks: $*"; env >%s/environment\\n' "$2" >"$2/bin/python"
chmod 755 "$2/bin/python"
"""


EMPTY_INDEX = """{
 "info": {"subdir": "noarch"},
 "packages": {
 },
 "packages.conda": {
 },
 "removed": [],
 "repodata_version": 1
}
"""


def write(directory: Path, fill: str = FILL, release: str = "{}\n", **numbers: object) -> Path:
    payload = directory / "payload"
    for name, text in (
        ("packages.txt", "one 1.0\n"),
        ("release.json", release),
        ("engine/fill", fill),
        ("environment.lock.yml", "channels:\n  - ./channel\n"),
        ("sbom.cdx.json", "{}\n"),
        ("add_to_channel.sh", (ROOT / "construct/add_to_channel.sh").read_text()),
        ("channel/noarch/repodata.json", EMPTY_INDEX),
        ("channel/linux-64/repodata.json", EMPTY_INDEX.replace("noarch", "linux-64")),
    ):
        (payload / name).parent.mkdir(parents=True, exist_ok=True)
        (payload / name).write_text(text)
    (payload / "channel/linux-64").mkdir(parents=True, exist_ok=True)
    (payload / "channel/linux-64/random.conda").write_bytes(os.urandom(20_000))
    write_sums(payload)
    path = directory / "barehub-2026.11.24-Linux-x86_64.sh"
    write_installer(path, payload, {**NUMBERS, **numbers}, MOMENT)
    return path


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    return write(tmp_path)


def run(installer: Path, *options: str, shell: str = "sh", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shell, installer, *options],
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], code: int, what: str) -> None:
    """One line that says what is wrong and one that says what to do, on stderr, and nothing on stdout."""
    assert (done.returncode, done.stdout) == (code, ""), done
    wrong, fix = done.stderr.splitlines()
    assert wrong.startswith("error: ")
    assert what in wrong
    assert fix.startswith("  fix: ")


@pytest.mark.parametrize("shell", SHELLS)
def test_it_installs_under_every_shell(installer: Path, tmp_path: Path, shell: str) -> None:
    base = tmp_path / "base"
    done = run(installer, "-b", "-p", str(base), "--bind-url", "http://:1234", "--no-start", shell=shell)
    assert done.returncode == 0, done
    asked = "--name=barehub --bind-url=http://:1234 --no-start"
    hooks = f"hooks: -I -m barehub install --base={base} --release=2026.11.24 {asked}"
    assert done.stdout.splitlines()[-1] == hooks
    assert (base / "releases/2026.11.24/share/barehub/release.json").read_text() == "{}\n"
    assert [path.name for path in base.iterdir()] == ["releases"]


def test_options_are_constructors(installer: Path, tmp_path: Path) -> None:
    assert run(installer, "-bsp", str(tmp_path / "one")).returncode == 0
    done = run(installer, "-bs", f"-p{tmp_path}/base", f"--log={tmp_path}/log")
    assert done.returncode == 0, done
    assert "skipped the post-install hooks" in done.stdout
    assert (tmp_path / "log").read_text() == done.stdout
    usage = run(installer, "-h").stdout
    assert usage.startswith("barehub 2026.11.24 for Linux x86_64")
    assert "--dry-run" in usage


def test_the_caller_s_environment_stays_outside(installer: Path, tmp_path: Path) -> None:
    unwanted = ("PYTHONHOME", "PYTHONPATH", "CONDA_PREFIX", "MAMBA_ROOT_PREFIX", "PIP_INDEX_URL", "LD_LIBRARY_PATH")
    done = run(installer, "-b", "-p", str(tmp_path / "base"), **dict.fromkeys(unwanted, "/nowhere"), TMPDIR="/nowhere")
    assert done.returncode == 0, done
    seen = (tmp_path / "base/releases/2026.11.24/environment").read_text()
    assert not [name for name in (*unwanted, "TMPDIR") if f"{name}=" in seen]


def test_it_tells_what_it_holds_and_installs_nothing(installer: Path, tmp_path: Path) -> None:
    assert "is intact" in run(installer, "--verify").stdout
    assert run(installer, "--list").stdout == "one 1.0\n"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    refused(run(installer, "--extract", str(tmp_path / "other")), 2, "is not empty and no channel")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["file"]
    target = tmp_path / "mirror"
    for _ in range(2):
        assert run(installer, "--extract", str(target)).returncode == 0
        assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=target, check=False).returncode == 0
        assert sorted(path.name for path in target.iterdir()) == ["SHA256SUMS", "linux-64", "noarch", "releases"]
        assert (target / "noarch/repodata.json").read_text() == EMPTY_INDEX
    lock = target / "releases/barehub-2026.11.24/environment.lock.yml"
    assert lock.read_text() == "channels:\n  - ../..\n"
    with installer.open("rb") as file:
        file.seek(HEADER_BYTES)
        with tarfile.open(fileobj=file) as tar:
            assert "channel/linux-64/random.conda" in tar.getnames()


HTTPS = ["-b", "--bind-url", "https://hub.example.org"]


@pytest.mark.parametrize(
    ("options", "code", "what"),
    [
        (["--bogus"], 2, "unknown option: --bogus"),
        (["-p"], 2, "-p needs a value"),
        (["-b", "-p", "/with space"], 2, "cannot be the base directory"),
        (["-b", "-p", "/ümlaut"], 2, "cannot be the base directory"),
        (["-b", "-p", "/"], 2, "cannot be the base directory"),
        (["-b", "-p", "/opt/../etc"], 2, "cannot be the base directory"),
        (["-b", "--name", "Bad_Name"], 2, "cannot be a unit name"),
        (["-b", "--hub-user", "nobody-here"], 2, "no account 'nobody-here'"),
        (["-b", "--bind-url", "ftp://x"], 2, "is not a URL"),
        (["-b", "--bind-url", "https://:443"], 2, "needs a certificate"),
        (["-b", "--acme-email", "a@example.org"], 2, "a certificate needs an https URL"),
        (["-b", "--bind-url", "http://:80", "--tls-cert", "/x", "--tls-key", "/y"], 2, "needs an https URL"),
        ([*HTTPS, "--tls-cert", "/etc/passwd"], 2, "belong together"),
        ([*HTTPS, "--tls-key", "/etc/passwd"], 2, "belong together"),
        ([*HTTPS, "--tls-cert", "/nowhere", "--tls-key", "/etc/passwd"], 2, "cannot read /nowhere"),
        ([*HTTPS, "--tls-cert", "/etc", "--tls-key", "/etc/passwd"], 2, "cannot read /etc"),
        ([*HTTPS, "--tls-cert", "here.pem", "--tls-key", "/etc/passwd"], 2, "is not an absolute path"),
        ([*HTTPS, "--tls-cert", "/x", "--tls-key", "/y", "--acme-email", "a@b.org"], 2, "exclude each other"),
        ([*HTTPS, "--acme-ca-server", "https://ca/dir"], 2, "wants an e-mail address"),
        ([*HTTPS, "--acme-email", "nobody"], 2, "'nobody' is not an e-mail address"),
        ([*HTTPS, "--acme-email", "a@b@c"], 2, "is not an e-mail address"),
        ([*HTTPS, "--acme-email", "a@b.org", "--acme-ca-server", "http://ca"], 2, "is not an https URL"),
        ([*HTTPS, "--acme-email", "a@b.org", "--acme-ca-bundle", "/nowhere"], 2, "cannot read /nowhere"),
        (["-b", "--bind-url", "https://:443", "--acme-email", "a@b.org"], 2, "ACME needs a host name"),
        (["-b", "--bind-url", "https://192.0.2.7", "--acme-email", "a@b.org"], 2, "ACME needs a host name"),
        (["-b", "-p", "/etc/passwd/x"], 6, "is not a directory"),
        (["-b", "-p", "/proc/x"], 4, "/proc has 0 MB free"),
        ([], 2, "nobody answers"),
    ],
)
def test_a_wrong_option_is_refused(installer: Path, options: list[str], code: int, what: str) -> None:
    done = run(installer, *options)
    assert (done.returncode, done.stderr.splitlines()[0].startswith("error: ")) == (code, True), done
    assert what in done.stderr
    assert done.stderr.splitlines()[1].startswith("  fix: ")


def test_a_damaged_file_is_refused(installer: Path, tmp_path: Path) -> None:
    whole = installer.read_bytes()
    base = tmp_path / "base"
    installer.write_bytes(whole[:-1000])
    refused(run(installer, "-b", "-p", str(base)), 5, "is damaged: it has")
    installer.write_bytes(whole + b"junk\n")
    refused(run(installer, "-b", "-p", str(base)), 5, "is damaged: it has")
    middle = len(whole) - 3000
    installer.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    refused(run(installer, "-b", "-p", str(base)), 5, "its checksum is wrong")
    refused(run(installer, "--verify"), 5, "its checksum is wrong")
    assert not base.exists()


def test_a_system_that_cannot_run_it_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    refused(run(write(tmp_path, GLIBC="2.99", GLIBC_MINOR=99), "-b", "-p", str(base)), 3, "is too old")
    refused(run(write(tmp_path, NEEDED_KB=10**12), "-b", "-p", str(base)), 4, "MB are needed")
    refused(run(write(tmp_path, NEEDED_INODES=10**12), "-b", "-p", str(base)), 4, "inodes")
    assert not base.exists()


def test_a_directory_of_somebody_else_is_refused(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").write_text("theirs")
    refused(run(installer, "-b", "-p", str(tmp_path / "theirs")), 6, "not empty and not a barehub")
    refused(run(installer, "-b", "-u", "-p", str(tmp_path / "new")), 6, "nothing to update")
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["file"]


def test_another_release_needs_u_and_an_older_one_is_refused(installer: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "install.json").write_text('{"proxy_user": "x"}')
    (base / "hub").symlink_to("releases/2026.10.24")
    refused(run(installer, "-b", "-p", str(base)), 6, "already holds barehub 2026.10.24")
    assert run(installer, "-b", "-u", "-p", str(base)).returncode == 0
    (base / "hub").unlink()
    (base / "hub").symlink_to("releases/2026.11.24.1")
    refused(run(installer, "-b", "-u", "-p", str(base)), 6, "which is newer than 2026.11.24")


def test_a_second_installer_is_refused_while_one_is_at_work(installer: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    with subprocess.Popen(["flock", base, "sh", "-c", "echo locked; read -r _"], stdin=-1, stdout=-1) as holder:
        holder.stdout.readline()
        refused(run(installer, "-b", "-p", str(base)), 6, "another installer is at work")
        holder.communicate(b"\n")
    assert run(installer, "-b", "-p", str(base)).returncode == 0


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
    assert [path.name for path in base.iterdir()] == ["releases"]
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


def test_the_port_of_a_running_installation_is_its_own(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        options = ("-b", "-p", str(tmp_path / "base"), "--bind-url", f"http://:{port}")
        refused(run(write(tmp_path), *options), 8, f"port {port} is in use by")
    refused(run(write(tmp_path), *options[:-1], "http://:99999"), 2, "99999 is not a port")


def test_the_kinds_of_mounts_that_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    header = tmp_path / "header.sh"
    header.write_text(construct.installer.HEADER.read_text().replace("/proc/self/mounts", str(mounts)))
    monkeypatch.setattr(construct.installer, "HEADER", header)
    installer = write(tmp_path)
    for kind, options, what in (
        ("nfs4", "rw", "is on nfs4, where SQLite databases get corrupted"),
        ("lustre", "rw", "is on lustre"),
        ("ext4", "rw,nosuid,noexec", "is mounted noexec"),
        ("ext4", "ro", "is mounted read-only"),
    ):
        mounts.write_text(f"/dev/root / ext4 rw 0 0\nwhere {tmp_path} {kind} {options} 0 0\n")
        refused(run(installer, "-b", "-p", str(tmp_path / "base")), 6, what)


def test_a_log_that_cannot_be_written_is_refused(installer: Path, tmp_path: Path) -> None:
    refused(run(installer, "-b", "-p", str(tmp_path / "base"), "--log", "/nowhere/log"), 1, "cannot write /nowhere/log")
    assert not (tmp_path / "base").exists()


def test_a_path_is_checked_whole(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    done = subprocess.run(
        ["sh", installer, "-b", "-p", "foo"], cwd=tmp_path / "a b", capture_output=True, text=True, check=False
    )
    refused(done, 2, "cannot be the base directory")
    (tmp_path / "link").symlink_to(tmp_path / "a b")
    refused(run(installer, "-b", "-p", str(tmp_path / "link/base")), 2, "cannot be the base directory")


def test_releases_of_something_else_are_left_alone(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "app/releases/20260101").mkdir(parents=True)
    (tmp_path / "app/.staging/theirs").mkdir(parents=True)
    refused(run(installer, "-b", "-p", str(tmp_path / "app")), 6, "not empty and not a barehub")
    (tmp_path / "disk/lost+found").mkdir(parents=True)
    assert run(installer, "-b", "-s", "-p", str(tmp_path / "disk")).returncode == 0


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
        assert "interrupted" in process.communicate(timeout=30)[1]
        started.close()
    assert process.returncode == 143
    assert not (tmp_path / "base").exists()


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path)
    before = hashlib.sha256(first.read_bytes()).hexdigest()
    payload = tmp_path / "payload"
    for path in payload.rglob("*"):
        os.utime(path, (1, 1))
    write_installer(first, payload, NUMBERS, MOMENT)
    assert hashlib.sha256(first.read_bytes()).hexdigest() == before


def test_a_placeholder_without_a_value_is_a_bug() -> None:
    with pytest.raises(KeyError):
        render_header({})


@pytest.mark.parametrize("label", ["2026.11.24", "2026.02.28.1", "2026.11.24.12"])
def test_release_labels(label: str) -> None:
    assert release_label(label) == label


@pytest.mark.parametrize("label", ["2026.11.31", "2026.1.1", "26.11.24", "2026.11.24.0", "2026.11.24-1", ""])
def test_other_labels_are_refused(label: str) -> None:
    with pytest.raises(UserError, match="is not a release date"):
        release_label(label)


def test_another_distribution_gives_way_only_when_it_is_named(tmp_path: Path) -> None:
    base = tmp_path / "base"
    there = base / "releases/2026.10.24/share/barehub/release.json"
    there.parent.mkdir(parents=True)
    there.write_text('{\n "schema": 1,\n "name": "theirs",\n "engine": {"name": "x"}\n}\n')
    (base / "hub").symlink_to("releases/2026.10.24")
    ours = write(tmp_path, NAME="ours", release='{\n "name": "ours",\n "version": 1\n}\n')
    options = ("-b", "-p", str(base), "--no-start")
    refused(run(ours, *options), 6, "holds theirs 2026.10.24, which is not ours")
    refused(run(ours, *options, "-u"), 6, "holds theirs 2026.10.24, which is not ours")
    refused(run(ours, *options, "-u", "--from", "others"), 6, "which is not ours")
    done = run(ours, *options, "-u", "--from", "theirs")
    assert done.returncode == 0, done
    assert "--name=ours" in done.stdout


def test_a_release_of_another_distribution_is_not_taken_for_ours(tmp_path: Path) -> None:
    base = tmp_path / "base"
    there = base / "releases/2026.11.24/share/barehub/release.json"
    there.parent.mkdir(parents=True)
    there.write_text('{\n "name": "theirs",\n "version": 1\n}\n')
    refused(run(write(tmp_path), "-b", "-p", str(base)), 6, "is a release of theirs, not of barehub")
