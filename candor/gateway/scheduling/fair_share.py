"""Weighted fair shares: who has had least goes next.

Start-time fair queueing (Goyal, Vin and Cheng 1996) with the seconds known only afterwards: every
key carries a virtual time, what it has had over its weight.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)


class Shares(Generic[KeyT]):
    """Virtual times of keys that come and go.

    Nobody saves up: a key that comes back starts no earlier than the one that has had least.
    Nobody escapes: what it has had beyond that is remembered as long as others are there.
    """

    def __init__(self) -> None:
        self._had: dict[KeyT, float] = {}
        self._members: Counter[KeyT] = Counter()

    def had(self, key: KeyT) -> float:
        return self._had[key]

    def join(self, key: KeyT) -> None:
        if not self._members[key]:
            self._had[key] = max(self._had.get(key, 0.0), self._floor(0.0))
        self._members[key] += 1

    def leave(self, key: KeyT) -> None:
        self._members[key] -= 1
        if self._members[key] > 0:
            return
        del self._members[key]
        floor = self._floor(float("inf"))
        self._had = {
            name: had for name, had in self._had.items() if name in self._members or had > floor
        }

    def charge(self, key: KeyT, seconds: float, weight: float = 1.0) -> None:
        """A key that has left in the meantime owes nothing any more."""
        if key in self._had:
            self._had[key] += seconds / weight

    def __len__(self) -> int:
        return len(self._had)

    def _floor(self, default: float) -> float:
        return min((self._had[key] for key in self._members), default=default)
