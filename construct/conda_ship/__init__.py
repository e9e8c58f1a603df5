"""The engine conda-ship: a native runtime (glibc >= 2.17) stamped with the lock, which fills a prefix offline.

construct/engines.py has the contract. https://conda-incubator.github.io/conda-ship/reference/configuration/
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from importlib.metadata import version as installed_version
from pathlib import Path
from zipfile import ZipFile

from rattler import LockChannel, LockFile, LockPlatform, RepoDataRecord

from construct.process import run_quietly
from recipe import pins
from recipe.elf import require_machine
from recipe.errors import UserError
from recipe.metadata import MACHINES, PLATFORM
from recipe.shipped import running_target
from recipe.venv import TOOLS

NAME = "conda-ship"
COPIES = 2  # as unpacked, and in the runtime's cache
FILL = Path(__file__).with_name("fill.sh")
# The runtime refuses a lock without URLs but never uses them offline; they end up in conda-meta. RFC 2606's .invalid
# keeps a later `conda update` from asking any server.
CHANNEL = "https://channel.invalid/barehub/"
AGAIN = "rm -r .venv, then run this again"

MANIFEST = """\
[workspace]
name = "barehub"
channels = ["{channel}"]
platforms = ["{platform}"]

[dependencies]
{dependencies}

[tool.conda-ship]
runtime-name = "barehub"
runtime-version = "{release}"
delegate-executable = "python"
artifact-layout = "online"
source-environment = "default"
"""


def command() -> list[str] | None:
    """Return the words that run conda-ship; None if it is not installed."""
    program = shutil.which("cs")
    return [program] if program else None


def require_command() -> list[str]:
    """Return the words that run conda-ship. Raises UserError if it is not installed."""
    found = command()
    if found is None:
        raise UserError("there is no conda-ship", AGAIN)
    return found


def version() -> str:
    """Return the version of the installed conda-ship."""
    return installed_version("conda-ship")


def build(
    records: Sequence[RepoDataRecord],
    specs: Sequence[str],
    platform: str,
    release: str,
    payload: Path,
    work: Path,
) -> None:
    """Write the runtime to payload/engine; `specs` become the requested packages in conda's history.

    For another machine's `platform` it is made from the template in conda-ship's wheel for that machine.
    """
    lock = LockFile([LockPlatform(platform)])
    lock.set_channels("default", [LockChannel(CHANNEL)])
    for record in records:
        url = f"{CHANNEL}{record.subdir}/{record.file_name}"
        neutral = RepoDataRecord(record, record.file_name, url, CHANNEL)
        lock.add_conda_package("default", LockPlatform(platform), neutral)
    work.mkdir()
    lock.to_path(work / "pixi.lock")
    dependencies = "\n".join(f'{name} = "{rest or "*"}"' for name, _, rest in (one.partition(" ") for one in specs))
    (work / "pixi.toml").write_text(
        MANIFEST.format(channel=CHANNEL, platform=platform, dependencies=dependencies, release=release)
    )
    command = [*require_command(), "build", f"--manifest={work / 'pixi.toml'}", f"--out-dir={work / 'out'}"]
    if platform != PLATFORM:
        template = unpack_template(fetch_other(TOOLS, platform, work), MACHINES[platform])
        command += [
            f"--platform={platform}",
            f"--target={MACHINES[platform]}-unknown-linux-gnu",
            f"--template={template}",
        ]
    run_quietly(
        command,
        {**os.environ, "SOURCE_DATE_EPOCH": "0"},
        problem="conda-ship failed",
        fix=AGAIN,
    )
    runtime = payload / "engine/runtime"
    shutil.move(work / "out/barehub", runtime)
    runtime.chmod(0o755)
    (payload / "engine/authority.pem").write_text(an_authority())


def fetch_other(tools: Path, platform: str, directory: Path) -> Path:
    """Download conda-ship's wheel for another machine's `platform` to `directory`, as `tools` pins it; return its path.

    Raises UserError if it cannot be had.
    """
    requirements = directory / "conda-ship.txt"
    requirements.write_text(pins.render({NAME: pins.read(tools)[NAME]}, "The engine's template."))
    target = replace(running_target(), platform=platform)
    pins.download(requirements, directory, target.minor, target.machine)
    requirements.unlink()
    [wheel] = directory.glob(f"conda_ship-*{target.machine}.whl")
    return wheel


def unpack_template(wheel: Path, machine: str) -> Path:
    """Unpack the runtime's template from conda-ship's wheel beside that, and return its path.

    Raises UserError if it is not for `machine`.
    """
    with ZipFile(wheel) as archive:
        [member] = [name for name in archive.namelist() if name.endswith("/cs-template")]
        template = Path(archive.extract(member, wheel.parent))
    require_machine([template], machine, wheel.name)
    return template


def an_authority() -> str:
    """Return any authority's certificate: the runtime does not start on a machine that knows none, though it asks none.

    It is the first one that pip brings.
    """
    text = resources.files("pip._vendor.certifi").joinpath("cacert.pem").read_text()
    end = "-----END CERTIFICATE-----\n"
    return text[text.index("-----BEGIN") :].partition(end)[0] + end
