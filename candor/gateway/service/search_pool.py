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
from candor.gateway.scheduling.jobs import Arrays, Compared, Job, Search, SearchResult
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


class Snapshot(NamedTuple):
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
class _SharedSearch:
    """One search and how many orders wait for it; ``key`` None where it is not shared."""

    search: Search
    key: bytes | None
    waiter_count: int = 0


class SearchPool:
    """Takes the orders of one model."""

    def __init__(
        self, scheduler: SearchScheduler, cache: ResultCache, metrics: Metrics, model: str
    ) -> None:
        self.scheduler = scheduler
        self._cache = cache
        self._metrics = metrics
        self._model = model
        self._shared_searches: dict[bytes, _SharedSearch] = {}

    @property
    def shared_count(self) -> int:
        """Shared searches under way."""
        return len(self._shared_searches)

    @contextmanager
    def order(
        self,
        items: Sequence[SearchItem],
        image: NDArray[np.float32],
        terms: Terms,
        slot: Slot,
        weights_digest: str,
    ) -> Iterator["SearchGroup"]:
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
            if result is None and key not in self._shared_searches
        }
        if any(result is None for result in cached):
            self._check_deadline(list(fresh.values()), items[0], terms)
        self.scheduler.check_room(len(fresh))
        entries = [
            Found(result, from_cache=True) if result else self._join(key, item, image, terms)
            for key, item, result in zip(keys, items, cached, strict=True)
        ]
        order = SearchGroup(self.scheduler, entries, terms)
        try:
            yield order
        finally:
            for shared_search in order.shared_searches:
                self._leave(shared_search, slot)

    async def compare(
        self, items: Sequence[CompareItem], arrays: Arrays, terms: Terms, slot: Slot
    ) -> list[Compared]:
        """The saliencies of one request, each an errand, in order; neither cached nor shared.

        Raises:
            ServiceError: OVERLOADED, or that of the first that failed.
        """
        self.scheduler.check_room(len(items))
        saliency_jobs = [
            self.scheduler.run(item, arrays, tenant=terms.tenant, priority=terms.priority)
            for item in items
        ]
        try:
            return await asyncio.gather(*(saliency_job.future for saliency_job in saliency_jobs))
        finally:
            for saliency_job in saliency_jobs:
                _end(saliency_job, slot)

    def _look_up(self, key: bytes) -> SearchResult | None:
        result = self._cache.get(key)
        found: Literal["hit", "shared", "miss"] = "hit" if result else "miss"
        if result is None and key in self._shared_searches:
            found = "shared"
        self._metrics.cache_asked(self._model, found)
        return result

    def _leave(self, shared_search: _SharedSearch, slot: Slot) -> None:
        """One waiter less; nobody left ends the search, which holds the slot until it stopped."""
        shared_search.waiter_count -= 1
        if shared_search.waiter_count > 0 or shared_search.search.future.done():
            return
        self._forget(shared_search)
        _end(shared_search.search, slot)

    def _join(
        self, key: bytes | None, item: SearchItem, image: NDArray[np.float32], terms: Terms
    ) -> _SharedSearch:
        shared_search = self._shared_searches.get(key) if key else None
        if shared_search is None:
            search = self.scheduler.submit(
                item, image, tenant=terms.tenant, priority=terms.priority
            )
            shared_search = _SharedSearch(search, key)
            if key is not None:
                self._shared_searches[key] = shared_search
                search.future.add_done_callback(lambda _: self._keep(shared_search))
        shared_search.waiter_count += 1
        return shared_search

    def _keep(self, shared_search: _SharedSearch) -> None:
        self._forget(shared_search)
        future = shared_search.search.future
        if shared_search.key and not future.cancelled() and future.exception() is None:
            self._cache.put(shared_search.key, future.result())

    def _forget(self, shared_search: _SharedSearch) -> None:
        if shared_search.key and self._shared_searches.get(shared_search.key) is shared_search:
            del self._shared_searches[shared_search.key]

    def _check_deadline(self, fresh: Sequence[SearchItem], first: SearchItem, terms: Terms) -> None:
        service_class = self.scheduler.service_class(terms.priority, first)
        if not fresh:
            needed = self.scheduler.ending_seconds
        elif terms.allows_partial:
            needed = self.scheduler.first_result_seconds(terms.tenant, service_class)
        else:
            needed = self.scheduler.whole_seconds(fresh, terms.tenant, service_class)
        left = terms.deadline - time.monotonic()
        if left < needed:
            what = "a first result" if terms.allows_partial else "the whole result"
            message = (
                f"deadline: got {max(0.0, left):.3g} seconds for the search, {what} takes about "
                f"{needed:.3g}"
            )
            raise ServiceError(ErrorCode.TIMEOUT, message)


@dataclass(slots=True)
class SearchGroup:
    """The searches of one request, results and flights in the order of its items."""

    _scheduler: SearchScheduler
    _entries: list[Found | _SharedSearch]
    _terms: Terms

    @property
    def shared_searches(self) -> list[_SharedSearch]:
        """Those of its searches that the cache did not answer."""
        return [entry for entry in self._entries if isinstance(entry, _SharedSearch)]

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
            if isinstance(entry, _SharedSearch) and entry.search.step > 0
        }

    def snapshots(self) -> dict[int, Snapshot]:
        """By place among the items: where every search stands that the cache did not answer."""
        positions: dict[int, int] = {}
        for service_class in {
            shared_search.search.service_class for shared_search in self.shared_searches
        }:
            positions |= self._scheduler.positions(service_class)
        return {
            place: _snapshot(entry.search, positions)
            for place, entry in enumerate(self._entries)
            if isinstance(entry, _SharedSearch)
        }

    async def _wait(self) -> None:
        """Until all is done, one failed, or the best so far has to be asked for."""
        pending = {shared_search.search.future for shared_search in self.shared_searches}
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
        for shared_search in self.shared_searches:
            future = shared_search.search.future
            endings[id(shared_search)] = (
                future if future.done() else self._scheduler.end_now(shared_search.search)
            )
        try:
            await asyncio.gather(*endings.values())
        finally:
            for ending in endings.values():
                ending.cancel()
        return {place: ending.result() for place, ending in endings.items()}


def _end(job: Job, slot: Slot) -> None:
    """Nobody waits for it any more; the slot is held until no worker has it."""
    job.future.cancel()
    slot.hold()
    job.when_returned(slot.drop)


def _snapshot(search: Search, positions: dict[int, int]) -> Snapshot:
    progress = search.progress
    return Snapshot(
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
