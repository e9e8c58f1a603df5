"""construct.delta: an installer as far as it differs from an older one makes the whole, byte for byte, or nothing."""

import io
import json
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from construct.delta import SHORTEST, require_base, segments, write_delta
from construct.installer import write_installer
from recipe.errors import UserError
from recipe.files import file_sha256
from tests.unit.installers import MOMENT, NUMBERS, SHELLS, refused, write

OLD, NEW = "2026.10.24", "2026.11.24"


def release(label: str, name: str = "barehub", platform: str = "linux-64") -> str:
    return json.dumps({"name": name, "version": label, "platform": platform}, indent=1) + "\n"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write(tmp_path / "old", release=release(OLD), RELEASE=OLD)


@pytest.fixture
def whole(tmp_path: Path, old: Path) -> Path:
    """An installer that has a package of the older one, at another place, and one of its own."""
    path = write(tmp_path / "new", release=release(NEW), RELEASE=NEW)
    shared = old.with_name("payload") / "channel/linux-64/random.conda"
    channel = path.with_name("payload") / "channel/linux-64"
    (channel / "random.conda").write_bytes(shared.read_bytes())
    (channel / "another.conda").write_bytes(os.urandom(10_000))
    write_installer(path, path.with_name("payload"), {**NUMBERS, "RELEASE": NEW}, MOMENT)
    return path


@pytest.fixture
def delta(old: Path, whole: Path) -> Path:
    return write_delta(old, whole, "barehub", NEW, OLD)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where an administrator runs it."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def run(delta: Path, here: Path, *words: str | Path, shell: str = "sh") -> subprocess.CompletedProcess[str]:
    """Run a delta in `here`; what it writes is there."""
    return subprocess.run(
        [shell, *(["sh"] if shell == "busybox" else []), delta, *words],
        cwd=here,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_it_makes_the_whole_installer(delta: Path, old: Path, whole: Path, here: Path, shell: str) -> None:
    done = run(delta, here, old, shell=shell)
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"{whole.name} is as it was published: sha256 {file_sha256(whole)}\n")
    assert [path.name for path in here.iterdir()] == [whole.name]
    assert (here / whole.name).read_bytes() == whole.read_bytes()
    assert os.access(here / whole.name, os.X_OK)


def test_it_has_a_name_and_a_checksum_and_is_smaller(delta: Path, old: Path, whole: Path, here: Path) -> None:
    assert delta.name == f"barehub-{NEW}-Linux-x86_64.from-{OLD}.sh"
    assert delta.with_name(f"{delta.name}.sha256").read_text() == f"{file_sha256(delta)}  {delta.name}\n"
    assert delta.stat().st_size < whole.stat().st_size - 20_000
    before = delta.read_bytes()
    assert write_delta(old, whole, "barehub", NEW, OLD).read_bytes() == before
    told = run(delta, here, "-h").stdout
    assert told.startswith(f"barehub {NEW} for Linux x86_64, as far as it differs from the installer of {OLD}.\n")
    assert told.splitlines()[-1].startswith("exit status: ")


def test_options_are_the_installers_which_then_runs(delta: Path, old: Path, here: Path) -> None:
    done = run(delta, here, old, "-b", "-s", "-p", here / "base")
    assert done.returncode == 0, done
    assert (here / f"base/releases/{NEW}/share/barehub/release.json").read_text() == release(NEW)
    assert run(delta, here, old, "-b", "--bogus").returncode == 2


def test_only_the_installer_that_it_was_made_from_will_do(delta: Path, old: Path, whole: Path, here: Path) -> None:
    damaged = here.with_name("damaged.sh")
    damaged.write_bytes(old.read_bytes()[:-1] + b"x")
    for other in (damaged, whole, here / "none.sh", here):
        refused(run(delta, here, other, "-b"), 5, f"{other} is not {old.name} as it was published")
    refused(run(delta, here, "-b", "-u"), 2, "the first word is not a file: -b")
    assert list(here.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another account")
def test_an_older_one_that_cannot_be_read_is_not_said_to_be_another(delta: Path, old: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        here = Path(name)
        here.chmod(0o777)
        mine = Path(shutil.copy(delta, here))
        hidden = Path(shutil.copy(old, here))
        hidden.chmod(0o600)
        words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", mine, hidden, "-b"]
        done = subprocess.run(words, cwd=here, capture_output=True, text=True, check=False)
        refused(done, 2, f"cannot read {hidden}")
        assert {*here.iterdir()} == {mine, hidden}


def test_a_damaged_delta_makes_nothing(delta: Path, old: Path, here: Path) -> None:
    content = delta.read_bytes()
    for damaged in (content[:-1] + b"x", content[:-1000], content.replace(b"\nnew 0 ", b"\nnew 1 ")):
        delta.write_bytes(damaged)
        refused(run(delta, here, old, "-b"), 5, "is damaged: what it makes is not what was published")
        assert list(here.iterdir()) == []


def test_a_full_disk_leaves_nothing(delta: Path, old: Path, here: Path) -> None:
    limited = here.with_name("limited.sh")
    limited.write_text(f"ulimit -f 40; exec sh {delta} {old} -b\n")
    done = run(limited, here)
    assert done.returncode == 4
    assert f"error: the installer cannot be written to {here}\n" in done.stderr
    assert list(here.iterdir()) == []


def test_what_is_there_already_needs_no_older_one(delta: Path, old: Path, whole: Path, here: Path) -> None:
    run(delta, here, old)
    before = (here / whole.name).stat()
    assert run(delta, here, "gone.sh", "--verify").returncode == 0
    assert (here / whole.name).stat() == before
    (here / whole.name).write_text("something else")
    assert run(delta, here, old).returncode == 0
    assert file_sha256(here / whole.name) == file_sha256(whole)


@pytest.mark.parametrize(
    ("text", "label"), [(release(OLD, "lab"), NEW), (release(OLD, platform="linux-aarch64"), NEW), (release(OLD), OLD)]
)
def test_what_is_no_base_for_a_delta_is_refused_before_the_build(tmp_path: Path, text: str, label: str) -> None:
    with pytest.raises(UserError, match=f"no base for a delta of barehub {label} for linux-64") as caught:
        require_base(write(tmp_path, release=text), "barehub", label, "linux-64")
    assert caught.value.fix
    assert require_base(write(tmp_path, release=release(OLD)), "barehub", NEW, "linux-64") == OLD


@pytest.mark.parametrize("seed", range(5))
def test_segments_make_any_file_of_any_other(seed: int) -> None:
    chosen = random.Random(seed)
    parts = [chosen.randbytes(chosen.randrange(1, 20_000)) for _ in range(6)] + [bytes(10_000)]
    before, after = (b"".join(chosen.choices(parts, k=8)) for _ in range(2))
    plan = segments(io.BytesIO(before), io.BytesIO(after))
    made = b"".join((before if one.shared else after)[one.offset : one.end] for one in plan)
    assert made == after
    assert all(one.length >= SHORTEST for one in plan[:-1] if one.shared)
    assert segments(io.BytesIO(before), io.BytesIO(before))[0].length == len(before)
