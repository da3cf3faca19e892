"""Deadlines by which requests were promised the best so far of their searches."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from candor.gateway.scheduling.jobs import Search


@dataclass(frozen=True, slots=True)
class _Promise:
    deadline: float
    searches: Sequence[Search]

    @property
    def open_count(self) -> int:
        """Its searches that may still need a call for the best so far."""
        return sum(not search.future.done() for search in self.searches)


class Promises:
    """What is promised now; the earliest deadline is served first."""

    def __init__(self) -> None:
        self._promises: dict[int, _Promise] = {}
        self._numbers = itertools.count()

    @contextmanager
    def kept(self, deadline: float, searches: Sequence[Search]) -> Iterator[None]:
        """Counts ``searches`` while the context lasts; ``deadline`` in the scheduler's time."""
        number = next(self._numbers)
        self._promises[number] = _Promise(deadline, searches)
        try:
            yield
        finally:
            del self._promises[number]

    def due_by(self, deadline: float) -> int:
        """Searches whose best so far is promised by then or earlier."""
        return sum(one.open_count for one in self._promises.values() if one.deadline <= deadline)

    def deadlines_from(self, deadline: float) -> set[float]:
        """The promised deadlines that are not before this one."""
        return {one.deadline for one in self._promises.values() if one.deadline >= deadline}
