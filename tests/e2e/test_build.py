"""The build, once more: it gives the same file, and what lies beside the installer fits it."""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from construct import conda_constructor, conda_ship
from construct.build import build_release
from construct.contents import read_installer
from construct.installer import HEADER_BYTES
from construct.verify import verify
from tests.machines import installers
from tests.readme import README

ROOT = Path(__file__).parents[2]


def test_two_builds_are_the_same_to_the_last_bit(installer: Path, tmp_path: Path) -> None:
    if read_installer(installer).release["engine"]["name"] == conda_constructor.NAME:
        pytest.skip("constructor's own builds differ")
    again = build_release(ROOT, date=installer.name.split("-")[1], output=tmp_path, engine=conda_ship.NAME)
    assert again.name == installer.name
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(installer.read_bytes()).digest()


def test_what_lies_beside_the_installer_fits_it(installer: Path) -> None:
    sums = ["sha256sum", "--check", "--quiet", f"{installer.name}.sha256"]
    subprocess.run(sums, cwd=installer.parent, check=True)
    listed = subprocess.run(["sh", installer, "--list"], capture_output=True, text=True, check=True).stdout
    verify(installer, None)
    stem = installer.name.removesuffix(".sh")
    assert (installer.parent / f"{stem}.packages.txt").read_text() == listed
    assert (installer.parent / f"{stem}.release.json").read_text() == read_installer(installer).text("release.json")
    sbom = json.loads((installer.parent / f"{stem}.cdx.json").read_text())
    assert len(sbom["components"]) == len(listed.splitlines())
    assert not [line for line in listed.splitlines() if line.startswith("nodejs")]


def test_they_need_the_room_that_the_readme_says(installer: Path) -> None:
    for path, what in ((installer, "needs {} of room"), (installers.environment("lab"), "the software {}.")):
        needed = re.search(rb"needed_kb=(\d+)", path.read_bytes()[:HEADER_BYTES])
        assert needed
        assert what.format(f"{int(needed[1]) * 1024 / 1e9:.1f} GB") in " ".join(README.read_text().split())


def test_the_libraries_for_logins_are_small(installer: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(installer.read_bytes()[HEADER_BYTES:])) as tar:
        found = [
            one.size for one in tar if re.search(r"/(ldap3|pyasn1|jupyterhub-ldapauth\w+|oauthenticator)-", one.name)
        ]
    assert len(found) == 4
    assert round(sum(found) / 1e6) == 1  # as construct/README.md has it
