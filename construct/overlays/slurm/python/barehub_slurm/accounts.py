"""Accounts and QoS of each user, from Slurm's accounting (sacctmgr(1)); one look serves everybody for some minutes.

    accounts = Accounts()
    standing = await accounts.of(slurm)     # of the user that `slurm` is for

Whether there is no accounting, nothing for this user, or nobody could look are three different answers.
"""

import asyncio
import os
import pwd
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

from barehub_slurm.answer import Answer
from barehub_slurm.gpus import SUFFIXES
from barehub_slurm.limits import Limit, names
from barehub_slurm.partitions import ACCESS_AGE, minutes
from barehub_slurm.slurm import Slurm, rows

ASSOCIATION_COLUMNS = "cluster,user,account,partition,qos,defaultqos,parentname,maxwall,maxtres"
ASSOCIATION_WORDS = ("-nP", "show", "assoc", f"format={ASSOCIATION_COLUMNS}")
USER_WORDS = ("-nP", "show", "user", "format=user,defaultaccount")
QOS_WORDS = ("-nP", "show", "qos", "format=name,maxwall,maxtres")

Caps = Mapping[str, float]  # the most of what a form can ask for, by the names of options.FIELDS; memory in GB


@dataclass(frozen=True)
class Association:
    """That a user may use an account, in one partition or in all."""

    account: str
    partition: str
    qos: tuple[str, ...]
    default_qos: str
    caps: Caps


@dataclass(frozen=True)
class Accounting:
    """What Slurm's accounting has. `enforced`: who has no association can run nothing; `limited`: so are limits.

    `cluster` is this one's name, empty without slurmdbd, which may serve others as well.
    """

    cluster: str = ""
    enforced: bool = False
    limited: bool = False
    associations: Mapping[str, list[Association]] = field(default_factory=dict)  # by user
    defaults: Mapping[str, str] = field(default_factory=dict)  # user -> account
    parents: Mapping[str, str] = field(default_factory=dict)  # account -> the account that it is part of
    qos: Mapping[str, Caps] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """What one user may use. `known` is False if nobody could look: Slurm will choose, and check."""

    associations: tuple[Association, ...] = ()
    default: str = ""
    site: Accounting = field(default_factory=Accounting)
    known: bool = True

    @property
    def shut_out(self) -> bool:
        """Whether Slurm takes no job of this user."""
        return self.known and self.site.enforced and not self.associations

    def lineage(self, account: str) -> list[str]:
        """Return an account and those that it is part of."""
        found: list[str] = []
        while account and account not in found:
            found.append(account)
            account = self.site.parents.get(account, "")
        return found

    def choices(self, partition: str, limit: Limit) -> dict[str, Association]:
        """Return what may be used in a partition: account -> the association that counts there, with the QoS left."""
        found: dict[str, Association] = {}
        # One for this partition counts before one for all.
        for one in sorted(self.associations, key=lambda one: bool(one.partition)):
            if one.partition in ("", partition) and limit.accounts.admits(self.lineage(one.account)):
                qos = tuple(name for name in one.qos if limit.qos.admits([name]))
                if qos or not one.qos:
                    found[one.account] = Association(one.account, partition, qos, one.default_qos, one.caps)
        first = [self.default] if self.default in found else []
        return {account: found[account] for account in [*first, *sorted(found.keys() - {*first})]}

    def caps(self, one: Association, qos: str, limit: Limit) -> dict[str, float]:
        """Return what Slurm lets one job have. A partition's QoS counts before the job's, that before the account."""
        if not self.site.limited:
            return {}
        own, job = (self.site.qos.get(name, {}) for name in (limit.own_qos, qos or default_qos(one)))
        return {**one.caps, **job, **own}


def default_qos(one: Association) -> str:
    """Return what Slurm takes if a job names none."""
    return one.default_qos or "normal"


