"""Accounts, QoS and reservations that one user may use in each partition, and the check of what a request names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from barehub_slurm.accounts import Association, Caps, Standing, default_qos
from barehub_slurm.limits import Limit, Limits
from barehub_slurm.reservations import Reservation


class RefusedError(ValueError):
    """A request that cannot be granted, and why, in words for the user who made it."""


class Choice(NamedTuple):
    """What a job is submitted with, empty for Slurm's default, and the most that it can have then."""

    account: str
    qos: str
    reservation: str
    caps: Caps


@dataclass(frozen=True)
class Access:
    """`fixed` has the site's account, qos and reservation, for which a request is not asked."""

    standing: Standing = field(default_factory=Standing)
    limits: Limits = field(default_factory=dict)
    reservations: Sequence[Reservation] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)

    def limit(self, partition: str) -> Limit:
        return self.limits.get(partition, Limit())

    def choices(self, partition: str) -> dict[str, Association]:
        """Return the accounts that may be used in a partition, the user's default first, each with its QoS there."""
        found = self.standing.choices(partition, self.limit(partition))
        if account := self.fixed.get("account"):
            found = {name: one for name, one in found.items() if name == account.lower()}
        if qos := self.fixed.get("qos", "").lower():
            found = {name: replace(one, qos=(qos,)) for name, one in found.items() if not one.qos or qos in one.qos}
        return found

    def qos(self, one: Association) -> list[str]:
        """Return the choices of QoS with an account; the first counts without a choice: empty is Slurm's default."""
        if self.fixed.get("qos"):
            return [self.fixed["qos"].lower()]  # as Slurm's database has it
        default = default_qos(one)
        others = [name for name in one.qos if name != default]
        return ["", *others] if not one.qos or default in one.qos else others

    def reservations_in(self, partition: str) -> list[Reservation]:
        return [one for one in self.reservations if one.partition in ("", partition)]

    def admits(self, partition: str) -> bool:
        """Whether Slurm would take a job of this user there, as far as is known."""
        limit = self.limit(partition)
        if self.standing.shut_out:
            return False
        if limit.reserved and not (self.fixed.get("reservation") or self.reservations_in(partition)):
            return False
        if self.standing.associations:
            return bool(self.choices(partition))
        # Without accounting a job has the account that the site gives it, if any.
        return not self.standing.known or limit.accounts.admits([self.fixed.get("account", "").lower()])

    def choose(self, partition: str, options: Mapping[str, Any]) -> Choice:
        """Return what a request names, checked, and the defaults for what it does not. Raises RefusedError."""
        limit, choices = self.limit(partition), self.choices(partition)
        caps: Caps = {}
        account, qos = self.fixed.get("account", ""), self.fixed.get("qos", "")
        if choices:
            account = pick("account", options.get("account"), choices, partition)
            asked = options.get("qos")
            known = self.qos(choices[account])
            # What the default is called may be said, too.
            asked = "" if asked == default_qos(choices[account]) and "" in known else asked
            qos = pick("QoS", asked, known, f"{partition} with {account}")
            caps = self.standing.caps(choices[account], qos, limit)
        elif not self.standing.known:  # Slurm will check it
            account = account or word("account", options.get("account"))
            qos = qos or word("QoS", options.get("qos"))
        lineage = self.standing.lineage(account)
        names = [one.name for one in self.reservations_in(partition) if not account or one.open_to(lineage)]
        default = [] if limit.reserved else [""]
        reservation = self.fixed.get("reservation", "")
        if not reservation:
            if not default and not names:
                why = f"takes only jobs with a reservation, and the account {account} may use none there"
                raise RefusedError(f"The partition {partition} {why}; choose another account")
            reservation = pick("reservation", options.get("reservation"), [*default, *names], partition)
        return Choice(account, qos, reservation, caps)


def pick(what: str, asked: Any, offered: Iterable[str], where: str) -> str:
    """Return what was asked for, by default the first of what is offered. Raises RefusedError."""
    names = list(offered)
    if not asked and names:
        return names[0]
    if isinstance(asked, str) and asked in names:
        return asked
    there_is = ", ".join(filter(None, names)) or "none"
    raise RefusedError(f"There is no {what} {str(asked)[:40]} for you in the partition {where}; there is {there_is}")


def word(what: str, asked: Any) -> str:
    """Return what may be the name of something. Raises RefusedError."""
    if asked and not (isinstance(asked, str) and asked.replace("-", "").replace(".", "").replace("_", "").isalnum()):
        raise RefusedError(f"{str(asked)[:40]!r} cannot be the {what} of a job")
    return asked or ""
