"""Orders of searches: the cache, single flight and deadlines."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import pytest

from candor.contracts.api import Method
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import CompareItem, SearchItem
from candor.gateway.observability.metrics import Metrics
from candor.gateway.scheduling.dispatcher import SearchScheduler
from candor.gateway.service.cache import ResultCache, key_maker
from candor.gateway.service.concurrency import ConcurrencyLimiter
from candor.gateway.service.search_pool import Found, SearchPool, Terms
from candor.terms import Goal
from tests.gateway.linear_worker import POISON_SEED, SHAPE, LinearBackend

T = TypeVar("T")
IMAGE = np.random.default_rng(5).random(SHAPE, dtype=np.float32)
OTHER_IMAGE = np.random.default_rng(6).random(SHAPE, dtype=np.float32)
DIGEST = "ab" * 32


class Room:
    """A desk with everything behind it."""

    def __init__(self, *, call_seconds: float = 0.002, max_bytes: int = 10**6) -> None:
        self.backend = LinearBackend(call_seconds)
        self.scheduler = SearchScheduler(
            self.backend, "linear", value_count=3072, chunk_seconds=0.02
        )
        self.cache = ResultCache(max_bytes)
        self.metrics = Metrics(["linear"])
        self.search_pool = SearchPool(self.scheduler, self.cache, self.metrics, "linear")
        self.limiter = ConcurrencyLimiter(100)

    async def ask(
        self, items: list[SearchItem], terms: Terms | None = None, image: np.ndarray = IMAGE
    ) -> list[Found]:
        slot = self.limiter.take()
        try:
            with self.search_pool.order(items, image, terms or Terms(), slot, DIGEST) as order:
                return await order.results()
        finally:
            slot.drop()

    def begun(self) -> int:
        """Searches that ever began."""
        return sum(item.step == 0 for call in self.backend.search_calls for item in call)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(scenario, 20)

    return asyncio.run(bounded())


def explain(steps: int = 30, target: int = 1, rho: float = 0.04, seed: int = 0) -> SearchItem:
    return SearchItem(
        goal=Goal.EXPLAIN_FOR, target=target, rho=rho, step_count=steps, seed=seed, chunk_steps=1
    )


async def hurried(room: Room, items: list[SearchItem], seconds: float, **terms: Any) -> list[Found]:
    return await room.ask(items, Terms(deadline=time.monotonic() + seconds, **terms))


# --- cache -------------------------------------------------------------------------------------


def test_equal_search_is_answered_from_the_cache_and_marked() -> None:
    async def scenario() -> None:
        room = Room()
        (first,) = await room.ask([explain()])
        calls = len(room.backend.search_calls)
        (second,) = await room.ask([explain()])
        assert len(room.backend.search_calls) == calls
        assert (first.from_cache, second.from_cache) == (False, True)
        np.testing.assert_array_equal(first.result.image, second.result.image)
        await room.scheduler.close()

    run(scenario())


def test_sweep_computes_only_the_pairs_that_are_new() -> None:
    async def scenario() -> None:
        room = Room()
        await room.ask([explain(rho=0.02)])
        found = await room.ask([explain(rho=rho) for rho in (0.01, 0.02, 0.03)])
        assert [one.from_cache for one in found] == [False, True, False]
        assert room.begun() == 3
        await room.scheduler.close()

    run(scenario())


def test_key_depends_on_everything_that_decides_the_outcome() -> None:
    base = explain()
    variants = [
        base.model_copy(update=change)
        for change in (
            {"goal": Goal.EXPLAIN_AGAINST},
            {"target": 2},
            {"rho": 0.05},
            {"step_count": 31},
            {"seed": 1},
            {"solver": "other"},
        )
    ]
    keys = {key_maker(IMAGE, DIGEST)(item) for item in [base, *variants]}
    keys.add(key_maker(OTHER_IMAGE, DIGEST)(base))
    keys.add(key_maker(IMAGE, "cd" * 32)(base))
    keys.add(key_maker(IMAGE.reshape(SHAPE[0], SHAPE[2], SHAPE[1]), DIGEST)(base))
    assert len(keys) == len(variants) + 4
    moved = base.model_copy(update={"step": 3, "chunk_steps": 9})
    assert key_maker(IMAGE, DIGEST)(moved) in keys


def test_no_cache_neither_reads_nor_fills_nor_shares() -> None:
    async def scenario() -> None:
        room = Room()
        alone = Terms(uses_cache=False)
        await asyncio.gather(*(room.ask([explain()], alone) for _ in range(2)))
        assert room.begun() == 2
        (found,) = await room.ask([explain()])
        assert not found.from_cache
        (again,) = await room.ask([explain()], alone)
        assert not again.from_cache
        await room.scheduler.close()

    run(scenario())


def test_cache_stays_within_its_bytes_and_drops_the_least_used() -> None:
    async def scenario() -> None:
        (size,) = [await byte_count_of_one()]
        room = Room(max_bytes=2 * size)
        for target in (0, 1):
            await room.ask([explain(target=target)])
        await room.ask([explain(target=0)])  # used again, so 1 is the oldest
        await room.ask([explain(target=2)])
        assert room.cache.byte_count == 2 * size
        found = [(await room.ask([explain(target=target)]))[0] for target in (0, 2, 1)]
        assert [one.from_cache for one in found] == [True, True, False]
        await room.scheduler.close()

    async def byte_count_of_one() -> int:
        room = Room()
        await room.ask([explain()])
        await room.scheduler.close()
        return room.cache.byte_count

    run(scenario())


def test_cache_of_zero_bytes_keeps_nothing() -> None:
    async def scenario() -> None:
        room = Room(max_bytes=0)
        for _ in range(2):
            (found,) = await room.ask([explain()])
            assert not found.from_cache
        assert room.cache.byte_count == 0
        await room.scheduler.close()

    run(scenario())


def test_failed_search_is_not_kept() -> None:
    async def scenario() -> None:
        room = Room()
        for _ in range(2):
            with pytest.raises(ServiceError, match="666"):
                await room.ask([explain(seed=POISON_SEED)])
        assert room.begun() == 2
        assert room.search_pool.shared_count == room.cache.byte_count == 0
        await room.scheduler.close()

    run(scenario())


# --- single flight -----------------------------------------------------------------------------


def test_equal_searches_under_way_are_one() -> None:
    async def scenario() -> None:
        room = Room()
        found = await asyncio.gather(*(room.ask([explain(), explain()]) for _ in range(5)))
        assert room.begun() == 1
        assert len({id(one.result) for order in found for one in order}) == 1
        assert not any(one.from_cache for order in found for one in order)
        await room.scheduler.close()

    run(scenario())


def test_who_leaves_ends_no_search_that_others_wait_for() -> None:
    async def scenario() -> None:
        room = Room(call_seconds=0.005)
        staying = asyncio.create_task(room.ask([explain(400)]))
        leaving = [asyncio.create_task(room.ask([explain(400)])) for _ in range(3)]
        while not room.backend.search_calls:
            await asyncio.sleep(0.001)
        for task in leaving:
            task.cancel()
        (found,) = await staying
        assert found.result.end.steps == 400
        assert room.begun() == 1
        assert room.limiter.taken == 0
        await room.scheduler.close()

    run(scenario())


def test_when_all_have_left_the_search_ends_and_the_next_begins_anew() -> None:
    async def scenario() -> None:
        room = Room(call_seconds=0.005)
        tasks = [asyncio.create_task(room.ask([explain(2000)])) for _ in range(3)]
        while not room.backend.search_calls:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await tasks[0]
        assert room.search_pool.shared_count == 0
        await asyncio.sleep(0.05)
        assert room.scheduler.search_count == 0
        await room.ask([explain(30)])
        assert room.begun() == 2
        await room.scheduler.close()

    run(scenario())


def test_slot_is_free_only_when_the_chunk_of_a_cancelled_order_is_back() -> None:
    async def scenario() -> None:
        room = Room(call_seconds=0.05)
        task = asyncio.create_task(room.ask([explain(2000)]))
        while not room.backend.flying:
            await asyncio.sleep(0.001)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert room.limiter.taken == 1
        while room.backend.flying:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert room.limiter.taken == 0
        await room.scheduler.close()

    run(scenario())


# --- deadlines ---------------------------------------------------------------------------------


def test_deadline_brings_the_best_so_far_in_time_and_marked() -> None:
    async def scenario() -> None:
        room = Room(call_seconds=0.01)
        await room.ask([explain(40, seed=9)])  # the clock has seen a chunk
        started = time.monotonic()
        found = await hurried(room, [explain(2000), explain(2000, target=2)], 0.6)
        assert time.monotonic() - started < 0.6
        for one in found:
            assert one.result.is_partial
            assert 0 < one.result.end.steps < 2000
            assert 0 < one.result.end.rmse <= 0.04
        await asyncio.sleep(0.05)
        assert room.scheduler.search_count == room.limiter.taken == 0
        size = room.cache.byte_count
        (again,) = await hurried(room, [explain(2000)], 0.6)
        assert not again.from_cache  # a partial result is never kept
        assert room.cache.byte_count == size
        await room.scheduler.close()

    run(scenario())


def test_deadline_of_one_does_not_end_the_search_of_another() -> None:
    async def scenario() -> None:
        room = Room(call_seconds=0.01)
        patient = asyncio.create_task(room.ask([explain(2000)]))
        await asyncio.sleep(0.03)
        (hasty,) = await hurried(room, [explain(2000)], 0.3)
        (whole,) = await patient
        assert hasty.result.is_partial
        assert whole.result.end.steps == 2000
        assert room.begun() == 1
        await room.scheduler.close()

    run(scenario())


def test_what_finishes_before_the_deadline_is_whole() -> None:
    async def scenario() -> None:
        room = Room()
        found = await hurried(room, [explain(30), explain(30, target=2)], 10.0)
        assert not any(one.result.is_partial for one in found)
        await room.scheduler.close()

    run(scenario())


@pytest.mark.parametrize(
    ("terms", "what"),
    [({}, "a first result"), ({"allows_partial": False}, "the whole result")],
    ids=["partial", "all or nothing"],
)
def test_deadline_that_cannot_be_met_is_refused_on_arrival(
    terms: dict[str, Any], what: str
) -> None:
    async def scenario() -> ServiceError:
        room = Room()
        with pytest.raises(ServiceError) as caught:
            await hurried(room, [explain(2000)], 0.001, **terms)
        assert not room.backend.search_calls
        assert room.scheduler.search_count == 0
        await room.scheduler.close()
        return caught.value

    error = run(scenario())
    assert error.code is ErrorCode.TIMEOUT
    assert what in error.message
    assert "takes about" in error.message


def test_all_or_nothing_is_refused_where_a_partial_answer_would_do() -> None:
    async def scenario() -> None:
        room = Room(call_seconds=0.01)
        await room.ask([explain(40, seed=9)])
        with pytest.raises(ServiceError, match="the whole result"):
            await hurried(room, [explain(2000)], 0.5, allows_partial=False)
        (found,) = await hurried(room, [explain(2000)], 0.5)
        assert found.result.is_partial
        await room.scheduler.close()

    run(scenario())


def test_cached_results_need_no_time() -> None:
    async def scenario() -> None:
        room = Room()
        await room.ask([explain()])
        (found,) = await hurried(room, [explain()], 1e-6)
        assert found.from_cache
        await room.scheduler.close()

    run(scenario())


# --- errands -----------------------------------------------------------------------------------


def test_a_comparison_left_alone_holds_its_slot_until_the_worker_is_back() -> None:
    async def scenario() -> None:
        room = Room(call_seconds=0.05)
        slot = room.limiter.take()
        item = CompareItem(method=Method.GRADIENT, target=1)
        asking = room.search_pool.compare([item, item], {"image": IMAGE}, Terms(), slot)
        working = asyncio.create_task(asking)
        while not room.backend.flying:
            await asyncio.sleep(0.001)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        slot.drop()
        assert room.limiter.taken == 1
        await room.limiter.wait_until_idle()
        assert room.backend.flying == 0
        assert room.scheduler.search_count == 0
        assert len(room.backend.search_calls) == 1

    run(scenario())
