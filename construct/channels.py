"""Conda channels as the source of packages: conda-forge, a site's own by URL, a directory such as a mirror.

Everything comes from there except the repository's own packages, barehub and the overlays', which are made here and
never looked up elsewhere. Neither conda nor py-rattler compares the hashes of file:// packages: every archive is
checked here against the sha256 it is locked with.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rattler import Channel, ChannelPriority, Client, IndexJson, RepoDataRecord
from rattler.package_streaming import download_to_path

from construct.solve import sha256_of, solve_environment
from recipe.errors import UserError
from recipe.files import file_sha256
from recipe.lock_file import Lock

AT_ONCE = 8  # downloads


def open_channel(text: str) -> Channel:
    """Return a channel by name, URL or path. Raises UserError for what is neither, or a path that is no directory."""
    if "://" in text:
        return named_channel(text)
    if text.startswith(("/", ".", "~")) or Path(text).is_dir():
        directory = Path(text).expanduser().resolve()
        if not directory.is_dir():
            raise UserError(f"{text} is not a directory", "name a conda channel: conda-forge, a URL or a path")
        return Channel(directory.as_uri())
    return named_channel(text)


def named_channel(text: str) -> Channel:
    """Return a channel by name or URL. Raises UserError for anything else."""
    try:
        return Channel(text)
    except Exception as error:  # py-rattler's are of no common type
        raise UserError(
            f"{text} is not a channel: {error}", "name a conda channel: conda-forge, a URL or a path"
        ) from error


def channel_name(text: str) -> str:
    """Return what the lock calls a channel: a name or a path, without the host and any password or token of a URL."""
    if "://" not in text:
        return text
    path = unquote(urlsplit(text).path).rstrip("/")
    return path if text.startswith("file:") else re.sub(r"^/t/[^/]+", "", path).strip("/")


def find_locked(lock: Lock, own: set[str], channels: Sequence[str], platform: str) -> list[RepoDataRecord]:
    """Return the locked packages as `channels` have them. Raises UserError if one is missing.

    A lock of the recipe channel has no hashes: the channels' own index then decides which packages these are.
    """
    wanted = [str(line) for name, line in lock.lines.items() if name not in own]
    # With a hash the order of channels is irrelevant, and a mirror may hold packages of many channels.
    priority = ChannelPriority.Strict if lock.pins_versions_only else ChannelPriority.Disabled
    return solve_environment([open_channel(one) for one in channels], wanted, platform, priority=priority)


def fetch_packages(
    records: Sequence[RepoDataRecord], channel: Path, cache: Path, report: Callable[[str], None]
) -> dict[str, RepoDataRecord]:
    """Write each package's archive, checked, to the directory `channel`.

    Returns, by file name, the records whose dependencies the channel has corrected since the package was made. `cache`
    keeps downloads; it may be deleted at any time. Raises UserError if an archive cannot be fetched or does not have
    the sha256 of its record.
    """
    cache.mkdir(parents=True, exist_ok=True)

    async def fetch(record: RepoDataRecord, client: Client, turn: asyncio.Semaphore) -> None:
        sha256 = sha256_of(record)
        kept = cache / sha256
        async with turn:
            if not kept.exists() or file_sha256(kept) != sha256:
                staged = cache / f".{kept.name}.new"
                await get(record, client, staged)
                if (found := file_sha256(staged)) != sha256:
                    staged.unlink()
                    raise UserError(
                        f"{record.file_name} has sha256 {found}, but {sha256} is locked",
                        "the channel's file is damaged or was changed: replace it by the original",
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
    """Return whether a channel's index states other dependencies than the package itself."""
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
