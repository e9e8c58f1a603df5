"""What the overlay `slurm` uses of JupyterHub beyond its public interface, in the release that is locked."""

import asyncio
from types import SimpleNamespace

from barehub_slurm import internals
from jupyterhub.spawner import Spawner


def test_jupyterhubs_spawner_has_what_is_used() -> None:
    assert [name for name in internals.SPAWNER_ATTRIBUTES if not hasattr(Spawner, name)] == []


def test_a_start_is_marked_until_it_ends_and_a_failure_is_kept() -> None:
    async def fails() -> None:
        raise ValueError

    async def succeeds() -> None:
        pass

    async def mark() -> None:
        for start, kept in ((fails, True), (succeeds, False)):
            spawner = SimpleNamespace(_spawn_pending=False, _spawn_future=None)
            future = asyncio.ensure_future(start())
            internals.mark_as_starting(spawner, future)
            assert spawner._spawn_pending
            await asyncio.wait([future])
            await asyncio.sleep(0)
            assert not spawner._spawn_pending
            assert (spawner._spawn_future is future) is kept

    asyncio.run(mark())
