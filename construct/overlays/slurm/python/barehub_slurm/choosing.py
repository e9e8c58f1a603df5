"""What the spawner offers its user: the form, and the check of what is sent."""

import asyncio
from collections.abc import Mapping
from typing import Any

from barehub.offering import FIELD, NotOfferedError
from traitlets import Dict, Float, HasTraits, List, Unicode, default

from barehub_slurm import form
from barehub_slurm.access import Access
from barehub_slurm.accounts import Accounts, accounts_of, spellings
from barehub_slurm.following import Following
from barehub_slurm.options import Offer, RefusedError, shown
from barehub_slurm.partitions import Catalogue
from barehub_slurm.reservations import Reservations
from barehub_slurm.slurm import SlurmError

NO_ACCOUNTS = "Slurm's accounting does not answer at present: your server will have your default account and QoS."
NO_RESERVATIONS = "Slurm does not say at present which reservations there are."
FIXED = {"account": "req_account", "qos": "req_qos", "reservation": "req_reservation"}


class ChoosesResources(HasTraits):
    """The traits that say what users may choose, and the form."""

    partitions = List(
        Unicode(), help="The partitions that users may choose; if empty, all that Slurm shows to the user."
    ).tag(config=True)
    limits = Dict(Float(), help="The most that one server may have: cores, memory (GB), gpus, hours.").tag(config=True)
    defaults = Dict(
        Float(), help="What the form suggests; the names are those of limits. Built in: 1 core, 2 GB, no GPU, 4 hours."
    ).tag(config=True)
    fields = Dict(
        Unicode(allow_none=True),
        help="The label of each field of the form that the site names, which come first and in this order; None hides"
        " one: it then has the site's value, whatever is sent.",
    ).tag(config=True)
    presets = Dict(
        Dict(), help="Label -> what a link above the form fills in, by the names of fields, and environment."
    ).tag(config=True)

    # Shared by all users' spawners: there is one slurmctld.
    catalogue = Catalogue()
    accounts = Accounts()
    reservations = Reservations()

    # The spawner has them.
    user: Any
    user_options: Any
    slurm: Any
    job: Following
    queue_interval: float
    environment_field: Any
    apply_group_overrides: Any
    handler: Any

    @default("options_form")
    def _default_options_form(self) -> Any:
        return lambda spawner: spawner.form()

    async def offer(self) -> Offer:
        """Return what the user may ask for, at most `queue_interval` old if Slurm answers. Raises SlurmError."""
        slurm = self.slurm
        labels = shown(self.fields)
        fixed = {name: value for name, trait in FIXED.items() if (value := getattr(self, trait))}
        partitions = self.catalogue.offered(slurm, self.queue_interval, self.partitions)
        found, standing = await asyncio.gather(partitions, self.accounts.of(slurm))
        reservations = []
        if "reservation" in labels and "reservation" not in fixed:
            accounts = {name for account in accounts_of(standing.associations) for name in standing.lineage(account)}
            reservations = await self.reservations.of(slurm, spellings(slurm), accounts) or []
        access = Access(standing, self.catalogue.limits, reservations, fixed)
        admitted = {name: partition for name, partition in found.items() if access.admits(name)}
        return Offer(admitted, self.limits, self.defaults, access, labels)

    async def form(self) -> str:
        await self.apply_group_overrides()  # or the form would not show what only a group is offered
        try:
            offer = await self.offer()
        except SlurmError:
            return '<p class="alert alert-danger">Slurm does not answer at present. Try again in a minute.</p>'
        values, refused = self.filled_in(offer)
        environments, misfit = await self.environment_field(values, offer.labels.get(FIELD, ""))
        nothing = "" if offer.partitions else f"{offer.nothing}. Ask an administrator."
        notices = [self.job.last_end, refused, nothing, *self.doubts(offer), misfit]
        presets = {label: preset for label, preset in self.presets.items() if not self.why_not(offer, preset)}
        return form.form(
            offer,
            [notice for notice in notices if notice],
            environments,
            values=values,
            presets=presets,
            free=self.catalogue.free,
            next_page=self.next_page,
            user=self.user.name if offer.partitions else "",
        )

    def doubts(self, offer: Offer) -> list[str]:
        """Return what could not be looked at."""
        stale = "Slurm does not answer at present; this is what it offered before." if self.catalogue.stale else ""
        accounts = "" if offer.access.standing.known else NO_ACCOUNTS
        reservations = NO_RESERVATIONS if self.reservations.answer.failed and not stale else ""
        return [stale, accounts, reservations]

    def filled_in(self, offer: Offer) -> tuple[Mapping[str, Any], str]:
        """Return what the form is filled in with: what the link has, else the last choice; and why not, if so."""
        last = {name: value for name, value in self.user_options.items() if name == FIELD}
        if link := getattr(self.handler, "filled_in", None):
            options = form.from_form(link)
            if why := self.why_not(offer, options):
                return last, f"The link asks for what you cannot have. {why}."
            return last | options, ""
        return (last if self.why_not(offer, self.user_options) else self.user_options), ""

    def why_not(self, offer: Offer, options: Mapping[str, Any]) -> str:
        """Return why the user cannot have what these options ask for; empty if that can be had."""
        try:
            offer.check(options)
            self.chosen(options)
        except RefusedError as error:
            return str(error)
        except NotOfferedError as error:
            return error.why
        return ""

    @property
    def next_page(self) -> str:
        """The page that JupyterHub is to show once the server is up, if the user was on the way to one."""
        return str(self.handler.get_argument("next", "")) if self.handler else ""

    def chosen(self, options: Mapping[str, Any]) -> Any:
        """As OffersEnvironments has it. A field that the site hides has the site's value: the first."""
        return super().chosen(options if FIELD in shown(self.fields) else {})  # type: ignore[misc]  # a mixin

    def options_from_form(self, form_data: dict[str, list[str]]) -> dict[str, Any]:
        return form.from_form(form_data)
