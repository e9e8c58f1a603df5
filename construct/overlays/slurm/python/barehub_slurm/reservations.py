"""Reservations (scontrol(1), "show reservation"), and which of them a user may use."""

import grp
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass

from barehub_slurm.answer import Answer
from barehub_slurm.limits import names
from barehub_slurm.slurm import Slurm, fields
from barehub_slurm.words import clock, moment

AGE = 60.0  # seconds for which it is remembered which there are


@dataclass(frozen=True)
class Reservation:
    """Names are in lower case; with a `-` before them they are those of whoever is kept out."""

    name: str
    partition: str  # empty for any
    users: frozenset[str]
    groups: frozenset[str]
    accounts: frozenset[str]
    begins: str  # when, if it has not begun
    start: float = 0.0  # as time.time has it; so is the end
    end: float = 0.0
    maintenance: bool = False

    def admits(self, users: Iterable[str], groups: Iterable[str], accounts: Iterable[str]) -> bool:
        """Whether Slurm lets in a job with one of these; with a list of who is kept out, everyone else."""
        ours = ((self.users, {*users}), (self.groups, {*groups}), (self.accounts, {*accounts}))
        if any(f"-{one}" in listed for listed, own in ours for one in own):
            return False
        kept_out = any(one.startswith("-") for listed, _ in ours for one in listed)
        return kept_out or any(not listed.isdisjoint(own) for listed, own in ours)

    def open_to(self, lineage: Iterable[str]) -> bool:
        """Whether a job with an account of this lineage may use it, by a user who may: one is let in for either."""
        listed = {one for one in self.accounts if not one.startswith("-")}
        return not listed or bool(self.users or self.groups) or not listed.isdisjoint(lineage)

    @property
    def label(self) -> str:
        return f"{self.name} (from {self.begins})" if self.begins else self.name


def read_reservations(text: str) -> list[Reservation]:
    """Read what `scontrol show reservation -o` printed."""
    found = []
    for line in text.splitlines():
        said = fields(line)
        if name := said.get("ReservationName"):
            partition = said.get("PartitionName", "").replace("(null)", "")
            users, groups, accounts = (names(said.get(field, "")) for field in ("Users", "Groups", "Accounts"))
            begins = "" if said.get("State") == "ACTIVE" else clock(said.get("StartTime", ""))
            start, end = (moment(said.get(field, "")) for field in ("StartTime", "EndTime"))
            maintenance = "MAINT" in said.get("Flags", "").split(",")
            found.append(Reservation(name, partition, users, groups, accounts, begins, start, end, maintenance))
    return found


class Reservations:
    """The reservations that there are; one scontrol answers for all users."""

    def __init__(self) -> None:
        self.answer: Answer[list[Reservation]] = Answer(AGE)

    async def all(self, slurm: Slurm) -> list[Reservation] | None:
        """Return all that there are; None if nobody could look."""

        async def ask() -> list[Reservation]:
            return read_reservations(await slurm.run("scontrol", "show", "reservation", "-a", "-o"))

        return await self.answer.get(ask)

    async def of(self, slurm: Slurm, users: Iterable[str], accounts: Iterable[str]) -> list[Reservation] | None:
        """Return those that the user may use, with one of these accounts perhaps; None if nobody could look."""
        found = await self.all(slurm)
        if found is None:
            return None
        groups = groups_of(slurm.user) if any(one.groups for one in found) else set()
        return [one for one in found if one.admits(users, groups, accounts)]


def groups_of(user: str) -> set[str]:
    """Return the names of a user's groups, in lower case; none for an account or a group that is not known."""
    found = set()
    try:
        account = pwd.getpwnam(user)
        for number in os.getgrouplist(user, account.pw_gid):
            found.add(grp.getgrgid(number).gr_name.lower())
    except KeyError:
        pass
    return found
