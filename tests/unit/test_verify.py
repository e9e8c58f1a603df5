"""`release.py verify`: whatever was changed in an installer on the way is found and named."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from construct.contents import read_installer
from construct.installer import HEADER_BYTES, write_installer, write_sums
from construct.verify import verify
from recipe.errors import UserError
from recipe.files import file_sha256
from tests.unit.installers import NUMBERS

ROOT = Path(__file__).parents[2]


def write_payload(payload: Path, packages: dict[str, str]) -> None:
    """Write the files of a release, which agree with each other."""
    subdir = payload / "channel/linux-64"
    subdir.mkdir(parents=True)
    archives = {}
    for name, version in packages.items():
        archives[name] = subdir / f"{name}-{version}-h0_0.conda"
        archives[name].write_text(f"{name} {version}")
    hashes = {name: file_sha256(path) for name, path in archives.items()}
    index = {p.name: {"size": p.stat().st_size, "sha256": hashes[name]} for name, p in archives.items()}
    (subdir / "repodata.json").write_text(json.dumps({"packages.conda": index}))
    lines = [f'  - "{name}=={packages[name]}[build=h0_0,sha256={hashes[name]}]"\n' for name in packages]
    (payload / "environment.lock.yml").write_text("name: barehub\ndependencies:\n" + "".join(lines))
    (payload / "packages.txt").write_text("".join(f"{name} {version}\n" for name, version in packages.items()))
    components = [
        {"name": name, "version": packages[name], "hashes": [{"alg": "SHA-256", "content": hashes[name]}]}
        for name in packages
    ]
    about = {"component": {"name": "barehub", "version": "2026.11.24"}}
    (payload / "sbom.cdx.json").write_text(json.dumps({"metadata": about, "components": components}))
    describe(payload)


def describe(payload: Path) -> None:
    """Write what is written last: release.json and SHA256SUMS."""
    for name in ("release.json", "SHA256SUMS"):
        (payload / name).unlink(missing_ok=True)
    files = [
        {"path": str(path.relative_to(payload)), "size": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(payload.rglob("*"))
        if path.is_file()
    ]
    release = {
        "name": "barehub",
        "version": "2026.11.24",
        "platform": "linux-64",
        "glibc": "2.17",
        "engine": {"name": "conda-ship", "version": "1"},
        "lock_sha256": file_sha256(payload / "environment.lock.yml"),
        "files": files,
    }
    (payload / "release.json").write_text(json.dumps(release))
    write_sums(payload)


def pack(payload: Path, directory: Path) -> Path:
    path = directory / "barehub-2026.11.24-Linux-x86_64.sh"
    write_installer(path, payload, NUMBERS, datetime(2026, 11, 24, tzinfo=UTC))
    path.with_name(f"{path.name}.sha256").write_text(f"{file_sha256(path)}  {path.name}\n")
    return path


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    write_payload(tmp_path / "payload", {"one": "1.0", "two": "2.0"})
    return tmp_path / "payload"


@pytest.fixture
def installer(payload: Path, tmp_path: Path) -> Path:
    return pack(payload, tmp_path)


def wrong(installer: Path, channel: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        verify(installer, channel)
    assert caught.value.fix
    return str(caught.value)


def test_a_good_one_is_listed(installer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(installer, None)
    out = capsys.readouterr().out
    assert "one 1.0\ntwo 2.0\n" in out
    assert "barehub 2026.11.24 for linux-64, glibc >= 2.17" in out
    assert f"sha256 {file_sha256(installer)}, as {installer.name}.sha256 beside it says" in out


def test_without_a_checksum_beside_it_that_is_said(installer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installer.with_name(f"{installer.name}.sha256").unlink()
    verify(installer, None)
    assert "there is no barehub-2026.11.24-Linux-x86_64.sh.sha256" in capsys.readouterr().out


def test_it_runs_on_a_bare_python(installer: Path, tmp_path: Path) -> None:
    """From a checkout without .venv, with no package installed, and no pip."""
    checkout = tmp_path / "checkout"
    for name in ("construct", "recipe"):
        shutil.copytree(ROOT / name, checkout / name)
    shutil.copyfile(ROOT / "release.py", checkout / "release.py")
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    for words in (("verify", installer), ("diff", installer, installer)):
        done = subprocess.run(
            [python, "-S", checkout / "release.py", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda data: data[: HEADER_BYTES + 5000], "instead of"),
        (lambda data: data[:100], "is not an installer"),
        (lambda data: b"", "is not an installer"),
        (lambda data: data + b"x", "instead of"),
        (lambda data: data.replace(b"one 1.0", b"one 6.6"), "its payload is not what its header says"),
    ],
)
def test_damage_is_found(installer: Path, damage: Callable[[bytes], bytes], what: str) -> None:
    installer.write_bytes(damage(installer.read_bytes()))
    assert what in wrong(installer)


def test_a_header_that_was_changed_is_found_by_its_own_checksum_or_the_one_beside_it(installer: Path) -> None:
    data = installer.read_bytes()
    installer.write_bytes(data.replace(b"umask 022", b"umask 000"))
    assert "the script, was changed" in wrong(installer)
    forged = data.replace(b"umask 022", b"umask 000").replace(b"header_sha256", b"header_sha-256")
    installer.write_bytes(forged[:HEADER_BYTES].rstrip(b"\n").ljust(HEADER_BYTES, b"\n") + data[HEADER_BYTES:])
    assert ".sha256 says" in wrong(installer)


def test_a_checksum_file_that_does_not_name_the_file_is_no_check(installer: Path) -> None:
    installer.with_name("SHA256SUMS").write_text(f"{'0' * 64}  other.sh\n")
    assert f"SHA256SUMS says nothing about {installer.name}" in wrong(installer)


def replace_package(payload: Path) -> None:
    (payload / "channel/linux-64/one-1.0-h0_0.conda").write_text("evil")


def add_package(payload: Path) -> None:
    (payload / "channel/linux-64/evil-1.0-h0_0.conda").write_text("evil")


def drop_package(payload: Path) -> None:
    (payload / "channel/linux-64/one-1.0-h0_0.conda").unlink()


def edit_lock(payload: Path) -> None:
    lock = payload / "environment.lock.yml"
    lock.write_text(lock.read_text().replace("two==2.0", "two==2.1"))


def edit_sbom(payload: Path) -> None:
    sbom = payload / "sbom.cdx.json"
    sbom.write_text(sbom.read_text().replace('"2.0"', '"2.0.1"'))


def edit_index(payload: Path) -> None:
    index = payload / "channel/linux-64/repodata.json"
    index.write_text(index.read_text().replace('"size": 7', '"size": 8'))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (replace_package, "one-1.0-h0_0 is not what environment.lock.yml says"),
        (add_package, "evil-1.0-h0_0 is not in environment.lock.yml"),
        (drop_package, "one-1.0-h0_0 is in environment.lock.yml but missing"),
        (edit_lock, "two-2.1-h0_0 is in environment.lock.yml but missing"),
        (edit_sbom, "two 2.0.1 is in sbom.cdx.json but missing"),
        (edit_index, "is not what repodata.json says"),
    ],
)
def test_what_was_packed_again_with_good_checksums_is_found(
    payload: Path, tmp_path: Path, change: Callable[[Path], None], what: str
) -> None:
    """Its header, SHA256SUMS and release.json agree: what does not is the lock, the index or the SBOM."""
    change(payload)
    describe(payload)
    assert what in wrong(pack(payload, tmp_path))


def test_sums_that_do_not_fit_are_found(payload: Path, tmp_path: Path) -> None:
    (payload / "packages.txt").write_text("other\n")
    (payload / "new.txt").write_text("other\n")
    what = wrong(pack(payload, tmp_path))
    for where in ("SHA256SUMS", "release.json"):
        assert f"packages.txt is not what {where} says" in what
        assert f"new.txt is not in {where}" in what


def test_a_link_in_the_payload_is_refused(payload: Path, tmp_path: Path) -> None:
    (payload / "link").symlink_to("/etc/passwd")
    assert "a member that no release has: link" in wrong(pack(payload, tmp_path))


def test_an_unpacked_one_is_checked_as_well(payload: Path) -> None:
    verify(payload, None)
    replace_package(payload)
    assert "one-1.0-h0_0.conda is not what SHA256SUMS says" in wrong(payload)


def test_a_mirror_holds_each_package(installer: Path, payload: Path, tmp_path: Path) -> None:
    """It may hold others as well."""
    mirror = tmp_path / "mirror"
    shutil.copytree(payload / "channel", mirror)
    index = mirror / "linux-64/repodata.json"
    document = json.loads(index.read_text())
    document["packages.conda"]["other-1.0-h0_0.conda"] = {"sha256": "0" * 64}
    index.write_text(json.dumps(document))
    verify(installer, mirror)

    (mirror / "linux-64/one-1.0-h0_0.conda").write_text("one 1.0, more or less")
    (mirror / "linux-64/two-2.0-h0_0.conda").unlink()
    what = wrong(installer, mirror)
    assert "one-1.0-h0_0.conda is not the locked package" in what
    assert "lacks linux-64/two-2.0-h0_0.conda" in what


def test_a_directory_that_is_no_channel_is_refused(installer: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "is not a conda channel" in wrong(installer, tmp_path / "empty")


def test_what_is_read_is_what_was_packed(installer: Path, payload: Path) -> None:
    contents = read_installer(installer)
    assert {name: member.sha256 for name, member in contents.members.items()} == {
        path.relative_to(payload).as_posix(): file_sha256(path) for path in payload.rglob("*") if path.is_file()
    }
