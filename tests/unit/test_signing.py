"""`release.py build --sign`: what the administrator's one command accepts and rejects."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from construct.signing import check_command, require_signable, sign_release
from recipe.errors import UserError
from tests.conftest import cannot_run

STEM = "barehub-2026.11.24-Linux-x86_64"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A release's directory."""
    output = tmp_path / "dist"
    output.mkdir()
    for suffix in (".sh", ".sh.sha256", ".packages.txt", ".cdx.json"):
        (output / f"{STEM}{suffix}").write_text(suffix)
    return output


@pytest.fixture(params=["ssh-keygen", "gpg"])
def key(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A key, and for the administrator its public part: allowed_signers, or gpg's key ring."""
    if not shutil.which(request.param):
        cannot_run(f"there is no {request.param}")
    if request.param == "gpg":
        home = tmp_path / "gnupg"
        home.mkdir(mode=0o700)
        monkeypatch.setenv("GNUPGHOME", str(home))
        words = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "releases@example.org"]
        subprocess.run(words, check=True, capture_output=True)
        yield "releases@example.org"
        subprocess.run(["gpgconf", "--kill", "all"], check=False)
        return
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    yield str(path)


def check(output: Path, signature: Path, key: str) -> int:
    """Run the README's command, as the administrator does; return its exit status."""
    if signature.suffix == ".sig":
        public = Path(f"{key}.pub").read_text()
        (output.parent / "allowed_signers").write_text(f"barehub {public}")
    command = check_command("barehub", signature).replace("allowed_signers", "../allowed_signers")
    return subprocess.run(
        ["sh", "-c", command], cwd=output, env=os.environ, capture_output=True, check=False
    ).returncode


def test_the_one_command_accepts_it_and_finds_every_change(output: Path, key: str) -> None:
    files = {path.name for path in output.iterdir()}
    require_signable(output, STEM, key)
    signature = sign_release(output, key)
    sums = (output / "SHA256SUMS").read_text()
    assert {line.split("  ")[1] for line in sums.splitlines()} == files
    assert {path.name for path in output.iterdir()} == files | {"SHA256SUMS", signature.name}
    assert check(output, signature, key) == 0

    for name in sorted(files):
        good = (output / name).read_text()
        (output / name).write_text("evil")
        assert check(output, signature, key) != 0
        (output / name).write_text(good)
    (output / "SHA256SUMS").write_text(sums + f"{'0' * 64}  more\n")
    assert check(output, signature, key) != 0


def test_what_was_signed_is_never_built_again(output: Path, key: str) -> None:
    sign_release(output, key)
    with pytest.raises(UserError, match="never changes"):
        require_signable(output, STEM, key)


def test_a_release_is_signed_in_a_directory_of_its_own(output: Path, key: str) -> None:
    (output / "barehub-2026.10.24-Linux-x86_64.sh").touch()
    with pytest.raises(UserError, match=r"holds barehub-2026\.10\.24"):
        require_signable(output, STEM, key)


def test_a_missing_key_is_found_before_anything_is_built(output: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GNUPGHOME", str(tmp_path))
    with pytest.raises(UserError) as caught:
        require_signable(output, STEM, "nobody@example.org")
    assert "--sign takes" in caught.value.fix or "install GnuPG" in caught.value.fix


def test_a_failure_leaves_no_checksums_without_a_signature(output: Path, tmp_path: Path) -> None:
    (tmp_path / "nokey").write_text("this is no key\n")
    with pytest.raises(UserError, match="signing failed"):
        sign_release(output, str(tmp_path / "nokey"))
    assert not list(output.glob("*SHA256SUMS*"))
    assert not list(output.glob(".*"))


def test_the_document_of_releases_has_the_one_command() -> None:
    document = (Path(__file__).parents[2] / "construct/README.md").read_text()
    for name in ("SHA256SUMS.sig", "SHA256SUMS.asc"):
        assert f"    {check_command('barehub', Path(name))}\n" in document
