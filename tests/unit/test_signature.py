"""barehub.signature: whose signature counts, on the tools of the system."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from barehub.errors import Exit
from barehub.layout import Layout

from construct.signing import sign_release
from tests.conftest import cannot_run
from tests.unit.installations import NEW, fake_command
from tests.unit.releases import make_verifiable, verified

NAME = f"barehub-{NEW}-Linux-x86_64.release.json"
TOOLS = {".sig": "ssh-keygen", ".asc": "gpg"}


@pytest.fixture
def release(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    layout.base.chmod(0o755)
    return make_verifiable(layout, monkeypatch)


@pytest.fixture(params=TOOLS)
def key(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: Layout) -> str:
    """A key that the administrator trusts, as `sign_release` names it."""
    for tool in (TOOLS[request.param], "gpgv"):
        if not shutil.which(tool):
            cannot_run(f"there is no {tool}")
    return make_key(request.param, tmp_path, monkeypatch, release.allowed_signers)


def make_key(suffix: str, directory: Path, monkeypatch: pytest.MonkeyPatch, signers: Path | None = None) -> str:
    """Make a key for signatures with this suffix; with `signers`, write its public part there or beside it."""
    if suffix == ".sig":
        path = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        if signers:
            signers.write_text(f"barehub {path.with_suffix('.pub').read_text()}")
        return str(path)
    home = directory / "gnupg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    words = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "releases@example.org"]
    subprocess.run(words, check=True, capture_output=True)
    if signers:
        subprocess.run(["gpg", "--export", "--output", signers.with_suffix(".gpg")], check=True)
    subprocess.run(["gpgconf", "--kill", "all"], check=False)
    return "releases@example.org"


def sign(release: Layout, key: str, name: str = NAME) -> Path:
    """Put what is signed into the release, as its installer does; return the signature."""
    output = release.base.parent / "dist"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    shutil.copy(release.receipt(NEW), output / name)
    signature = sign_release(output, key)
    subprocess.run(["gpgconf", "--kill", "all"], check=False)  # the agent that gpg has started
    for path in (output / "SHA256SUMS", signature):
        shutil.copy(path, release.share)
    return release.share / signature.name


def test_a_release_that_is_signed_by_a_trusted_key_is_good(release: Layout, key: str) -> None:
    sign(release, key)
    code, said = verified(release)
    assert code == 0, said
    assert any(line.startswith("signature: Good ") for line in said)


def unsigned(release: Layout, why: str) -> None:
    code, said = verified(release)
    assert code == Exit.INTEGRITY
    [line] = [line for line in said if line.startswith("  ")]
    assert line.startswith("  unsigned  SHA256SUMS: ")
    assert why in line


def test_where_there_is_a_key_a_release_has_to_be_signed_by_it(
    release: Layout, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsigned(release, "it has no signature")
    signature = sign(release, key)
    good = signature.read_bytes()

    signature.write_bytes(b"")
    unsigned(release, "is no signature by a key in")
    signature.write_bytes(good)
    sums = release.share / "SHA256SUMS"
    listed = sums.read_text()
    sums.write_text(f"{listed}{'0' * 64}  more\n")
    unsigned(release, "is no signature by a key in")
    sums.write_text("")
    unsigned(release, f"does not list its receipt as {NAME}")
    sums.unlink()
    unsigned(release, "it has no signature")

    other = tmp_path / "other"
    other.mkdir()
    sign(release, make_key(signature.suffix, other, monkeypatch))
    unsigned(release, "is no signature by a key in")


def test_an_older_release_in_a_newer_ones_place_is_not_signed(release: Layout, key: str) -> None:
    sign(release, key, NAME.replace(NEW, "2026.10.24"))
    unsigned(release, f"does not list its receipt as {NAME}")


def test_another_release_that_agrees_with_itself_is_not_signed(release: Layout, key: str) -> None:
    sign(release, key)
    with release.receipt(NEW).open("a") as receipt:
        receipt.write("\n")
    assert (
        hashlib.sha256(release.receipt(NEW).read_bytes()).hexdigest() not in (release.share / "SHA256SUMS").read_text()
    )
    unsigned(release, f"does not list its receipt as {NAME}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_that_others_could_have_put_there_does_not_count(release: Layout, key: str) -> None:
    sign(release, key)
    place = next(path for path in release.base.glob("allowed_signers*"))

    def refused(what: Path) -> None:
        code, said = verified(release)
        assert code == Exit.ERROR
        assert any(f"others can change {place}: {what} is not safe" in line for line in said), said

    place.chmod(0o666)
    refused(place)
    place.chmod(0o644)
    os.chown(place, 65534, 0)
    refused(place)
    os.chown(place, 0, 0)
    others = release.base.parent / "others"
    others.mkdir()
    os.chown(others, 65534, 0)
    place.rename(others / "kept")
    place.symlink_to(others / "kept")
    refused(others)
    place.unlink()
    (release.base / "kept").touch()
    place.symlink_to(others / "way")
    (others / "way").symlink_to(release.base / "kept")
    refused(others)
    place.unlink()
    (release.base / "kept").unlink()
    (others / "kept").replace(place)
    os.chown(release.base.parent, 65534, 0)
    refused(release.base.parent)
    os.chown(release.base.parent, 0, 0)
    assert verified(release)[0] == 0


@pytest.mark.parametrize(
    ("suffix", "script", "why"),
    [
        (".sig", "echo unknown option -- Y >&2; exit 1", "was not checked: ssh-keygen is too old"),
        (".sig", "", "was not checked: there is no ssh-keygen"),
        (".gpg", "", "was not checked: there is no gpgv"),
    ],
)
def test_a_signature_that_cannot_be_checked_is_not_called_bad(
    release: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, script: str, why: str
) -> None:
    sums = f"{hashlib.sha256(release.receipt(NEW).read_bytes()).hexdigest()}  {NAME}\n"
    (release.share / "SHA256SUMS").write_text(sums)
    (release.share / "SHA256SUMS.sig").touch()
    (release.share / "SHA256SUMS.asc").touch()
    release.allowed_signers.with_suffix(suffix.replace(".sig", "")).touch()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(os, "defpath", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    if script:
        fake_command(tmp_path / "bin", "ssh-keygen", script, monkeypatch)
        (tmp_path / "bin/sh").symlink_to("/bin/sh")
    code, said = verified(release)
    assert code == Exit.ERROR, said
    assert any(why in line for line in said), said


def test_damage_counts_more_than_what_could_not_be_checked(release: Layout) -> None:
    release.allowed_signers.touch(0o666)
    release.allowed_signers.chmod(0o666)
    (release.prefix / "bin/tool").write_text("")
    assert verified(release)[0] == Exit.INTEGRITY
