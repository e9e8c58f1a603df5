"""The administrator's commands in README.md and ADMIN.md work on a machine, in their order."""

import re
from pathlib import Path

import pytest

from tests.machines.hub_client import BAREHUB, TEST_CONFIG
from tests.machines.machine import Machine
from tests.readme import ADMIN, README, commands
from tests.unit.wheels import make

# What needs a release that is signed: test_variations.py has one. The users' environment is in test_environment.py.
SIGNED = re.compile("allowed_signers|SHA256SUMS|release.json")


def on_the_machine(document: Path, releases: tuple[Path, Path]) -> list[str]:
    """Return the commands of a document for the machine's root shell, with these releases in place of those it names.

    The first release that the document names is the older one.
    """
    written = dict.fromkeys(re.findall(r"barehub-(\d{4}\.\d\d\.\d\d)-Linux", document.read_text()))
    real = dict(zip(written, (one.name.split("-")[1] for one in releases), strict=True))
    found = [line.removeprefix("sudo ") for line in commands(document) if "release.py" not in line]
    found = [line for line in found if not SIGNED.search(line) and not line.startswith("sh lab-")]
    return [re.sub("|".join(real), lambda match: real[match[0]], line) for line in found]


def carry_out(machine: Machine, line: str) -> None:
    """Run a command in /mnt, with yes for an answer to all that it asks."""
    answered = f"cd /mnt && yes | {{ {line}\n}}"
    if "status" in line:  # what was restarted just before needs a moment
        machine.eventually("sh", "-euc", answered)
    else:
        machine.succeed("sh", "-euc", answered)


@pytest.fixture
def with_installers(machine: Machine, older: Path, installer: Path) -> Machine:
    """The machine, with both installers in /mnt and no installation."""
    for one in (older, installer):
        if machine.run("test", "-e", f"/mnt/{one.name}").returncode:
            machine.copy_in(one, f"/mnt/{one.name}")
    return machine


def test_an_administrators_commands_work_in_the_order_of_the_guide(
    with_installers: Machine, older: Path, installer: Path, tmp_path: Path
) -> None:
    machine = with_installers
    for command in on_the_machine(ADMIN, (older, installer)):
        line = command.replace("--extract DIR", "--extract /mnt/unpacked")
        if "--find-links=/srv/wheels" in line:
            wheel = make(tmp_path, name=line.split()[-1].replace("-", "_"))
            machine.succeed("mkdir", "/srv/wheels")
            machine.copy_in(wheel.path, f"/srv/wheels/{wheel.path.name}")
        if "--restore" in line:  # on a machine without that installation
            machine.succeed(BAREHUB, "uninstall", "-y")
        carry_out(machine, line)
    machine.succeed("test", "-e", "/mnt/unpacked/linux-64/repodata.json.zst")
    machine.fails("ls", "/opt/barehub")


def test_the_first_hour_works_as_the_readme_has_it(with_installers: Machine, older: Path, installer: Path) -> None:
    machine = with_installers
    for line in on_the_machine(README, (older, installer)):
        if line.endswith("barehub help"):
            assert machine.succeed("sh", "-euc", line).startswith("# Administrator's guide")
            assert "--require-same-packages" in machine.succeed(BAREHUB, "help", "upgrade")
        else:
            carry_out(machine, re.sub(r"-x86_64\.sh$", r"\g<0> -b", line))  # which asks where to install
            machine.write("/opt/barehub/jupyterhub_config.d/90-test.py", TEST_CONFIG)
    machine.eventually(BAREHUB, "status")
