"""The engine conda-ship: a native runtime (glibc >= 2.17) stamped with the lock, which fills a prefix offline.

An engine turns "lock and channel" into a directory with an executable `fill`, called as `fill CHANNEL PREFIX STAGE` on
the target; nothing else knows which one it was. https://conda-incubator.github.io/conda-ship/reference/configuration/
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rattler import LockChannel, LockFile, LockPlatform, RepoDataRecord

from recipe.errors import UserError

NAME = "conda-ship"
COPIES = 2  # of the payload, while it fills a prefix: as unpacked, and in its cache
# The runtime refuses a lock without URLs but never uses them offline; they end up in conda-meta. RFC 2606's .invalid
# keeps a later `conda update` from asking anybody.
CHANNEL = "https://channel.invalid/barehub/"

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


def engine_version() -> str:
    return version("conda-ship")


def build_engine(
    records: Sequence[RepoDataRecord],
    specs: Sequence[str],
    platform: str,
    release: str,
    payload: Path,
    work: Path,
) -> None:
    """Make payload/engine for the locked `records` of payload/channel; `work` is for what lies on the way.

    `specs` become the environment's requested packages in conda's history. Raises UserError if conda-ship fails.
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

    done = subprocess.run(
        ["cs", "build", f"--manifest={work / 'pixi.toml'}", f"--out-dir={work / 'out'}"],
        env={**os.environ, "SOURCE_DATE_EPOCH": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"conda-ship failed:\n{done.stderr.strip()}", "rm -r .venv, then run this again")
    engine = payload / "engine"
    engine.mkdir()
    shutil.move(work / "out/barehub", engine / "runtime")
    shutil.copyfile(Path(__file__).with_name("fill.sh"), engine / "fill")
    for name in ("runtime", "fill"):
        (engine / name).chmod(0o755)
