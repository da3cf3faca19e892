"""Time as the gateway sees it; injected, so that tests decide how it passes."""

import asyncio
import time
from collections.abc import Set as AbstractSet
from typing import Any, Protocol


class Clock(Protocol):
    """A monotonic clock and the two ways to wait for it."""

    def now(self) -> float:
        """Seconds since an arbitrary moment; deadlines and arrival times are in this time."""

    async def sleep(self, seconds: float) -> None:
        """Returns after ``seconds``; of 0 or less it only lets other tasks run."""

    async def wait(
        self, futures: AbstractSet[asyncio.Future[Any]], seconds: float
    ) -> set[asyncio.Future[Any]]:
        """The futures that are done once all are, one has failed, or ``seconds`` have passed."""


class MonotonicClock:
    """The clock of the operating system, the same as `time.monotonic`."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    async def wait(
        self, futures: AbstractSet[asyncio.Future[Any]], seconds: float
    ) -> set[asyncio.Future[Any]]:
        done, _ = await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        return done


MONOTONIC = MonotonicClock()
