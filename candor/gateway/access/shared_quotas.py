"""Quotas of a tenant that hold for all gateways together.

The token buckets of `candor.gateway.access.quotas`, kept in Redis by a script that runs there, in
the server's own time: what two gateways ask for at once is counted one after the other.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from candor.gateway.access.quotas import Limit, Quotas, exceeded, limits_of
from candor.gateway.shared import SharedMemory

if TYPE_CHECKING:
    from redis.asyncio import Redis

_NO_LEVEL = -1e300  # a charge is taken from any level
_CHARGE_PAUSE_SECONDS = 0.2  # in which charges are added up before they are sent
# Every bucket has four arguments: capacity, tokens a second, the level it needs, and what is taken.
# The answer is the number of the first bucket without that level, and the seconds until it has it.
_SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local levels = {}
for i, key in ipairs(KEYS) do
  local capacity, rate = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  local needed, taken = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
  local kept = redis.call('HMGET', key, 'level', 'at')
  local level = capacity
  if kept[1] then
    level = math.min(capacity, tonumber(kept[1]) + (now - tonumber(kept[2])) * rate)
  end
  if level < needed then return {i, tostring((needed - level) / rate)} end
  levels[i] = level - taken
end
for i, key in ipairs(KEYS) do
  local capacity, rate = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  redis.call('HSET', key, 'level', tostring(levels[i]), 'at', string.format('%.6f', now))
  redis.call('EXPIRE', key, math.ceil((capacity - levels[i]) / rate) + 1)
end
return {0, '0'}
"""


class SharedQuotas:
    """Quotas of all gateways, or those of this one alone.

    Args:
        own: what this gateway counts itself, for as long as the others cannot be asked.
        memory: None for a gateway that shares nothing.
    """

    def __init__(self, own: Quotas, memory: SharedMemory | None) -> None:
        self._own = own
        self._memory = memory
        self._charges: Counter[str] = Counter()
        self._sending: asyncio.Task[None] | None = None

    async def admit(self, tenant: str, *, computes: bool) -> None:
        """Counts one request, see `Quotas.admit`.

        Raises:
            ServiceError: QUOTA_EXCEEDED.
        """
        limits = [one for one in self._limits(tenant) if computes or not one.computes]
        if not limits:
            return
        wanted = [(0.0, 0.0) if one.computes else (1.0, 1.0) for one in limits]
        answer = await self._ask(tenant, limits, wanted)
        if answer is None:
            self._own.admit(tenant, computes=computes)
            return
        number, seconds = int(answer[0]), float(answer[1])
        if number:
            raise exceeded(limits[number - 1].what, tenant, seconds)

    def charge(self, tenant: str, seconds: float) -> None:
        """Charges compute time to a tenant; the other gateways know it a moment later."""
        self._own.charge(tenant, seconds)
        if self._memory is None or not any(one.computes for one in self._limits(tenant)):
            return
        self._charges[tenant] += seconds  # type: ignore[assignment]  # a Counter may hold floats
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send_charges())

    async def close(self) -> None:
        """Sends what is charged and not sent yet."""
        if self._sending is not None:
            await self._sending

    async def _send_charges(self) -> None:
        while self._charges:
            await asyncio.sleep(_CHARGE_PAUSE_SECONDS)
            charges, self._charges = self._charges, Counter()
            for tenant, seconds in charges.items():
                limits = [one for one in self._limits(tenant) if one.computes]
                await self._ask(tenant, limits, [(_NO_LEVEL, float(seconds))] * len(limits))

    def _limits(self, tenant: str) -> Sequence[Limit]:
        return limits_of(self._own.quota_of(tenant))

    async def _ask(
        self, tenant: str, limits: Sequence[Limit], wanted: Sequence[tuple[float, float]]
    ) -> Any:
        if self._memory is None:
            return None
        # The braces keep all buckets of a tenant on one server of a cluster.
        keys = [f"candor:quota:{{{tenant}}}:{one.what}" for one in limits]
        numbers = [
            number
            for one, pair in zip(limits, wanted, strict=True)
            for number in (one.capacity, one.per_second, *pair)
        ]

        def question(redis: "Redis") -> Any:
            return redis.eval(_SCRIPT, len(keys), *keys, *map(repr, numbers))

        return await self._memory.ask(question)
