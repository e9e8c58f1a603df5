"""`barehub backup`: all that an installer does not bring, in one private file, while the hub runs.

The hub's and the proxy's directories are their accounts', so root follows no link there and reads no file that has
other names (barehub.untrusted). SQLite and PostgreSQL copy databases themselves, as the hub's account.
"""

import contextlib
import hashlib
import io
import os
import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, cast

from barehub.accounts import ensure_directory, ids
from barehub.config import ConfigError
from barehub.errors import Exit, UserError, printable
from barehub.evaluation import Evaluated, evaluate
from barehub.layout import Layout
from barehub.lifecycle.archive import DUMP, FILES, MANIFEST, UNITS, Manifest, Output, Summed, member_of
from barehub.lifecycle.comparison import added
from barehub.lifecycle.database import asked, own_database, revision, revision_of, run_as_hub_user
from barehub.lifecycle.database_urls import can_dump, sqlite_file, why_not_in_it
from barehub.process import locked, sync_directory
from barehub.proxy_unit.renewal import Source
from barehub.settings import Installation
from barehub.untrusted import UntrustedError, content_of, opened

MAGIC = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html
# What SQLite keeps beside a database, which must not meet a copy of it; and what is written to be renamed.
PASSING = re.compile(r".*-(journal|wal|shm)|\..*\.new")
Say = Callable[[str], None]


def back_up(layout: Layout, target: Path | None, *, overwrite: bool, say: Say) -> None:
    """Write a backup of the installation to `target`, whole or not at all; to stdout if that is None.

    Raises UserError if there is no active release, if the file cannot be private, or if it exists and `overwrite` is
    False.
    """
    installation = Installation.load(layout, fix="run BASE/hub/bin/barehub")
    release = layout.active
    if release is None or layout.prefix.resolve().name != release:
        fix = f"run {layout.hub}/bin/barehub, once an installer has made a release active"
        raise UserError(f"{layout.prefix} is not the active release", fix, Exit.BASE)
    with locked(layout.base), written(target, layout, overwrite=overwrite) as descriptor:
        found = evaluated(installation, say)
        url = found.db_url if found and can_dump(found.db_url) else None
        backup = Backup(installation, database_of(layout, found), url, descriptor, certain=found is not None)
        manifest = backup.write(release, outside(layout, found))
    with contextlib.suppress(OSError):  # the backup is whole; that nobody hears of it is no loss
        layout.last_backup.touch()
    what = f"{manifest.distribution} {release} to {target or 'standard output'}"
    say(f"backed up {what}: {len(manifest.sha256)} files, {backup.output.size / 1e6:.1f} MB")
    for line in [*backup.left_out, *not_in_it(layout, found, manifest)]:
        say(f"  not in it: {printable(line, keep='')}")


@contextlib.contextmanager
def written(target: Path | None, layout: Layout, *, overwrite: bool) -> Iterator[int]:
    """Give the descriptor of a file that becomes `target`, durably, unless an error is raised; stdout's for None.

    Nobody else can read it, from the first byte on. Raises UserError if it cannot be so.
    """
    if target is None:
        if sys.stdout.isatty():
            raise UserError("a terminal is no place for a backup", "name a file, or send it to a program", Exit.USAGE)
        yield sys.stdout.fileno()
        return
    directory = target.absolute().parent.resolve()
    if not directory.is_dir():
        raise UserError(f"there is no directory {directory}", f"mkdir -p {directory}", Exit.USAGE)
    if directory.is_relative_to(layout.base.resolve()):
        raise UserError(f"{target} is in {layout.base}, which it has to outlive", "name another place", Exit.USAGE)
    if os.path.lexists(target) and not (overwrite and target.is_file()):
        raise UserError(f"{target} exists", "name another file, or give --overwrite to replace a file", Exit.USAGE)
    staged = directory / f".{target.name}.new"
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        if os.fstat(descriptor).st_mode & 0o077:  # FAT, or a share: its modes are those of the mount
            fix = f"encrypt it on its way there: barehub backup - | gpg --symmetric --output {target}"
            raise UserError(f"others could read a file in {directory}", fix, Exit.USAGE)
        yield descriptor
        os.fsync(descriptor)
        staged.replace(directory / target.name)
        sync_directory(directory)
    finally:
        os.close(descriptor)
        staged.unlink(missing_ok=True)


