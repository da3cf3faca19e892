"""The searches of requests: cached, shared with equal requests, ended in time."""

import asyncio
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import CompareItem, CompareMissing, SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.observability.metrics import Metrics
from candor.gateway.scheduling.jobs import Job, Search
from candor.gateway.scheduling.queue_limits import Wanted
from candor.gateway.scheduling.scheduler import SearchScheduler
from candor.gateway.service.cache import key_maker
from candor.gateway.service.concurrency import Slot
from candor.gateway.service.shared_results import SharedResults
from candor.gateway.workers.codec import Arrays, SaliencyPair, SearchOutcome

_LONGEST_WAIT_SECONDS = 0.2  # between two estimates of how long the best so far takes
_NO_TIME_SECONDS = 0.001
_RETRY_SECONDS = 1.0
_FIRST_WAIT_SECONDS = 0.01  # the same while a late first result is all that is waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How a request wants its searches done.

    Attributes:
        deadline: when the results must be there, in the time of the scheduler's clock; inf without.
        allows_partial: at the deadline the best so far is enough; else it is the whole or TIMEOUT.
        uses_cache: may be answered from earlier results and share a search with equal requests.
    """

    tenant: str = ""
    priority: Priority = Priority.EXPLAIN
    deadline: float = math.inf
    allows_partial: bool = True
    uses_cache: bool = True


class PoolResult(NamedTuple):
    """The outcome of a search, and whether an earlier request had it already."""

    outcome: SearchOutcome
    from_cache: bool


class Snapshot(NamedTuple):
    """Where one search stands.

    Attributes:
        image: (C, H, W) float32, the best so far; None before there is one.
        queue_position: 0 once it has started.
    """

    step: int
    step_count: int
    best_rmse: float | None
    best_confidence: float | None
    image: NDArray[np.float32] | None
    queue_position: int


@dataclass(slots=True, eq=False)
class _SharedSearch:
    """One search and how many groups wait for it; ``key`` None where it is not shared."""

    search: Search
    key: bytes | None
    waiter_count: int = 0


class SearchPool:
    """The searches of one model, for all requests."""

    def __init__(
        self, scheduler: SearchScheduler, cache: SharedResults, metrics: Metrics, model: str
    ) -> None:
        self.scheduler = scheduler
        self._cache = cache
        self._metrics = metrics
        self._model = model
        self._shared_searches: dict[bytes, _SharedSearch] = {}

    @property
    def shared_count(self) -> int:
        """Shared searches in progress."""
        return len(self._shared_searches)

    async def fetch(
        self,
        items: Sequence[SearchItem],
        arrays: Arrays,
        options: SearchOptions,
        weights_digest: str,
    ) -> None:
        """Brings into the cache what other gateways have found of ``items``; before `group`."""
        if options.uses_cache and self._cache.is_shared:
            await self._cache.fetch([*map(key_maker(arrays, weights_digest), items)])

    @contextmanager
    def group(
        self,
        items: Sequence[SearchItem],
        arrays: Arrays,
        options: SearchOptions,
        slot: Slot,
        weights_digest: str,
    ) -> Iterator["SearchGroup"]:
        """All searches of one request, in progress while the context lasts.

        Args:
            arrays: what every search begins with: image (C, H, W) and perhaps mask (H, W), both
                float32 in [0, 1].
            slot: held until no worker has a search of the group any more.
        Raises:
            ServiceError: OVERLOADED or, where the deadline cannot be met, TIMEOUT.
        """
        key_of = key_maker(arrays, weights_digest)
        keys = [key_of(item) if options.uses_cache else None for item in items]
        cached = [self._look_up(key) if key else None for key in keys]
        # Two equal pairs of one request are one search, too.
        fresh = {
            key or position: item
            for position, (key, item, outcome) in enumerate(zip(keys, items, cached, strict=True))
            if outcome is None and key not in self._shared_searches
        }
        open_count = sum(outcome is None for outcome in cached)
        if open_count:
            wanted = self._wanted(list(fresh.values()), items[0], open_count, options)
            self.scheduler.check(wanted)
        entries = [
            PoolResult(outcome, from_cache=True)
            if outcome
            else self._join(key, item, arrays, options)
            for key, item, outcome in zip(keys, items, cached, strict=True)
        ]
        group = SearchGroup(self.scheduler, entries, options)
        try:
            with group.promised():
                yield group
        finally:
            for shared_search in group.shared_searches:
                self._leave(shared_search, slot)

    async def saliencies(
        self, items: Sequence[CompareItem], arrays: Arrays, options: SearchOptions, slot: Slot
    ) -> list[SaliencyPair | CompareMissing]:
        """The saliencies of one request, each a job, in order; neither cached nor shared.

        Raises:
            ServiceError: OVERLOADED, or that of the first that failed.
        """
        self.scheduler.check_room(len(items))
        jobs = [
            self.scheduler.submit_saliency(
                item, arrays, tenant=options.tenant, priority=options.priority
            )
            for item in items
        ]
        try:
            return list(await asyncio.gather(*(job.future for job in jobs)))
        finally:
            for job in jobs:
                _end(job, slot)

    def _look_up(self, key: bytes) -> SearchOutcome | None:
        outcome = self._cache.own.get(key)
        found: Literal["hit", "shared", "miss"] = "hit" if outcome else "miss"
        if outcome is None and key in self._shared_searches:
            found = "shared"
        self._metrics.cache_asked(self._model, found)
        return outcome

    def _join(
        self,
        key: bytes | None,
        item: SearchItem,
        arrays: Arrays,
        options: SearchOptions,
    ) -> _SharedSearch:
        shared_search = self._shared_searches.get(key) if key else None
        if shared_search is None:
            search = self.scheduler.submit(
                item, arrays, tenant=options.tenant, priority=options.priority
            )
            shared_search = _SharedSearch(search, key)
            if key is not None:
                self._shared_searches[key] = shared_search
                search.future.add_done_callback(lambda _: self._keep(shared_search))
        shared_search.waiter_count += 1
        return shared_search

    def _leave(self, shared_search: _SharedSearch, slot: Slot) -> None:
        """One group less; without any the search ends, and holds the slot until it has stopped."""
        shared_search.waiter_count -= 1
        if shared_search.waiter_count > 0 or shared_search.search.future.done():
            return
        self._forget(shared_search)
        _end(shared_search.search, slot)

    def _keep(self, shared_search: _SharedSearch) -> None:
        self._forget(shared_search)
        future = shared_search.search.future
        if shared_search.key and not future.cancelled() and future.exception() is None:
            self._cache.put(shared_search.key, future.result())

    def _forget(self, shared_search: _SharedSearch) -> None:
        if shared_search.key and self._shared_searches.get(shared_search.key) is shared_search:
            del self._shared_searches[shared_search.key]

    def _wanted(
        self,
        fresh: Sequence[SearchItem],
        first: SearchItem,
        open_count: int,
        options: SearchOptions,
    ) -> Wanted:
        return Wanted(
            tenant=options.tenant,
            service_class=self.scheduler.service_class(options.priority, first),
            step_counts=[item.step_count for item in fresh],
            open_count=open_count,
            deadline=options.deadline,
            allows_partial=options.allows_partial,
        )


class SearchGroup:
    """The searches of one request; results and snapshots are in the order of its items."""

    def __init__(
        self,
        scheduler: SearchScheduler,
        entries: Sequence[PoolResult | _SharedSearch],
        options: SearchOptions,
    ) -> None:
        self._scheduler = scheduler
        self._entries = entries
        self._options = options

    @property
    def shared_searches(self) -> list[_SharedSearch]:
        """The searches that the cache did not answer."""
        return [entry for entry in self._entries if isinstance(entry, _SharedSearch)]

    def promised(self) -> AbstractContextManager[None]:
        """While it lasts, other requests leave time for the best so far of these searches."""
        if not self._options.allows_partial or math.isinf(self._options.deadline):
            return nullcontext()
        searches = {search.number: search for _, search in self._searches()}
        return self._scheduler.plan.promises.kept(self._options.deadline, list(searches.values()))

    async def results(self) -> list[PoolResult]:
        """The result of every item, in order.

        Raises:
            ServiceError: that of a search that failed; TIMEOUT when the deadline came before
                any search had taken a step.
        """
        await self._wait()
        outcomes = await self._outcomes()
        results = [
            entry
            if isinstance(entry, PoolResult)
            else PoolResult(outcomes[entry.search.number], from_cache=False)
            for entry in self._entries
        ]
        if all(one.outcome.is_partial and one.outcome.end.steps == 0 for one in results):
            raise ServiceError(ErrorCode.TIMEOUT, "deadline: came before the first step")
        return results

    def changed(self) -> asyncio.Future[None]:
        """See `SearchScheduler.changed`."""
        return self._scheduler.changed()

    def with_progress(self) -> set[int]:
        """Indexes of the items whose search, not answered by the cache, has a first result."""
        return {index for index, search in self._searches() if search.step > 0}

    def snapshots(self) -> dict[int, Snapshot]:
        """By index of the item: where every search stands that the cache did not answer."""
        positions: dict[int, int] = {}
        for service_class in {search.service_class for _, search in self._searches()}:
            positions |= self._scheduler.positions(service_class)
        return {index: _snapshot(search, positions) for index, search in self._searches()}

    def _searches(self) -> Iterator[tuple[int, Search]]:
        """Index and search of every item that the cache did not answer."""
        for index, entry in enumerate(self._entries):
            if isinstance(entry, _SharedSearch):
                yield index, entry.search

    async def _wait(self) -> None:
        """Until all searches are done, one has failed, or it is time to request the best so far."""
        pending = {search.future for _, search in self._searches()}
        while pending and (seconds := self._seconds_to_wait()) > _NO_TIME_SECONDS:
            done = await self._scheduler.clock.wait(pending, seconds)
            pending -= done
            for future in done:
                future.result()

    def _seconds_to_wait(self) -> float:
        """Until the next look at the time left; next to none: request the best so far.

        Not for long: the estimate follows what the chunks take by then.
        """
        scheduler, deadline = self._scheduler, self._options.deadline
        left = deadline - scheduler.clock.now()
        if not self._options.allows_partial or math.isinf(deadline):
            self._check_in_time(left)
            return _LONGEST_WAIT_SECONDS
        # The chunk in flight ends first.
        estimates = scheduler.plan.estimates
        seconds = left - estimates.chunk_seconds - estimates.endings_seconds(deadline)
        if seconds <= _NO_TIME_SECONDS and not self.with_progress():
            # That chunk may bring the first result, without which there is nothing to answer.
            return min(left - estimates.likely_endings_seconds(deadline), _FIRST_WAIT_SECONDS)
        return min(seconds, _LONGEST_WAIT_SECONDS)

    def _check_in_time(self, left: float) -> None:
        """Raises: ServiceError: OVERLOADED, what is still to be done would be in vain."""
        steps = max((search.steps_left for _, search in self._searches()), default=0)
        needed = self._scheduler.plan.estimates.finishing_seconds(steps)
        if left < needed:
            message = f"deadline: {steps} steps left take {needed:.3g} seconds, got {left:.3g}"
            raise ServiceError(ErrorCode.OVERLOADED, message, retry_seconds=_RETRY_SECONDS)

    async def _outcomes(self) -> dict[int, SearchOutcome]:
        """The outcome of every search by its number; what still runs is ended where it is."""
        searches = {search.number: search for _, search in self._searches()}
        endings = {
            number: search.future
            if search.future.done()
            else self._scheduler.end_now(search, self._options.deadline)
            for number, search in searches.items()
        }
        try:
            await asyncio.gather(*endings.values())
        finally:
            for ending in endings.values():
                ending.cancel()
        return {number: ending.result() for number, ending in endings.items()}


def _end(job: Job, slot: Slot) -> None:
    """Ends a job that no request waits for; the slot is held until no worker has it."""
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
