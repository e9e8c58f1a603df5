"""Every command of README.md: an administrator's on a machine, in order; a builder's are known to release.py."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.machines.machine import Machine
from tests.readme import README, commands
from tests.unit.wheels import make

ROOT = Path(__file__).parents[2]


def test_an_administrators_commands_work_in_the_order_of_the_readme(
    machine: Machine, older: Path, installer: Path, tmp_path: Path
) -> None:
    """The first release that the README names is the older one here, the second one this one."""
    written = dict.fromkeys(re.findall(r"barehub-(\d{4}\.\d\d\.\d\d)-Linux", README))
    real = dict(zip(written, (one.name.split("-")[1] for one in (older, installer)), strict=True))
    for one in (older, installer):
        machine.copy_in(one, f"/mnt/{one.name}")
    for command in commands("For administrators"):
        line = command.removeprefix("sudo ")  # the machine's shell is root's already
        line = re.sub("|".join(real), lambda match: real[match[0]], line).replace(
            "--extract DIR", "--extract /mnt/unpacked"
        )
        if "--find-links=/srv/wheels" in line:
            wheel = make(tmp_path, name=line.split()[-1].replace("-", "_"))
            machine.succeed("mkdir", "/srv/wheels")
            machine.copy_in(wheel.path, f"/srv/wheels/{wheel.path.name}")
        answered = f"cd /mnt && yes | {{ {line}\n}}"
        if "status" in line:  # what was restarted just before needs a moment
            machine.eventually("sh", "-euc", answered)
        else:
            machine.succeed("sh", "-euc", answered)
    machine.succeed("test", "-e", "/mnt/unpacked/linux-64/repodata.json.zst")
    machine.fails("ls", "/opt/barehub")


def builders_commands() -> list[str]:
    overlays = commands("Notebooks as Slurm jobs") + commands("One machine for a group")
    builds = [command for command in overlays if command.startswith("python3 release.py")]
    return builds + [
        command
        for part in ("For release builders", "For authors of distributions", "For maintainers")
        for command in commands(part)
    ]


@pytest.mark.parametrize("command", builders_commands())
def test_a_builders_commands_exist(command: str) -> None:
    words = shlex.split(command, comments=True)
    if "-m" in words:
        assert (ROOT / (words[words.index("-m") + 1].replace(".", "/") + ".py")).is_file()
        return
    if words[:2] != ["python3", "release.py"]:  # constructor, gpg and ssh-keygen have tests of their own
        assert words[0] in ("sh", "BAREHUB_PAYLOAD=/tmp/channel/releases/barehub-2026.11.24", "ssh-keygen", "gpg")
        return
    sys.path.insert(0, str(ROOT))
    from release import parse

    assert callable(parse(words[2:]).command)


def test_exit_codes_are_the_same_in_the_readme_and_the_installer() -> None:
    header = (ROOT / "construct/header.sh").read_text()
    told = README.partition("### Exit codes\n\n")[2].partition("\n\n")[0].replace("\n", " ")
    meanings = re.findall(r"(?<!\d)(\d) (\w+)", told)
    assert [int(code) for code, _ in meanings] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    for code, word in meanings:
        assert f"{code} {word}" in header.replace("\n#  ", ""), f"{code} {word}"