def evaluated(installation: Installation, say: Say) -> Evaluated | None:
    """Return what the configuration says; None, with a warning, if it does not load: all the more reason for a copy."""
    try:
        return evaluate(installation.layout, installation.settings, rehearsal=False)
    except ConfigError as error:
        say(f"warning: {error}; so files outside {installation.layout.base} that it names are not known")
        return None


def database_of(layout: Layout, found: Evaluated | None) -> Path | None:
    """Return the hub's database; None if it is not SQLite's."""
    return sqlite_file(found.db_url, layout) if found else own_database(layout)


def database_elsewhere(layout: Layout, found: Evaluated | None) -> Path | None:
    """Return the hub's database if it is SQLite's and not in the hub's directory."""
    database = database_of(layout, found)
    return database if database and not database.resolve().is_relative_to(layout.hub_state.resolve()) else None


def outside(layout: Layout, found: Evaluated | None) -> tuple[str, ...]:
    """Return the files elsewhere that the configuration names: certificates, their authorities, secrets, a database."""
    if found is None:
        return ()
    database = database_elsewhere(layout, found)
    proxy, inside = found.proxy, (layout.config, layout.state)
    source = proxy.source if proxy and proxy.source else Source()
    named = {*found.secrets, source.cert, source.key, proxy.ca_bundle if proxy else "", str(database or "")}
    return tuple(sorted(path for path in named - {""} if not any(Path(path).is_relative_to(one) for one in inside)))


def not_in_it(layout: Layout, found: Evaluated | None, manifest: Manifest) -> list[str]:
    """Return what an administrator has to back up besides, and how."""
    database = database_elsewhere(layout, found)
    lines = [f"{path}, which the configuration names" for path in manifest.outside if path != str(database)]
    if manifest.added:
        lines.append(f"packages that were added by hand: {' '.join(manifest.added)}")
    if database:
        lines.append(f"""the database {database}: sqlite3 {database} ".backup COPY\"""")
    elif found and not database_of(layout, found) and not can_dump(found.db_url):
        lines.append(why_not_in_it(found.db_url))
    return lines


