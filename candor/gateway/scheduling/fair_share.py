"""Weighted fair shares: the key with the least virtual time goes next.

Start-time fair queueing (Goyal, Vin and Cheng 1996), with the cost known only afterwards: every key
carries a virtual time, the seconds charged to it over its weight.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)


class FairShares(Generic[KeyT]):
    """Virtual times of keys that come and go.

    A key saves nothing up while it is away: it comes back at the least virtual time of the others
    or later.  It escapes no charge by leaving: what it has had beyond that time is remembered as
    long as other keys are there.
    """

    def __init__(self) -> None:
        self._virtual_times: dict[KeyT, float] = {}
        self._members: Counter[KeyT] = Counter()

    def virtual_time(self, key: KeyT) -> float:
        """Seconds over weight that ``key`` has been charged; it must have joined."""
        return self._virtual_times[key]

    def join(self, key: KeyT) -> None:
        """One more member with this key."""
        if not self._members[key]:
            self._virtual_times[key] = max(self._virtual_times.get(key, 0.0), self._floor(0.0))
        self._members[key] += 1

    def leave(self, key: KeyT) -> None:
        """One member with this key less."""
        self._members[key] -= 1
        if self._members[key] > 0:
            return
        del self._members[key]
        floor = self._floor(float("inf"))
        self._virtual_times = {
            name: time
            for name, time in self._virtual_times.items()
            if name in self._members or time > floor
        }

    def charge(self, key: KeyT, seconds: float, weight: float = 1.0) -> None:
        """Adds ``seconds`` over ``weight``; a key that has left and is forgotten owes nothing."""
        if key in self._virtual_times:
            self._virtual_times[key] += seconds / weight

    def __len__(self) -> int:
        return len(self._virtual_times)

    def _floor(self, default: float) -> float:
        return min((self._virtual_times[key] for key in self._members), default=default)
