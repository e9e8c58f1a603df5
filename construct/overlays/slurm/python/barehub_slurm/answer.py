"""The answer to a question that all users' forms have: asked rarely, once at a time, and never waited for long."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import Generic, TypeVar

from barehub_slurm.slurm import SlurmError

log = logging.getLogger("barehub_slurm")
T = TypeVar("T")
HURRY = 3.0  # seconds that a form waits
FIRST = 15.0  # the same, as long as nothing is known: without an answer fields are missing
RETRY = 30.0  # seconds after which a question that had no answer is asked again


class Answer(Generic[T]):
    """What was answered last; `failed` if the question was asked again since, and had no answer or has none yet."""

    def __init__(self, age: float) -> None:
        self.age = age
        self.value: T | None = None
        self.failed = False
        self.due = -inf  # when it is to be asked again (time.monotonic)
        self.asking: asyncio.Task[None] | None = None

    async def get(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Return an answer, at most `age` seconds old if Slurm answers; None if there has never been one."""
        if self.asking is None and time.monotonic() >= self.due:
            self.asking = asyncio.ensure_future(self.note(ask))
        if self.asking is not None:
            new = self.value is None and not self.failed
            _, pending = await asyncio.wait([self.asking], timeout=FIRST if new else HURRY)
            self.failed = self.failed or bool(pending)
        return self.value

    async def note(self, ask: Callable[[], Awaitable[T]]) -> None:
        began = time.monotonic()
        try:
            self.value = await ask()
            self.failed = False
            self.due = began + self.age
        except SlurmError as error:
            log.warning("%s", error)
            self.failed = True
            self.due = time.monotonic() + min(RETRY, self.age)
        finally:
            self.asking = None
