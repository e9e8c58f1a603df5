"""Conda channels as the source of packages: conda-forge, a site's own by URL, a directory such as a mirror.

Everything comes from there but the repository's own packages, barehub and the overlays', which are made here and never
looked for elsewhere. Neither conda nor py-rattler compares the hashes of file:// packages: every archive, from
wherever, is checked here against the sha256 it is locked with.
"""

import asyncio
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from rattler import Channel, ChannelPriority, Client, IndexJson, RepoDataRecord
from rattler.package_streaming import download_to_path

from construct.locked import read_lock, render_lock, solve_environment, virtual_package
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.metadata import MACHINES, conda_constraint, conda_name
from recipe.overlay import Stack
from recipe.report import say

# What a target is taken to have, unless told otherwise: Enterprise Linux 8's glibc and kernel.
VIRTUAL = ("__unix=0", "__linux=4.18", "__glibc=2.28")
AT_ONCE = 8  # downloads


def open_channel(text: str) -> Channel:
    """A channel by name, URL or path. Raises UserError for a path that is no directory."""
    if "://" in text:
        return Channel(text)
    if text.startswith(("/", ".", "~")) or Path(text).is_dir():
        directory = Path(text).expanduser().resolve()
        if not directory.is_dir():
            raise UserError(f"{text} is not a directory", "name a conda channel: conda-forge, a URL or a path")
        return Channel(directory.as_uri())
    return Channel(text)


def channel_name(text: str) -> str:
    """What the lock calls it: a name or a path. Of a URL the host stays out, and what may be a password or a token."""
    if "://" not in text:
        return text
    path = unquote(urlsplit(text).path).rstrip("/")
    return path if text.startswith("file:") else re.sub(r"^/t/[^/]+", "", path).strip("/")


def lock_from_channels(
    stack: Stack, channels: Sequence[str], platform: str, stated: Sequence[str], update: Sequence[str] | None
) -> Path:
    """Write the stack's lock for `platform`, solved from `channels`, the first one counting most; return its path.

    `stated` are virtual packages of the target, on top of or in place of the usual. `update` is as for `lock_wheels`.
    Raises UserError if there is no solution.
    """
    virtual = {one.partition("=")[0]: one for one in (*VIRTUAL, f"__archspec=1={MACHINES[platform]}", *stated)}
    lock = stack.lock_for(platform)
    say(f"solving the hub environment for {platform} with {' '.join(virtual.values())}")
    records = solve_environment(
        [open_channel(one) for one in channels],
        [*third_party_specs(stack), *own_dependencies(stack)],
        platform,
        virtual=[virtual_package(one) for one in virtual.values()],
        constraints=held_lines(stack, platform, update),
    )
    if without := [record.file_name for record in records if record.sha256 is None]:
        raise UserError(f"the channel tells no sha256 of {', '.join(without)}", "index it with a newer tool")
    made_here = ", ".join(sorted(stack.own))
    lock.write_text(
        render_lock(
            records,
            "barehub",
            [channel_name(one) for one in channels],
            f"The hub environment{stack.title} on {platform}: every package. Written by `python3 release.py lock`;",
            f"do not edit. Solved with {' '.join(virtual.values())}.",
            f"Not in it is what a build makes itself: {made_here}.",
        )
    )
    say(f"wrote {os.path.relpath(lock)} with {len(records)} packages; look at: git diff")
    return lock


def third_party_specs(stack: Stack) -> list[str]:
    return [spec for spec in stack.specs if spec.split()[0] not in stack.own]


def own_dependencies(stack: Stack) -> list[str]:
    """What barehub's own package needs from the channel; what the overlays' need is among the stack's specs."""
    project = tomllib.loads((stack.root / "post_install/pyproject.toml").read_text())["project"]
    return [
        f"{conda_name(one.name)} {','.join(map(conda_constraint, one.specifier))}".rstrip()
        for one in map(Requirement, project["dependencies"])
    ]