def read_associations(text: str, cluster: str) -> tuple[dict[str, list[Association]], dict[str, str]]:
    """Read what sacctmgr printed with ASSOCIATION_WORDS: associations of users, and parents of accounts."""
    users: dict[str, list[Association]] = {}
    parents: dict[str, str] = {}
    for where, user, account, partition, qos, default, parent, wall, tres in rows(text, 9)[0]:
        if where != cluster:
            continue
        if not user:
            parents[account] = parent
            continue
        caps = read_caps(wall, tres)
        users.setdefault(user, []).append(
            Association(account, partition, tuple(sorted(names(qos))), default, caps),
        )
    return users, parents


def read_caps(wall: str, tres: str) -> dict[str, float]:
    """Return the limits of one job: MaxWall, and MaxTRESPerJob such as `cpu=8,mem=16G,gres/gpu=1`."""
    found: dict[str, float] = {}
    if wall and (limit := minutes(wall)) < inf:
        found["hours"] = limit / 60
    for name, count, suffix in re.findall(r"(?:^|,)(cpu|mem|gres/gpu)=(\d+)([KMGTP]?)", tres):
        if name == "mem":  # MB without a suffix
            found["memory"] = int(count) * SUFFIXES[suffix or "M"] / SUFFIXES["G"]
        else:
            found["cores" if name == "cpu" else "gpus"] = int(count)
    return found


class Accounts:
    """The accounting, for all users. Where it keeps from the hub what a user has (PrivateData=), that user asks."""

    def __init__(self) -> None:
        self.site: Answer[Accounting] = Answer(ACCESS_AGE)
        self.own: dict[str, Answer[Accounting]] = {}

    async def of(self, slurm: Slurm) -> Standing:
        site = await self.site.get(partial(read_accounting, slurm))
        if site is None:
            return Standing(known=False)
        if site.cluster and os.geteuid() != 0 and site.associations.keys().isdisjoint(spellings(slurm)):
            own = self.own.setdefault(slurm.user, Answer(ACCESS_AGE))
            asked = await own.get(partial(filled, site, slurm.run_as_user))
            if asked is None:
                return Standing(site=site, known=False)
            site = asked
        found = [one for name in spellings(slurm) for one in site.associations.get(name, ())]
        default = next((site.defaults[name] for name in spellings(slurm) if name in site.defaults), "")
        return Standing(tuple(found), default, site)


def spellings(slurm: Slurm) -> list[str]:
    """Return the names that Slurm's database may have of a user: in lower case, and the account's own."""
    found = [slurm.user, slurm.user.lower()]
    with suppress(KeyError, OverflowError):  # there is no account
        found.append(pwd.getpwuid(slurm.uid).pw_name.lower())
    return list(dict.fromkeys(found))


async def read_accounting(slurm: Slurm) -> Accounting:
    """Ask slurmctld and slurmdbd as the hub. Raises SlurmError."""
    printed = await slurm.run("scontrol", "show", "config")
    config = dict(re.findall(r"^(\w+) += (.*?) *$", printed, re.MULTILINE))
    if "slurmdbd" not in config.get("AccountingStorageType", ""):
        return Accounting()
    enforce = names(config.get("AccountingStorageEnforce", ""))
    site = Accounting(
        config.get("ClusterName", ""),
        not enforce.isdisjoint({"associations", "limits", "qos", "safe", "wckeys", "all"}),  # each implies the first
        not enforce.isdisjoint({"limits", "safe", "all"}),
    )
    # At once: a form waits for them.
    qos, site = await asyncio.gather(slurm.run("sacctmgr", *QOS_WORDS), filled(site, slurm.run))
    return replace(site, qos={name: read_caps(wall, tres) for name, wall, tres in rows(qos, 3)[0]})


async def filled(site: Accounting, run: Callable[..., Awaitable[str]]) -> Accounting:
    """Return it with the associations that whoever runs this may see. Raises SlurmError."""
    printed, users = await asyncio.gather(run("sacctmgr", *ASSOCIATION_WORDS), run("sacctmgr", *USER_WORDS))
    associations, parents = read_associations(printed, site.cluster)
    defaults = {row[0]: row[1] for row in rows(users, 2)[0]}
    return replace(site, associations=associations, parents=parents, defaults=defaults)


def accounts_of(associations: Iterable[Association]) -> set[str]:
    return {one.account for one in associations}
