"""What the installer refuses before it writes anything."""

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.unit import installers
from tests.unit.installers import SHELLS, give_by_acl, refused, run, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    return write(tmp_path)


HTTPS = ["-b", "--bind-url", "https://hub.example.org"]


@pytest.mark.parametrize(
    ("options", "code", "what"),
    [
        (["--bogus"], 2, "unknown option: --bogus"),
        (["-p"], 2, "-p needs a value"),
        (["-b", "--no-start=yes"], 2, "--no-start has no value"),
        (["-b", "--name"], 2, "--name needs a value"),
        (["-b", "--name="], 2, "--name needs a value"),
        (["-b", "--name", "-u"], 2, "--name needs a value"),
        (["-b", "--name", "-u", "x"], 2, "unknown option: x"),
        (["-b", "--no-start", "x"], 2, "unknown option: x"),
        (["-b", "--base=/x"], 2, "unknown option: --base=/x"),
        (["-b", "--bind=http://:1"], 2, "unknown option: --bind=http://:1"),
        (["-b", "--wait", "5s"], 2, "is not a number of seconds"),
        (["-b", "--keep", "0"], 2, "is not a number of releases"),
        (["-b", "-p", "/with space"], 2, "cannot be the base directory"),
        (["-b", "-p", "/ümlaut"], 2, "cannot be the base directory"),
        (["-b", "-p", "/"], 2, "cannot be the base directory"),
        (["-b", "-p", "/opt/../etc"], 2, "cannot be the base directory"),
        (["-b", "--name", "Bad_Name"], 2, "cannot be a unit name"),
        (["-b", "--hub-user", "nobody-here"], 2, "no account 'nobody-here'"),
        (["-b", "--hub-user", "0"], 2, "'0' is a number"),
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
        ([*HTTPS, "--acme-ca-server", "https://ca/dir"], 2, "needs an e-mail address"),
        ([*HTTPS, "--acme-email", "nobody"], 2, "'nobody' is not an e-mail address"),
        ([*HTTPS, "--acme-email", "a@b@c"], 2, "is not an e-mail address"),
        ([*HTTPS, "--acme-email", "a@b.org", "--acme-ca-server", "http://ca"], 2, "is not an https URL"),
        ([*HTTPS, "--acme-email", "a@b.org", "--acme-ca-bundle", "/nowhere"], 2, "cannot read /nowhere"),
        (["-b", "--bind-url", "https://:443", "--acme-email", "a@b.org"], 2, "ACME needs a host name"),
        (["-b", "--bind-url", "https://192.0.2.7", "--acme-email", "a@b.org"], 2, "ACME needs a host name"),
        (["-b", "-p", "/etc/passwd/x"], 6, "is not a directory"),
        (["-b", "-p", "/proc/x"], 4, "/proc has 0 MB free"),
        ([], 2, "no answer on standard input"),
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


def test_a_refusal_names_the_system_and_the_way_out(tmp_path: Path) -> None:
    done = run(write(tmp_path, GLIBC="2.99"), "-b", "-p", str(tmp_path / "base"))
    name = re.search(r"^PRETTY_NAME=\"?([^\"\n]*)", Path("/etc/os-release").read_text(), re.MULTILINE)
    assert name is not None
    assert f"error: {name[1]} has glibc 2." in done.stderr
    assert "fix: it runs on EL 8+, Debian 10+; a build with the portable interpreter" in done.stderr


@pytest.mark.parametrize(("version", "code"), [("systemd 238 (238-1)", 3), ("systemd 239 (239-82.el8)", 0), ("", 3)])
def test_a_systemd_that_is_too_old_is_refused(installer: Path, version: str, code: int) -> None:
    header = installer.read_bytes().rpartition(b"\nmain")[0].decode()
    [functions] = re.findall(
        r"^check_systemd\(\) \{.*?^\}.*?^system_name\(\) \{.*?^\}", header, re.DOTALL | re.MULTILINE
    )
    script = f"""set -eu
    systemctl() {{ echo '{version}'; echo +PAM; }}
    die() {{ echo "$2; $3"; exit "$1"; }}
    runs_on='EL 8+' needed_systemd=239
    {functions}
    check_systemd"""
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, "which is too old: 239 is needed" in done.stdout) == (code, code == 3), done


def test_a_directory_of_somebody_else_is_refused(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").write_text("theirs")
    refused(run(installer, "-b", "-p", str(tmp_path / "theirs")), 6, "not empty and not a barehub")
    refused(run(installer, "-b", "-u", "-p", str(tmp_path / "new")), 6, "nothing to upgrade")
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


def test_the_port_of_a_running_installation_is_its_own(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        options = ("-b", "-p", str(tmp_path / "base"), "--bind-url", f"http://:{port}")
        refused(run(write(tmp_path), *options), 8, f"port {port} is in use by")
    refused(run(write(tmp_path), *options[:-1], "http://:99999"), 2, "99999 is not a port")


def test_the_kinds_of_mounts_that_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    preflight, *others = installers.SCRIPTS
    staged = tmp_path / preflight.name
    staged.write_text(preflight.read_text().replace("/proc/self/mounts", str(mounts)))
    monkeypatch.setattr(installers, "SCRIPTS", (staged, *others))
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


@pytest.mark.parametrize("shell", SHELLS)
def test_a_path_is_written_in_one_way(installer: Path, tmp_path: Path, shell: str) -> None:
    """Units and packages hold it, and what is refused for its place must be recognized."""
    for path in (f"/{tmp_path}/base", f"{tmp_path}//./base/.", f"{tmp_path}/./././base/"):
        done = run(installer, "-b", "-s", "--dry-run", "-p", path, shell=shell)
        assert f"  write    {tmp_path}/base/releases/2026.11.24 (" in done.stdout, done


def test_the_callers_options_for_tar_do_not_count(installer: Path, tmp_path: Path) -> None:
    done = run(installer, "-b", "-s", "-p", str(tmp_path / "base"), TAR_OPTIONS="--exclude=engine")
    assert done.returncode == 0, done


def test_releases_of_something_else_are_left_alone(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "app/releases/20260101").mkdir(parents=True)
    (tmp_path / "app/.staging/theirs").mkdir(parents=True)
    refused(run(installer, "-b", "-p", str(tmp_path / "app")), 6, "not empty and not a barehub")
    (tmp_path / "disk/lost+found").mkdir(parents=True)
    assert run(installer, "-b", "-s", "-p", str(tmp_path / "disk")).returncode == 0


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


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's BASE is that user's")
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o2775, None])
def test_a_base_that_others_can_change_is_not_roots(installer: Path, tmp_path: Path, mode: int | None) -> None:
    base = tmp_path / "base"
    (base / ".staging").mkdir(parents=True)
    (base / ".staging/barehub").touch()
    if mode is None:
        os.chown(base, 65534, 65534)
    else:
        os.chown(base, 0, 65534 if mode & 0o002 == 0 else 0)  # root's own group is as good as root
        base.chmod(mode)
    refused(run(installer, "-b", "-p", str(base)), 6, f"others than root can change {base}: d")
    assert [path.name for path in base.iterdir()] == [".staging"]


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's BASE is that user's")
def test_an_account_that_an_acl_names_is_another_one(installer: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    give_by_acl(base, 65534)
    refused(run(installer, "-b", "-p", str(base)), 6, f"others than root can change {base}: d")
    base.chmod(0o755)  # which takes it away (acl(5))
    assert run(installer, "-b", "-p", str(base)).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's directories are that user's")
def test_a_directory_above_that_others_can_change_is_refused_where_services_run(tmp_path: Path) -> None:
    functions = "".join((ROOT / "construct" / name).read_text() for name in ("preflight.sh", "steps.sh"))
    script = f"""{functions}
        die() {{ printf '%s\n' "$2" "$3"; exit "$1"; }}
        systemd_runs() {{ true; }}
        elsewhere='-p'
        base={tmp_path}/deep/base anchor={tmp_path}/deep
        check_ground"""
    (tmp_path / "deep").mkdir()
    tmp_path.chmod(0o1777)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert f"others than root can change {tmp_path}: " in done.stdout
    assert f"chown root {tmp_path}; chmod go-w {tmp_path}" in done.stdout