class Backup:
    """A backup that is being written to a file: the tar, the sum of each file in it, and what was left out.

    `url` is that of a PostgreSQL database to dump. `certain` tells that the hub uses `database`, and no other one: then
    those of other releases are left out.
    """

    def __init__(
        self, installation: Installation, database: Path | None, url: str | None, descriptor: int, *, certain: bool
    ) -> None:
        self.installation = installation
        self.database, self.url, self.certain = database, url, certain
        self.output = Output(descriptor)
        self.tar = tarfile.open(fileobj=cast("IO[bytes]", self.output), mode="w")  # noqa: SIM115
        self.sums: dict[str, str] = {}
        self.left_out: list[str] = []

    def write(self, release: str, outside: tuple[str, ...]) -> Manifest:
        """Write everything, and the manifest last; return that."""
        layout, settings = self.installation.layout, self.installation.settings
        database = self.database if self.database and self.database.exists() else None
        schema = asked(settings, revision, database) if database else None
        for name in FILES:
            self.add_file(name, layout.base / name)
        self.add_tree("jupyterhub_config.d", layout.config, follow=True)
        self.add_tree("state/hub", layout.hub_state)
        if self.url and (schema := revision_of(self.installation, self.url)):
            self.add_dump(self.url)
        self.add_store()
        for unit in settings.units:
            for path in sorted((layout.system_units / f"{unit}.d").glob("*.conf")):
                self.add_file(f"{UNITS}/{unit}.d/{path.name}", path)
        now = datetime.now(UTC)
        made = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        told = (layout.distribution(release), release, made, settings.name, str(layout.base))
        by_hand = tuple(f"{one.name}=={one.version}" for one in added(layout.release(release)))
        manifest = Manifest(*told, schema, outside, by_hand, self.sums)
        text = manifest.to_json()
        member = tarfile.TarInfo(MANIFEST)
        member.size, member.mode, member.mtime = len(text), 0o600, int(now.timestamp())
        self.tar.addfile(member, io.BytesIO(text))
        self.tar.close()
        return manifest

    def add_file(self, name: str, path: Path) -> None:
        """Add a file of root's, or what a link there leads to."""
        with self.naming_what_is_left_out(), opened(path, follow=True) as descriptor:
            self.add(name, descriptor, path)

    def add_store(self) -> None:
        """Add what traefik got from an ACME server, and its directory.

        Nothing else there is traefik's, but whoever has taken it over may have put it there to stop or fill a backup.
        """
        place, store = self.installation.layout.acme, self.installation.layout.acme_store
        if not place.is_dir():
            return
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        self.tar.addfile(member_of("state/acme", directory))
        with self.naming_what_is_left_out(), opened(store, directory=directory) as descriptor:
            content, member = content_of(descriptor, store), member_of(f"state/acme/{store.name}", descriptor)
            member.size = len(content)  # however large the file is by now
            self.tar.addfile(member, io.BytesIO(content))
            self.sums[member.name] = hashlib.sha256(content).hexdigest()
        os.close(directory)

    @contextlib.contextmanager
    def naming_what_is_left_out(self) -> Iterator[None]:
        """Pass over what cannot be read as a file, and over what is gone."""
        try:
            yield
        except FileNotFoundError:
            pass
        except UntrustedError as error:
            self.left_out.append(str(error))

    def add_tree(self, name: str, top: Path, *, follow: bool = False) -> None:
        """Add a directory with all that is in it; links to files are followed only with `follow`.

        By descriptors: what another account puts in the place of a directory meanwhile is not entered.
        """
        if not top.is_dir():
            return
        real = top.resolve()

        def not_listed(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                self.left_out.append(f"a directory {error.filename} in {real} cannot be read: {error.strerror}")

        for place, directories, files, descriptor in os.fwalk(real, onerror=not_listed):
            here = Path(place)
            inside = "/".join((name, *here.relative_to(real).parts))
            self.tar.addfile(member_of(inside, descriptor))
            if here == self.installation.layout.hub_state.resolve() and "backups" in directories:
                directories.remove("backups")  # of releases that another machine does not have
            for one in sorted(directories):
                if (here / one).is_symlink():
                    self.left_out.append(f"{here / one} is a link to a directory")
            for one in sorted(files):
                if not self.passes(here / one):
                    self.add_found(f"{inside}/{one}", here / one, descriptor, follow=follow)

    def passes(self, path: Path) -> bool:
        """Return True for what is not worth keeping: SQLite's journals, unfinished files, databases not in use."""
        if PASSING.fullmatch(path.name):
            return True
        is_hubs = path.parent == self.installation.layout.hub_state.resolve() and path.match("jupyterhub*.sqlite")
        return self.certain and is_hubs and not (self.database and path == self.database.resolve())

    def add_found(self, name: str, path: Path, directory: int, *, follow: bool) -> None:
        """Add a file that was found in a directory, as SQLite copies it if it is a database."""
        is_database = False
        with self.naming_what_is_left_out(), opened(path, follow=follow, directory=directory) as descriptor:
            is_database = not follow and os.pread(descriptor, len(MAGIC), 0) == MAGIC
            if not is_database:
                self.add(name, descriptor, path)
        if is_database:
            try:
                with made(self.installation, ".being-backed-up.sqlite", "copy", source=str(path)) as descriptor:
                    self.add(name, descriptor, path)
            except UserError as error:
                raise UserError(f"{printable(str(path), keep='')}: {error}", error.fix, error.code) from None

    def add_dump(self, url: str) -> None:
        """Add a dump of a PostgreSQL database, and the directory that it will be in."""
        path = self.installation.layout.base / DUMP
        with made(self.installation, ".being-backed-up.dump", "dump", url=url) as descriptor:
            place = os.open(path.parent, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            self.tar.addfile(member_of(str(Path(DUMP).parent), place))
            os.close(place)
            self.add(DUMP, descriptor, path)

    def add(self, name: str, descriptor: int, path: Path) -> None:
        """Add an open file, of `path`, with its mode and the names of its owners."""
        member = member_of(name, descriptor)
        with open(descriptor, "rb", closefd=False) as file:
            summed = Summed(file, path)
            self.tar.addfile(member, cast("IO[bytes]", summed))
        self.sums[name] = summed.sha256.hexdigest()


@contextlib.contextmanager
def made(installation: Installation, name: str, how: str, **details: str) -> Iterator[int]:
    """Give a copy of a database in use, opened, which is gone afterwards; `how` is the database worker's function."""
    layout, settings = installation.layout, installation.settings
    copy = layout.backups / name
    ensure_directory(layout.backups, 0o700, *ids(settings.hub_user))
    try:
        run_as_hub_user(settings, how, target=str(copy), **details)
        with opened(copy) as descriptor:
            yield descriptor
    finally:
        with contextlib.suppress(OSError):
            copy.unlink()