def held_lines(stack: Stack, platform: str, update: Sequence[str] | None) -> list[str]:
    """The lines of a lock that stay. Raises UserError for a package to update that is neither locked nor asked for."""
    if update is None and stack.locked_in:
        base = Stack(stack.root).lock_for(platform)
        on_top = {spec.split()[0] for overlay in stack.overlays for spec in overlay.specs}
        lines = read_lock(base) if base.exists() and not pins_versions_only(base) else {}
        return [str(line) for name, line in lines.items() if name not in on_top]
    if not update:
        return []
    lock = stack.lock_for(platform)
    if not lock.exists() or pins_versions_only(lock):
        raise UserError(f"{lock} is no lock of a channel that could be updated", "leave out --update")
    lines = read_lock(lock)
    if unknown := sorted(set(update) - lines.keys() - {spec.split()[0] for spec in stack.specs}):
        raise UserError(f"{', '.join(unknown)}: not in {lock.name}", "use the names in it")
    return [str(line) for name, line in lines.items() if name not in update]


def pins_versions_only(lock: Path) -> bool:
    """Whether a lock is one of the recipe channel, which pins versions alone."""
    return not all(line.sha256 for line in read_lock(lock).values())


def find_locked(lock: Path, own: set[str], channels: Sequence[str], platform: str) -> list[RepoDataRecord]:
    """The locked packages as `channels` have them. Raises UserError if one is not there.

    A lock of the recipe channel has no hashes: then the channels' own index says which they are.
    """
    wanted = [str(line) for name, line in read_lock(lock).items() if name not in own]
    # A hash says more than the order of channels, and a mirror may hold many channels' packages.
    priority = ChannelPriority.Strict if pins_versions_only(lock) else ChannelPriority.Disabled
    return solve_environment([open_channel(one) for one in channels], wanted, platform, priority=priority)


def fetch_packages(
    records: Sequence[RepoDataRecord], channel: Path, cache: Path, report: Callable[[str], None]
) -> dict[str, RepoDataRecord]:
    """Have each package's archive, checked, in the directory `channel`.

    Returns, by file name, the records whose dependencies the channel has corrected since the package was made. `cache`
    keeps downloads; it may be deleted at any time. Raises UserError for one that cannot be had or is not what its
    record says.
    """
    cache.mkdir(parents=True, exist_ok=True)

    async def fetch(record: RepoDataRecord, client: Client, turn: asyncio.Semaphore) -> None:
        kept = cache / record.sha256.hex()
        async with turn:
            if not kept.exists() or file_sha256(kept) != record.sha256.hex():
                staged = cache / f".{kept.name}.new"
                await get(record, client, staged)
                if (found := file_sha256(staged)) != record.sha256.hex():
                    staged.unlink()
                    raise UserError(
                        f"{record.file_name} has sha256 {found}, but {record.sha256.hex()} is locked",
                        "the channel's file is damaged or was changed: have it mended",
                    )
                staged.replace(kept)
        place = channel / record.subdir / record.file_name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(kept, place)
        report(record.file_name)

    async def fetch_all() -> None:
        client, turn = Client.default_client(), asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(fetch(record, client, turn) for record in records))

    asyncio.run(fetch_all())
    return {one.file_name: one for one in records if is_corrected(one, channel / one.subdir / one.file_name)}


def is_corrected(record: RepoDataRecord, archive: Path) -> bool:
    """Whether a channel's index says other than the package itself what it needs."""
    itself = IndexJson.from_package_archive(archive)
    return (record.depends, record.constrains) != (itself.depends, itself.constrains)


async def get(record: RepoDataRecord, client: Client, place: Path) -> None:
    """Copy or download a package. Raises UserError if that fails."""
    url = urlsplit(record.url)
    try:
        if url.scheme == "file":
            shutil.copyfile(unquote(url.path), place)
        else:
            await download_to_path(client, record.url, place)
    except Exception as error:  # py-rattler's are of no common type
        raise UserError(f"cannot get {record.file_name}: {error}", "check the network and the channel") from error
