"""The release workflow's own steps, in order, on a fresh Debian, with a bare repository for a remote.

What is not here is played: actions by the few lines below, and `gh` by a script that writes down how it was called.
Three steps are shortened, by variables that the workflow itself documents: `lock` lets one package move, `test` runs
one linter, or this test would run itself, and one more installer is built, not all. Without the portable interpreter,
Debian's glibc will do.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from recipe.standalone import is_standalone
from tests.conftest import cannot_run
from tests.machines.checkout import copy_checkout
from tests.machines.fresh_debian import FreshDebian

ROOT = Path(__file__).parents[2]
LABEL = "2026.11.24.7"
SHORTENED = {
    "DAYS_OLD": "0",  # the index may not say when a version was uploaded
    "LOCK": "--update six",
    "DISTRIBUTIONS": "overlays/single-node",
    "TESTS": "lint -- -k ruff_check",
}
if not is_standalone(Path(sys.base_prefix)):
    SHORTENED["GLIBC"] = "2.36"  # of Debian 12
GH = """\
#!/bin/sh
echo "$*" >>/runner/gh-calls
"""


def link(source: str, target: str) -> None:
    """A second name for a cached file, which is never written to; a copy on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


class Runner:
    """As much of a GitHub runner as the workflow uses. Its files are below /runner of a fresh Debian."""

    def __init__(self, debian: FreshDebian) -> None:
        self.debian = debian
        self.home = debian.root / "runner"
        for name in ("artifacts", "temp"):
            (self.home / name).mkdir(parents=True)
        stand_in = debian.root / "usr/local/bin/gh"  # found before the one that a step installs
        stand_in.write_text(GH)
        stand_in.chmod(0o755)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.home / "key"], check=True)
        self.values = {
            "github.token": "token",
            "github.repository": "owner/name",
            "inputs.label": LABEL,
            "secrets.SIGNING_KEY": (self.home / "key").read_text().strip(),
        }
        self.environment = {
            "GITHUB_OUTPUT": "/runner/output",
            "GITHUB_STEP_SUMMARY": "/runner/summary",
            "RUNNER_TEMP": "/runner/temp",
        }
        self.remote = self.make_remote()

    def make_remote(self) -> Path:
        """A bare repository with one commit: the files of this checkout as they are now."""
        remote, tree = self.home / "remote.git", self.home / "tree"
        copy_checkout(tree)
        who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        for words in (["init", "-q"], ["add", "--all"], [*who, "commit", "-q", "-m", "As it is"]):
            subprocess.run(["git", "-C", tree, *words], check=True)
        subprocess.run(["git", "clone", "-q", "--bare", tree, remote], check=True)
        return remote

    def fill_in(self, text: object) -> str:
        """A value with its expressions replaced; one that is not known is a KeyError."""
        return re.sub(r"\$\{\{ *(.*?) *\}\}", lambda match: self.values[match[1]], str(text))

    def variables(self, of: Mapping[str, Any]) -> dict[str, str]:
        return {name: self.fill_in(value) for name, value in of.get("env", {}).items()}

    def run_job(self, name: str, job: Mapping[str, Any]) -> None:
        """Run a job's steps in a new directory, with what an earlier job's artifacts hold and no more."""
        workspace = self.home / name
        workspace.mkdir()
        known = {variable: value for variable, value in SHORTENED.items() if variable in job.get("env", {})}
        for step in job["steps"]:
            print(f"{name}: {step.get('name', step.get('uses'))}")
            if "uses" in step:
                self.act(step["uses"].partition("@")[0], step.get("with", {}), workspace)
            else:
                more = {**self.variables(job), **known, **self.variables(step)}
                words = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"])
                self.debian.run(*words, at=f"/runner/{name}", environment=self.environment | more)
            if (self.home / "output").exists():
                label = (self.home / "output").read_text().partition("=")[2].strip()
                self.values |= {"steps.label.outputs.label": label, "needs.build.outputs.label": label}

    def act(self, action: str, options: Mapping[str, Any], workspace: Path) -> None:
        match action:
            case "actions/checkout":
                words = ("git", "clone", "-q", "/runner/remote.git", ".")
                self.debian.run(*words, at=f"/runner/{workspace.name}", environment={})
                for cached in ("wheels", "packages"):  # what a runner would download and convert
                    if (ROOT / ".cache" / cached).is_dir():
                        shutil.copytree(ROOT / ".cache" / cached, workspace / ".cache" / cached, copy_function=link)
            case "actions/upload-artifact":
                for path in options["path"].split():
                    source, target = workspace / path, self.home / "artifacts" / options["name"]
                    target.mkdir(exist_ok=True)
                    if source.is_dir():
                        shutil.copytree(source, target / source.name)
                    else:
                        shutil.copy2(source, target)
            case "actions/download-artifact":
                artifact = self.home / "artifacts" / options["name"]
                shutil.copytree(artifact, workspace / options["path"], dirs_exist_ok=True)
            case "actions/attest-build-provenance":
                assert list(workspace.glob(options["subject-path"]))
            case _:
                pytest.fail(f"{action} is not played here")


@pytest.mark.usefixtures("host")
def test_its_steps_make_a_signed_release_of_a_tagged_commit(tmp_path: Path) -> None:
    for program in ("git", "ssh-keygen"):
        if shutil.which(program) is None:
            cannot_run(f"there is no {program}")
    runner = Runner(FreshDebian.unpack(tmp_path / "debian"))
    for name, job in yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"].items():
        runner.run_job(name, job)

    home = runner.home
    files = home / "publish/release/dist"
    (home / "allowed").write_text(f"barehub {(home / 'key.pub').read_text()}")
    verify = ("ssh-keygen", "-Y", "verify", "-f", home / "allowed", "-I", "barehub", "-n", "file")
    with (files / "SHA256SUMS").open("rb") as sums:
        subprocess.run([*verify, "-s", files / "SHA256SUMS.sig"], stdin=sums, check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=files, check=True)
    for name in ("barehub", "single-node"):
        assert (files / f"{name}-{LABEL}-Linux-x86_64.sh").is_file()
    assert (files.parent / "notes.md").read_text().splitlines() == [
        *("# barehub", "Its first release.", "# single-node", "Its first release."),
    ]

    tagged = ["git", "-C", runner.remote, "log", "-1", "--format=%s", LABEL]
    assert subprocess.run(tagged, capture_output=True, text=True, check=True).stdout == f"Release {LABEL}\n"
    calls = (home / "gh-calls").read_text().splitlines()
    assert [call.partition(" --")[0] for call in calls] == [
        "release list",
        "auth setup-git",
        f"release create {LABEL}",
    ]
    assert "SHA256SUMS.sig" in calls[-1]
    assert not (home / "temp/key").exists()
    shutil.rmtree(runner.debian.root)  # more than a gigabyte
