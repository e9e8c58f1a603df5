"""`--rehearse`: the installer fills a prefix, waits for the hooks, and leaves what was there."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.unit.installers import FILL, refused, run, write


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    return write(tmp_path)


def older_release(base: Path) -> None:
    """Let BASE hold an active release that this installer is newer than."""
    (base / "releases/2026.10.24/share/barehub").mkdir(parents=True)
    (base / "releases/2026.10.24/share/barehub/release.json").write_text('{\n "name": "barehub",\n}\n')
    (base / "hub").symlink_to("releases/2026.10.24")
    (base / "install.json").write_text('{"proxy_user": "daemon"}\n')


def tree(base: Path) -> set[str]:
    return {str(path.relative_to(base)) for path in base.rglob("*")} - {".lock"}


@pytest.mark.parametrize("code", [0, 7])
def test_a_rehearsal_leaves_what_was_there_and_has_the_hooks_status(tmp_path: Path, code: int) -> None:
    base = tmp_path / "base"
    older_release(base)
    before = tree(base)
    installer = write(tmp_path, fill=FILL.replace("env >", f"[ -e {base}/.staging ] && exit 9; exit {code}; env >"))
    done = run(installer, "-b", "-u", "--rehearse", "--canary", "ada", "-p", str(base))
    assert done.returncode == code, done
    assert f"install --base={base} --release=2026.11.24 --name=barehub --rehearse --canary ada" in done.stdout
    assert tree(base) == before


def test_a_rehearsal_keeps_a_release_that_was_there(installer: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    older_release(base)
    assert run(installer, "-b", "-u", "-s", "-p", str(base)).returncode == 0
    before = tree(base)
    assert run(installer, "-b", "-u", "--rehearse", "-p", str(base)).returncode == 0
    assert before <= tree(base)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_rehearsal_after_it_has_cleaned_up(tmp_path: Path, number: signal.Signals) -> None:
    fifo, base = tmp_path / "started", tmp_path / "base"
    os.mkfifo(fifo)
    older_release(base)
    before = tree(base)
    # The hooks clean up when they get SIGTERM, and take their time.
    hooks = f"trap 'sleep 0.2; echo cleaned; exit 143' TERM\nexec 7>{fifo}\nwhile :; do sleep 0.01; done"
    installer = write(tmp_path, fill=FILL.replace("env >", f"{hooks}\nenv >"))
    command = ["sh", installer, "-b", "-u", "--rehearse", "-p", base]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        with fifo.open() as started:  # opens when the hooks run
            process.send_signal(number)
            assert started.read() == ""  # ends when they have
        said, complaints = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "cleaned" in said
    assert "interrupted" in complaints
    assert tree(base) == before


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--rehearse"], "are for an upgrade"),
        (["--canary", "ada"], "are for an upgrade"),
        (["-u", "--rehearse", "-f"], "--rehearse leaves nothing"),
        (["-u", "--rehearse", "-k"], "--rehearse leaves nothing"),
        (["-u", "--rehearse", "--dry-run"], "--rehearse leaves nothing"),
        (["-u", "--canary", "ada", "-s"], "-s skips the hooks"),
        (["-u", "--canary"], "--canary needs a value"),
        (["-u", "--rehearse=yes"], "--rehearse has no value"),
    ],
)
def test_options_that_do_not_go_with_a_rehearsal_are_refused(
    installer: Path, tmp_path: Path, options: list[str], what: str
) -> None:
    older_release(tmp_path / "base")
    before = tree(tmp_path / "base")
    refused(run(installer, "-b", *options, "-p", str(tmp_path / "base")), 2, what)
    assert tree(tmp_path / "base") == before
