"""How many requests are worked on at once."""

import asyncio

from candor.contracts.errors import ErrorCode, ServiceError

_CROWDED_SECONDS = 1.0  # when to come back to a gateway that has all the requests it can hold


class ConcurrencyLimiter:
    """A fixed number of places, each taken until the work of its request has stopped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def taken(self) -> int:
        return self._taken

    def take(self) -> "Slot":
        """Raises: ServiceError: OVERLOADED."""
        if self._taken >= self._limit:
            message = f"got one request more than the {self._limit} allowed at once"
            raise ServiceError(ErrorCode.OVERLOADED, message, retry_seconds=_CROWDED_SECONDS)
        self._taken += 1
        self._idle.clear()
        return Slot(self)

    def give_back(self) -> None:
        self._taken -= 1
        if self._taken == 0:
            self._idle.set()

    async def wait_until_idle(self) -> None:
        await self._idle.wait()


class Slot:
    """One place, given back by the last of those who hold it; its request is the first."""

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self._limiter = limiter
        self._holders = 1

    def hold(self) -> None:
        self._holders += 1

    def drop(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self._limiter.give_back()
