"""One release taking the place of another, with its settings, units and database; and the way back.

    prepare     everything that can fail while the hub goes on
    stop_hub    back up the database, wait for servers that are still starting, stop the hub
    commit      migrate the database, switch, start the new release and wait until it answers
    roll_back   after a failure in any of these: what was active before is active again

Each step says what is true after it. A power cut at any point leaves the old release, or the new one, whole: `hub`,
units and database are switched by one rename (barehub.lifecycle.database, barehub.systemd).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from barehub import selinux, systemd
from barehub.errors import Exit, UserError
from barehub.evaluation import evaluate
from barehub.health import Endpoints, answer, wait_until_healthy
from barehub.lifecycle import misfits, safe_ports
from barehub.lifecycle.added_packages import report_added
from barehub.lifecycle.database import newest_revision
from barehub.lifecycle.directories import ensure_directories
from barehub.lifecycle.migration import Migration
from barehub.lifecycle.options import Request, report_changed_options, trying_lines, write_installer_config
from barehub.lifecycle.releases import proxy_differs, switch
from barehub.lifecycle.restore import restore_dump
from barehub.lifecycle.servers import Api, Server, read_token, wait_for_starting, wait_until_known
from barehub.listeners import Owner
from barehub.process import write_atomically
from barehub.settings import Installation, Settings

KNOWN_SECONDS = 60  # for a new hub to find the servers that run


@dataclass(frozen=True)
class Plan:
    """What `prepare` has found out: where the new hub will answer, its data's way, and whether its options changed.

    `may_move` tells that any account can take the hub's port, and that the installer may choose another.
    """

    endpoints: Endpoints
    api: Api
    migration: Migration
    reconfigured: bool
    may_move: bool


class Switchover:
    """A run of the hooks that makes `request.release` the active release of `new`.

    `before` are the settings of the last install, None if this is the first one; `managed` is True where systemd runs
    the units. The state below is written here alone.
    """

    def __init__(
        self,
        new: Installation,
        before: Settings | None,
        request: Request,
        *,
        managed: bool,
        say: Callable[[str], None],
    ) -> None:
        layout = new.layout
        self.new = new
        self.old = Installation(layout, before) if before else None
        self.request = request
        self.managed = managed
        self.say = say
        self.previous = layout.active
        self.plan: Plan | None = None
        self.backup: Path | None = None  # of the data at rest
        self.known: list[Server] = []  # the servers that the new hub must know
        self.touched = False  # whether services may have been stopped or restarted
        self.proxy = self.proxy_invocation()
        self.options_file = Path(os.path.realpath(layout.installer_config))  # an administrator's link stays one
        self.had_options = os.path.lexists(layout.installer_config)
        kept = (layout.record, self.options_file, *layout.release_units.glob("*.*"), *layout.units.glob("*.*"))
        self.files = {path: path.read_text() for path in kept if path.is_file() and not path.is_symlink()}

    @property
    def switches(self) -> bool:
        """True if a release other than the requested one is active."""
        return self.previous not in (None, self.request.release)

    def prepare(self) -> Plan:
        """Write settings, directories and the options' configuration file, and plan the rest. The hub goes on.

        Raises UserError if the configuration does not load, the database cannot be migrated, or packages would be lost.
        """
        layout, settings = self.new.layout, self.new.settings
        if self.old:
            report_changed_options(self.old.settings, settings, self.say)
        settings.save(layout)
        ensure_directories(self.new)
        first = self.old is None
        reconfigured = write_installer_config(layout, self.request, first=first, managed=self.managed, say=self.say)
        if self.previous and self.switches and self.previous in layout.complete:
            # Before the configuration is loaded, which may need them.
            old = layout.release(self.previous)
            report_added(old, layout.prefix, required=self.request.same_packages, say=self.say)
        found = evaluate(layout, settings)
        running = self.old.settings if self.old else settings  # whose account may be another
        api = Api(found.endpoints.api, read_token(layout), Owner.of_hub(running))
        misfits.report_environments(settings.hub_user, found.environments, self.say)
        restore_dump(self.new, found.db_url, self.say)
        migration = Migration.plan(self.new, found.db_url, self.request.release, self.previous)
        restarts = self.managed and self.previous is not None and self.request.start
        may_move = restarts and safe_ports.may_move(layout, found.endpoints) and safe_ports.can_listen(settings)
        self.plan = Plan(found.endpoints, api, migration, reconfigured, may_move)
        return self.plan

    def stop_hub(self, plan: Plan) -> Plan:
        """Stop the hub if its data, release or port change, with its data backed up; return what is planned now.

        No server is cut off while starting; one that takes longer than `request.wait` is reported. Raises UserError;
        the hub may be stopped then.
        """
        moves = plan.may_move and plan.api.servers() == []
        if not (plan.migration.needed or self.switches or moves):
            return plan
        label = self.previous or f"before-{self.request.release}"
        # The first backup, with the hub running, shows what might go wrong; the one of data at rest replaces it.
        if place := plan.migration.back_up(label, required=self.request.back_up):
            self.say(f"backed up the database to {place}")
        running: list[Server] | None = []
        if self.managed and self.previous:
            running = wait_for_starting(self.new.layout, plan.api, self.request.wait, self.say)
            if running is None:
                self.say("the hub does not report its servers; continuing")
            misfits.report_servers(running or [], plan.api.version(), self.say)
            self.touched = True
            if plan.may_move and plan.api.servers() == []:
                plan = self.move_ports(plan)
            self.say("stopping the hub for a moment; users' servers and the proxy go on")
            systemd.control("stop", self.new.settings.hub_unit)
        elif answer(plan.endpoints.hub, plan.api.owner):
            raise UserError("the hub runs, and not under systemd", "stop it, then run this again", Exit.HOOK)
        self.backup = plan.migration.back_up(label, required=self.request.back_up)
        restored = plan.migration.servers_in_backup()
        self.known = [server for server in running or [] if restored is None or server.name in restored]
        return plan

    def move_ports(self, plan: Plan) -> Plan:
        """Choose ports that no other account can take, and let the proxy expect the hub there; return the new plan.

        No user's server may know the old one.
        """
        layout = self.new.layout
        try:
            chosen = safe_ports.choose(layout, None, self.say)
            with trying_lines(layout.installer_config, chosen, self.say):
                endpoints = evaluate(layout, self.new.settings).endpoints
                if endpoints == plan.endpoints:
                    raise UserError("another file of the configuration says where it is")
                if plan.api.servers() != []:
                    raise UserError("a user's server has started")
        except UserError as error:
            self.say(f"the hub keeps its port, which any account can take while it restarts: {error}")
            return plan
        if not safe_ports.move_route(self.new, plan.endpoints.hub_url, endpoints.hub_url):
            self.say("the proxy expects the hub at its old port until the hub has started")
        self.say(f"the hub moves to {endpoints.hub_url}, where no other account can listen")
        self.plan = replace(
            plan, endpoints=endpoints, api=replace(plan.api, url=endpoints.api), reconfigured=True, may_move=False
        )
        return self.plan

    def commit(self, plan: Plan) -> None:
        """Migrate the data, switch to the new release, and start it if asked to; return when it is healthy.

        Raises UserError if it does not come up, ForgottenError if it has lost sight of users' servers.
        """
        layout = self.new.layout
        self.touched = True
        if plan.migration.needed:
            plan.migration.migrate()
            self.say(f"migrated the database to schema {newest_revision()}")
        changed = systemd.write_units(self.new)
        switch(layout, self.request.release)
        systemd.link_units(self.new)
        selinux.label_files(self.new, self.say)
        if not self.managed:
            return
        if reason := systemd.enable_units(self.new):
            self.say(f"copied the units to {layout.system_units}: {reason}")
        if self.request.start:
            self.start(changed, reconfigured=plan.reconfigured)
            wait_until_healthy(self.new.settings, plan.endpoints, say=self.say)
            api = replace(plan.api, owner=Owner.of_hub(self.new.settings))
            wait_until_known(api, self.known, seconds=KNOWN_SECONDS, say=self.say)

    def start(self, changed: list[str], *, reconfigured: bool) -> None:
        """Start both services as they are installed now; one that runs is restarted only if something of it changed.

        `changed` are the units that differ from the ones that were in use.
        """
        layout, settings = self.new.layout, self.new.settings
        if self.previous:
            both = self.request.restart or reconfigured or self.old != self.new
            switched = self.previous != layout.active
            other_proxy = switched and proxy_differs(layout.release(self.previous), layout.hub)
            if settings.proxy_unit in changed or other_proxy or both:
                systemd.control("restart", settings.proxy_unit)
            if settings.hub_unit in changed or switched or both:
                systemd.control("restart", settings.hub_unit)
        systemd.control("start", settings.target)

    def roll_back(self, *, data_changed: bool) -> None:
        """Restore settings, units, database and the active release as they were before; start them if they ran.

        After a failed first install there is nothing to restore; the next run repairs it. `data_changed` tells that
        the hub may have lost data, even if their schema is the same.
        """
        if not (self.old and self.previous):
            return
        old, settings, previous = self.old, self.old.settings, self.previous
        steps: list[Callable[[], object]] = [lambda: self.restore_files(old)]
        if self.touched:
            self.say(f"going back to {previous}")
            if self.managed:
                steps.append(lambda: systemd.try_control("stop", settings.hub_unit))
            steps.append(lambda: switch(old.layout, previous))
            if plan := self.plan:
                steps.append(lambda: plan.migration.undo(self.backup, data_changed=data_changed))
            if self.managed:
                steps.append(lambda: systemd.enable_units(old))
                steps.append(lambda: systemd.try_control("start", settings.hub_unit))
                steps.append(self.restart_proxy)
        failed: list[Exception] = []
        for step in steps:  # each of them, whatever becomes of the others: the hub has to come back
            try:
                step()
            except Exception as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def restart_proxy(self) -> None:
        """Restart the proxy if it is not the process that ran before, with its open connections."""
        if self.proxy_invocation() != self.proxy:
            systemd.try_control("restart", self.new.settings.proxy_unit)

    def restore_files(self, old: Installation) -> None:
        """Restore the record, the options' configuration file, the units and the directories' owners."""
        for path, text in self.files.items():
            if path.is_symlink():
                path.unlink()
            write_atomically(path, text)
        if not self.had_options:
            old.layout.installer_config.unlink(missing_ok=True)
        ensure_directories(old)

    def proxy_invocation(self) -> str:
        """Return which run of the proxy's unit this is (systemd.exec(5), INVOCATION_ID)."""
        if not (self.managed and self.old):
            return ""
        return systemd.property_of(self.old.settings.proxy_unit, "InvocationID")
