"""How a release gets the database that it needs, with its schema, and the way back.

A database of the administrator's choice (`c.JupyterHub.db_url`) is migrated in place, with the hub stopped as well. Of
PostgreSQL, a dump is the backup (barehub.lifecycle.postgres).
"""

from dataclasses import dataclass
from pathlib import Path

from barehub.accounts import ensure_directory, ids
from barehub.errors import Exit, UserError
from barehub.layout import release_key
from barehub.lifecycle import database
from barehub.lifecycle.database_urls import SQLITE, can_dump, sqlite_file, why_no_dump, without_password
from barehub.settings import Installation


@dataclass
class Migration:
    """Moves the data from the database that was used before to the one that this release uses.

    Both are URLs, most often of the same database. `have` is the schema of the data, None if there are none; `needed`
    is False if `migrate` has nothing to do.
    """

    installation: Installation
    source: str
    target: str
    have: str | None
    needed: bool
    done: bool = False

    @classmethod
    def plan(cls, installation: Installation, url: str, release: str, previous: str | None) -> "Migration":
        """Check the database that the configuration names, by its `url`, and that of the release before it.

        For a release that is older than `previous`, its data must have been prepared (`rollback`). Changes nothing.
        Raises UserError if the data cannot be read, have no room, or are not prepared.
        """
        layout = installation.layout
        source = target = url
        if sqlite_file(target, layout) == database.own_database(layout):
            source = f"{SQLITE}{database.used_by(layout, previous)}"
        file, have = sqlite_file(source, layout), database.revision_of(installation, source)
        newest = database.newest_revision()
        needed = have is not None and (source != target or have != newest)
        if needed and previous and release_key(release) < release_key(previous):
            prepared = sqlite_file(target, layout)
            if prepared is None or database.asked(installation.settings, database.revision, prepared) != newest:
                fix = f"{layout.hub}/bin/barehub rollback"
                raise UserError(f"{release} is older than {previous}", fix, Exit.HOOK)
            needed = False
        if needed and have not in database.known_revisions():
            what = f"{without_password(source)} has schema {have}, which {release} does not know"
            raise UserError(what, "install the release that wrote it, or restore an older backup", Exit.HOOK)
        if file and have:
            database.require_room(file, layout.hub_state)
        return cls(installation, source, target, have, needed)

    @property
    def source_file(self) -> Path | None:
        """The file of the database that was used before; None if it is not SQLite's."""
        return sqlite_file(self.source, self.installation.layout)

    @property
    def target_file(self) -> Path | None:
        """The file of the database that this release uses; None if it is not SQLite's."""
        return sqlite_file(self.target, self.installation.layout)

    def backup_of(self, label: str) -> Path:
        """Return where the backup of the data is as the release with this label left them."""
        return self.installation.layout.backup(label, ".sqlite" if self.source_file else ".dump")

    def back_up(self, label: str, *, required: bool = True) -> Path | None:
        """Copy the data, in use or at rest, to backups/ under the label of the release that used them.

        Returns the backup. Returns None if there are no data, or if they are in a database server and `required` is
        False; raises UserError for a server that we cannot copy from otherwise.
        """
        if self.have is None:
            return None
        layout, settings, place = self.installation.layout, self.installation.settings, self.backup_of(label)
        if self.source_file is None:
            if not required:
                return None
            if not can_dump(self.source):
                raise UserError(*why_no_dump(self.source), Exit.HOOK)
            if place.exists() and self.schema_of(place) != self.have:
                return None  # an interrupted run has migrated the data, which are not as that release left them
        ensure_directory(layout.backups, 0o700, *ids(settings.hub_user))
        self.save(place)
        return place

    def save(self, place: Path) -> None:
        """Copy the data to a backup."""
        if file := self.source_file:
            database.run_as_hub_user(self.installation.settings, "copy", source=str(file), target=str(place))
        else:
            database.run_as_hub_user(self.installation.settings, "dump", url=self.source, target=str(place))

    def put_back(self, backup: Path) -> None:
        """Replace the data, where they are, by those of a backup."""
        if file := self.target_file:
            database.run_as_hub_user(self.installation.settings, "copy", source=str(backup), target=str(file))
        else:
            database.run_as_hub_user(self.installation.settings, "restore", url=self.target, source=str(backup))

    def schema_of(self, backup: Path) -> str | None:
        """Return the schema revision of the data in a backup, None if there is none. Raises UserError if unreadable."""
        settings = self.installation.settings
        if self.target_file is None:
            return database.run_as_hub_user(settings, "print_dump_schema", source=str(backup)).strip() or None
        found = database.asked(settings, database.revision, backup)
        return str(found) if found else None

    def migrate(self) -> None:
        """Bring the data into this release's database, with this release's schema. The hub must be stopped.

        Raises UserError if that fails.
        """
        source, target, settings = self.source_file, self.target_file, self.installation.settings
        if source and target:
            database.run_as_hub_user(settings, "migrate", source=str(source), target=str(target))
        else:
            self.done = True  # in part, if it is interrupted
            database.run_as_hub_user(settings, "upgrade", url=self.target, revision="head")
        self.done = True

    def undo(self, backup: Path | None, *, data_changed: bool = False) -> None:
        """Restore the data as they were before `migrate`; `backup` was made before it, with the data at rest.

        `data_changed` tells that data may have been lost even if their schema is the same.
        """
        if not (self.done or data_changed):
            return
        target = self.target_file
        if target and self.source != self.target:
            target.unlink(missing_ok=True)
        elif backup:
            self.put_back(backup)
        elif target is None and self.have:
            database.run_as_hub_user(self.installation.settings, "downgrade", url=self.target, revision=self.have)
        self.done = False

    def servers_in_backup(self) -> set[str] | None:
        """Return the servers that run according to the backup that a rollback restored; None if the data stay."""
        prepared = self.have is not None and self.source != self.target and not self.needed
        if not (prepared and self.target_file):
            return None
        return set(database.asked(self.installation.settings, database.running_servers, self.target_file))

    def finish(self) -> None:
        """Remove the database that is no longer used: its content is in the new one, and in backups/ as it was."""
        if self.source_file and self.source != self.target:
            self.source_file.unlink(missing_ok=True)
