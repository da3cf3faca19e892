"""How many requests are processed at once."""

import asyncio

from candor.contracts.errors import ErrorCode, ServiceError

_RETRY_SECONDS = 1.0  # when to come back to a gateway that has all the requests it can hold


class ConcurrencyLimiter:
    """A fixed number of slots, each taken until the work of its request has stopped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def taken(self) -> int:
        """Slots in use."""
        return self._taken

    def take(self) -> "Slot":
        """A slot for one request.

        Raises:
            ServiceError: OVERLOADED, every slot is taken.
        """
        if self._taken >= self._limit:
            message = f"expected at most {self._limit} requests at once, got one more"
            raise ServiceError(ErrorCode.OVERLOADED, message, retry_seconds=_RETRY_SECONDS)
        self._taken += 1
        self._idle.clear()
        return Slot(self)

    def give_back(self) -> None:
        """One slot is free again."""
        self._taken -= 1
        if self._taken == 0:
            self._idle.set()

    async def wait_until_idle(self) -> None:
        """Returns when no slot is taken."""
        await self._idle.wait()


class Slot:
    """One slot, given back by the last of its holders; its request is the first."""

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self._limiter = limiter
        self._holders = 1

    def hold(self) -> None:
        """One more holder."""
        self._holders += 1

    def drop(self) -> None:
        """One holder less; the last one gives the slot back."""
        self._holders -= 1
        if self._holders == 0:
            self._limiter.give_back()
