"""Searches a request orders: cached, shared with equal requests, ended in time."""

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import CompareItem, SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.observability.metrics import Metrics
from candor.gateway.scheduling.dispatcher import SearchScheduler
from candor.gateway.scheduling.jobs import Arrays, Compared, Passenger, Search, SearchResult
from candor.gateway.service.cache import ResultCache, key_maker
from candor.gateway.service.concurrency import Slot

_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a request wants its searches done.

    Attributes:
        deadline: `time.monotonic` at which the results must be there; inf for no hurry.
        allows_partial: at the deadline the best so far will do; else all of it or TIMEOUT.
        uses_cache: may be answered from earlier results and share a search with equal requests.
    """

    tenant: str = ""
    priority: Priority = Priority.EXPLAIN
    deadline: float = math.inf
    allows_partial: bool = True
    uses_cache: bool = True


class Found(NamedTuple):
    """A result and whether it was there before the request."""

    result: SearchResult
    from_cache: bool


class Glimpse(NamedTuple):
    """Where one search stands.

    Attributes:
        image: (C, H, W) float32, the best so far; None before there is one.
        queue_position: 0 once it has begun.
    """

    step: int
    step_count: int
    best_rmse: float | None
    best_confidence: float | None
    image: NDArray[np.float32] | None
    queue_position: int


@dataclass(slots=True, eq=False)
class _Flight:
    """One search and how many orders wait for it; ``key`` None where it is not shared."""

    search: Search
    key: bytes | None
    waiter_count: int = 0


class SearchDesk:
    """Takes the orders of one model."""

    def __init__(
        self, scheduler: SearchScheduler, cache: ResultCache, metrics: Metrics, model: str
    ) -> None:
        self.scheduler = scheduler
        self._cache = cache
        self._metrics = metrics
        self._model = model
        self._flights: dict[bytes, _Flight] = {}

    @property
    def flight_count(self) -> int:
        """Shared searches under way."""
        return len(self._flights)

    @contextmanager
    def order(
        self,
        items: Sequence[SearchItem],
        image: NDArray[np.float32],
        terms: Terms,
        slot: Slot,
        weights_digest: str,
    ) -> Iterator["Order"]:
        """All searches of one request, under way while the context lasts.

        Raises:
            ServiceError: OVERLOADED or, where the deadline cannot be met, TIMEOUT.
        """
        key_of = key_maker(image, weights_digest)
        keys = [key_of(item) if terms.uses_cache else None for item in items]
        cached = [self._look_up(key) if key else None for key in keys]
        # Two equal pairs of one request are one search, too.
        fresh = {
            key or position: item
            for position, (key, item, result) in enumerate(zip(keys, items, cached, strict=True))
            if result is None and key not in self._flights
        }
        if any(result is None for result in cached):
            self._check_deadline(list(fresh.values()), items[0], terms)
        self.scheduler.check_room(len(fresh))
        entries = [
            Found(result, from_cache=True) if result else self._join(key, item, image, terms)
            for key, item, result in zip(keys, items, cached, strict=True)
        ]
        order = Order(self.scheduler, entries, terms)
        try:
            yield order
        finally:
            for flight in order.flights:
                self._leave(flight, slot)

    async def compare(
        self, items: Sequence[CompareItem], arrays: Arrays, terms: Terms, slot: Slot
    ) -> list[Compared]:
        """The saliencies of one request, each an errand, in order; neither cached nor shared.

        Raises:
            ServiceError: OVERLOADED, or that of the first that failed.
        """
        self.scheduler.check_room(len(items))
        errands = [
            self.scheduler.run(item, arrays, tenant=terms.tenant, priority=terms.priority)
            for item in items
        ]
        try:
            return await asyncio.gather(*(errand.future for errand in errands))
        finally:
            for errand in errands:
                _end(errand, slot)

    def _look_up(self, key: bytes) -> SearchResult | None:
        result = self._cache.get(key)
        found: Literal["hit", "shared", "miss"] = "hit" if result else "miss"
        if result is None and key in self._flights:
            found = "shared"
        self._metrics.cache_asked(self._model, found)
        return result

    def _leave(self, flight: _Flight, slot: Slot) -> None:
        """One waiter less; nobody left ends the search, which holds the slot until it stopped."""
        flight.waiter_count -= 1
        if flight.waiter_count > 0 or flight.search.future.done():
            return
        self._forget(flight)
        _end(flight.search, slot)

    def _join(
        self, key: bytes | None, item: SearchItem, image: NDArray[np.float32], terms: Terms
    ) -> _Flight:
        flight = self._flights.get(key) if key else None
        if flight is None:
            search = self.scheduler.submit(
                item, image, tenant=terms.tenant, priority=terms.priority
            )
            flight = _Flight(search, key)
            if key is not None:
                self._flights[key] = flight
                search.future.add_done_callback(lambda _: self._keep(flight))
        flight.waiter_count += 1
        return flight

    def _keep(self, flight: _Flight) -> None:
        self._forget(flight)
        future = flight.search.future
        if flight.key and not future.cancelled() and future.exception() is None:
            self._cache.put(flight.key, future.result())

    def _forget(self, flight: _Flight) -> None:
        if flight.key and self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def _check_deadline(self, fresh: Sequence[SearchItem], first: SearchItem, terms: Terms) -> None:
        lane = self.scheduler.lane(terms.priority, first)
        if not fresh:
            needed = self.scheduler.ending_seconds
        elif terms.allows_partial:
            needed = self.scheduler.first_result_seconds(terms.tenant, lane)
        else:
            needed = self.scheduler.whole_seconds(fresh, terms.tenant, lane)
        left = terms.deadline - time.monotonic()
        if left < needed:
            what = "a first result" if terms.allows_partial else "the whole result"
            message = (
                f"deadline: got {max(0.0, left):.3g} seconds for the search, {what} takes about "
                f"{needed:.3g}"
            )
            raise ServiceError(ErrorCode.TIMEOUT, message)


@dataclass(slots=True)
class Order:
    """The searches of one request, results and flights in the order of its items."""

    _scheduler: SearchScheduler
    _entries: list[Found | _Flight]
    _terms: Terms

    @property
    def flights(self) -> list[_Flight]:
        """Those of its searches that the cache did not answer."""
        return [entry for entry in self._entries if isinstance(entry, _Flight)]

    async def results(self) -> list[Found]:
        """In order.

        Raises:
            ServiceError: that of a search that failed; TIMEOUT when the deadline came before
                any search had taken a step.
        """
        await self._wait()
        ended = await self._ended()
        found = [
            entry if isinstance(entry, Found) else Found(ended[id(entry)], from_cache=False)
            for entry in self._entries
        ]
        if all(one.result.is_partial and one.result.end.steps == 0 for one in found):
            raise ServiceError(ErrorCode.TIMEOUT, "deadline: came before the first step")
        return found

    def begun(self) -> set[int]:
        """Places among the items whose search, not answered by the cache, has a first result."""
        return {
            place
            for place, entry in enumerate(self._entries)
            if isinstance(entry, _Flight) and entry.search.step > 0
        }

    def glimpses(self) -> dict[int, Glimpse]:
        """By place among the items: where every search stands that the cache did not answer."""
        positions: dict[int, int] = {}
        for lane in {flight.search.lane for flight in self.flights}:
            positions |= self._scheduler.positions(lane)
        return {
            place: _glimpse(entry.search, positions)
            for place, entry in enumerate(self._entries)
            if isinstance(entry, _Flight)
        }

    async def _wait(self) -> None:
        """Until all is done, one failed, or the best so far has to be asked for."""
        pending = {flight.search.future for flight in self.flights}
        while pending and (patience := self._patience()) > 0.0:
            done, pending = await asyncio.wait(
                pending,
                # Looked at again before long: the estimate follows what the chunks take by then.
                timeout=min(patience, _LOOK_SECONDS),
                return_when=asyncio.FIRST_EXCEPTION,
            )
            for future in done:
                future.result()

    def _patience(self) -> float:
        """Seconds until the best so far has to be asked for; inf to wait for the end."""
        if not self._terms.allows_partial:
            return math.inf
        return self._terms.deadline - self._scheduler.ending_seconds - time.monotonic()

    async def _ended(self) -> dict[int, SearchResult]:
        """The result of every flight by its id; what still runs is ended where it is."""
        endings: dict[int, asyncio.Future[SearchResult]] = {}
        for flight in self.flights:
            future = flight.search.future
            endings[id(flight)] = (
                future if future.done() else self._scheduler.end_now(flight.search)
            )
        try:
            await asyncio.gather(*endings.values())
        finally:
            for ending in endings.values():
                ending.cancel()
        return {place: ending.result() for place, ending in endings.items()}


def _end(passenger: Passenger, slot: Slot) -> None:
    """Nobody waits for it any more; the slot is held until no worker has it."""
    passenger.future.cancel()
    slot.hold()
    passenger.when_landed(slot.drop)


def _glimpse(search: Search, positions: dict[int, int]) -> Glimpse:
    progress = search.progress
    return Glimpse(
        step=search.item.step,
        step_count=search.item.step_count,
        best_rmse=progress.best_rmse if progress else None,
        best_confidence=progress.best_confidence if progress else None,
        image=_best_image(search),
        queue_position=positions.get(search.number, 0),
    )


def _best_image(search: Search) -> NDArray[np.float32] | None:
    if search.progress is None or search.progress.best_rmse is None:
        return None
    return search.arrays.get("best")
