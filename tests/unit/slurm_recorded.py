"""What a user of a recorded cluster is offered: slurm_22.05/ is what Debian's slurmctld and slurmdbd said of one.

alice may use the accounts chem (her default) and physics, bob other and, in the partition main, chem.
"""

import asyncio
from pathlib import Path

import pytest
from barehub_slurm import accounts as accounts_module
from barehub_slurm.access import Access
from barehub_slurm.accounts import Accounts, Standing, accounts_of
from barehub_slurm.options import Offer, shown
from barehub_slurm.partitions import Catalogue
from barehub_slurm.reservations import read_reservations

from tests.unit.slurm_commands import Commands

RECORDED = Path(__file__).parent / "slurm_22.05"


def replayed(path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Slurm's commands, which print what was recorded, whatever this machine's accounts are."""
    new = Commands(path)
    new.play(RECORDED)
    monkeypatch.setattr(accounts_module, "spellings", lambda slurm: [slurm.prefix.split()[-1]])
    return new


async def standing(commands: Commands, user: str, accounts: Accounts | None = None) -> Standing:
    """Return what a user of the recorded cluster may use. The commands run as the account of the test."""
    slurm = commands.slurm()
    return await (accounts or Accounts()).of(
        type(slurm)(slurm.directory, slurm.user, f"{slurm.directory}/as-user {user}")
    )


def offer(commands: Commands, user: str = "alice", fields: dict[str, str | None] | None = None, **fixed: str) -> Offer:
    async def ask() -> Offer:
        catalogue = Catalogue()
        found = await catalogue.offered(commands.slurm(), 5)
        mine = await standing(commands, user)
        lineage = {name for account in accounts_of(mine.associations) for name in mine.lineage(account)}
        reserved = [
            one
            for one in read_reservations((RECORDED / "reservation.txt").read_text())
            if one.admits([user], [], lineage)
        ]
        access = Access(mine, catalogue.limits, reserved, fixed)
        return Offer({n: p for n, p in found.items() if access.admits(n)}, {}, {}, access, shown(fields or {}))

    return asyncio.run(ask())
