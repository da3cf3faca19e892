"""The searches of requests: the cache, shared searches and deadlines."""

import asyncio
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from candor.contracts.api import Method
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import CompareItem, SearchItem
from candor.gateway.observability.metrics import Metrics
from candor.gateway.scheduling.options import SchedulerOptions
from candor.gateway.scheduling.scheduler import SearchScheduler
from candor.gateway.service.answer_times import AnswerTimes
from candor.gateway.service.cache import ResultCache, key_maker
from candor.gateway.service.concurrency import ConcurrencyLimiter
from candor.gateway.service.search_pool import PoolResult, SearchOptions, SearchPool
from candor.gateway.service.shared_results import SharedResults
from candor.terms import Goal, Norm
from tests.gateway.linear_worker import POISON_SEED, SHAPE, LinearBackend
from tests.gateway.manual_clock import ManualClock
from tests.gateway.searches import IMAGE, explain

OTHER_IMAGE = np.random.default_rng(6).random(SHAPE, dtype=np.float32)
DIGEST = "ab" * 32


class Pool:
    """A search pool with everything behind it."""

    def __init__(
        self,
        clock: ManualClock,
        *,
        call_seconds: float = 0.002,
        max_bytes: int = 10**6,
        backend: LinearBackend | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock
        self.backend = backend or LinearBackend(call_seconds, clock=clock)
        options = SchedulerOptions(**{"value_count": 3072, "chunk_seconds": 0.02, **options})
        self.scheduler = SearchScheduler(self.backend, "linear", options, clock=clock)
        self.cache = ResultCache(max_bytes)
        results = SharedResults(self.cache, None)
        self.search_pool = SearchPool(self.scheduler, results, Metrics(["linear"]), "linear")
        self.limiter = ConcurrencyLimiter(100)

    async def results(
        self,
        items: list[SearchItem],
        options: SearchOptions | None = None,
        image: np.ndarray = IMAGE,
    ) -> list[PoolResult]:
        slot = self.limiter.take()
        try:
            with self.search_pool.group(
                items, {"image": image}, options or SearchOptions(), slot, DIGEST
            ) as group:
                return await group.results()
        finally:
            slot.drop()

    async def results_within(
        self, seconds: float, items: list[SearchItem], **options: Any
    ) -> list[PoolResult]:
        deadline = self.clock.now() + seconds
        return await self.results(items, SearchOptions(deadline=deadline, **options))

    def started_count(self) -> int:
        """Searches that ever started."""
        return sum(item.step == 0 for call in self.backend.search_calls for item in call)


# --- cache -------------------------------------------------------------------------------------


def test_equal_search_is_answered_from_the_cache_and_marked(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock)
        (first,) = await pool.results([explain()])
        calls = len(pool.backend.search_calls)
        (second,) = await pool.results([explain()])
        assert len(pool.backend.search_calls) == calls
        assert (first.from_cache, second.from_cache) == (False, True)
        np.testing.assert_array_equal(first.outcome.image, second.outcome.image)
        await pool.scheduler.close()

    clock.run(scenario())


def test_sweep_computes_only_the_pairs_that_are_new(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock)
        await pool.results([explain(rho=0.02)])
        found = await pool.results([explain(rho=rho) for rho in (0.01, 0.02, 0.03)])
        assert [one.from_cache for one in found] == [False, True, False]
        assert pool.started_count() == 3
        await pool.scheduler.close()

    clock.run(scenario())


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
            {"norm": Norm.L1},
            {"away_from": 0},
            {"away_from": 3},
        )
    ]
    given = {"image": IMAGE}
    mask = np.ones(SHAPE[1:], np.float32)
    others = [
        {"image": OTHER_IMAGE},
        {"image": IMAGE.reshape(SHAPE[0], SHAPE[2], SHAPE[1])},
        given | {"mask": mask},
        given | {"mask": 0.5 * mask},
        given | {"mask": mask.T},
    ]
    keys = {key_maker(given, DIGEST)(item) for item in [base, *variants]}
    keys |= {key_maker(arrays, DIGEST)(base) for arrays in others}
    keys.add(key_maker(given, "cd" * 32)(base))
    assert len(keys) == 1 + len(variants) + len(others) + 1
    moved = base.model_copy(update={"step": 3, "chunk_steps": 9})
    assert key_maker(given, DIGEST)(moved) in keys


def test_no_cache_neither_reads_nor_fills_nor_shares(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock)
        alone = SearchOptions(uses_cache=False)
        await asyncio.gather(*(pool.results([explain()], alone) for _ in range(2)))
        assert pool.started_count() == 2
        (found,) = await pool.results([explain()])
        assert not found.from_cache
        (again,) = await pool.results([explain()], alone)
        assert not again.from_cache
        await pool.scheduler.close()

    clock.run(scenario())


def test_cache_stays_within_its_bytes_and_drops_the_least_used(clock: ManualClock) -> None:
    async def scenario() -> None:
        (size,) = [await byte_count_of_one()]
        pool = Pool(clock, max_bytes=2 * size)
        for target in (0, 1):
            await pool.results([explain(target=target)])
        await pool.results([explain(target=0)])  # used again, so 1 is the oldest
        await pool.results([explain(target=2)])
        assert pool.cache.byte_count == 2 * size
        found = [(await pool.results([explain(target=target)]))[0] for target in (0, 2, 1)]
        assert [one.from_cache for one in found] == [True, True, False]
        await pool.scheduler.close()

    async def byte_count_of_one() -> int:
        pool = Pool(clock)
        await pool.results([explain()])
        await pool.scheduler.close()
        return pool.cache.byte_count

    clock.run(scenario())


def test_cache_of_zero_bytes_keeps_nothing(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock, max_bytes=0)
        for _ in range(2):
            (found,) = await pool.results([explain()])
            assert not found.from_cache
        assert pool.cache.byte_count == 0
        await pool.scheduler.close()

    clock.run(scenario())


def test_failed_search_is_not_kept(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock)
        for _ in range(2):
            with pytest.raises(ServiceError, match="666"):
                await pool.results([explain(seed=POISON_SEED)])
        assert pool.started_count() == 2
        assert pool.search_pool.shared_count == pool.cache.byte_count == 0
        await pool.scheduler.close()

    clock.run(scenario())


# --- shared searches -----------------------------------------------------------------------------


def test_equal_searches_in_progress_are_one(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock)
        found = await asyncio.gather(*(pool.results([explain(), explain()]) for _ in range(5)))
        assert pool.started_count() == 1
        assert len({id(one.outcome) for results in found for one in results}) == 1
        assert not any(one.from_cache for results in found for one in results)
        await pool.scheduler.close()

    clock.run(scenario())


def test_cancelled_request_ends_no_search_that_others_wait_for(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock, call_seconds=0.005)
        staying = asyncio.create_task(pool.results([explain(400)]))
        leaving = [asyncio.create_task(pool.results([explain(400)])) for _ in range(3)]
        await clock.until(lambda: bool(pool.backend.search_calls))
        for task in leaving:
            task.cancel()
        (found,) = await staying
        assert found.outcome.end.steps == 400
        assert pool.started_count() == 1
        assert pool.limiter.taken == 0
        await pool.scheduler.close()

    clock.run(scenario())


def test_without_requests_the_search_ends_and_the_next_starts_anew(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock, call_seconds=0.005)
        tasks = [asyncio.create_task(pool.results([explain(2000)])) for _ in range(3)]
        await clock.until(lambda: bool(pool.backend.search_calls))
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await tasks[0]
        assert pool.search_pool.shared_count == 0
        await clock.advance(0.05)
        assert pool.scheduler.search_count == 0
        await pool.results([explain(30)])
        assert pool.started_count() == 2
        await pool.scheduler.close()

    clock.run(scenario())


def test_slot_of_a_cancelled_group_is_free_only_when_its_chunk_is_back(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock, call_seconds=0.05)
        task = asyncio.create_task(pool.results([explain(2000)]))
        await clock.until(lambda: bool(pool.backend.in_flight))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert pool.limiter.taken == 1
        await clock.until(lambda: not pool.backend.in_flight)
        await clock.advance(0.01)
        assert pool.limiter.taken == 0
        await pool.scheduler.close()

    clock.run(scenario())


# --- deadlines ---------------------------------------------------------------------------------


def test_deadline_brings_the_best_so_far_in_time_and_marked(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock, call_seconds=0.01)
        await pool.results([explain(40, seed=9)])  # a chunk has been measured
        started = clock.now()
        found = await pool.results_within(0.3, [explain(2000), explain(2000, target=2)])
        assert clock.now() - started < 0.3
        for one in found:
            assert one.outcome.is_partial
            assert 0 < one.outcome.end.steps < 2000
            assert 0 < one.outcome.end.rmse <= 0.04
        await clock.advance(0.05)
        assert pool.scheduler.search_count == pool.limiter.taken == 0
        size = pool.cache.byte_count
        (again,) = await pool.results_within(0.3, [explain(2000)])
        assert not again.from_cache  # a partial result is never kept
        assert pool.cache.byte_count == size
        await pool.scheduler.close()

    clock.run(scenario())


def test_equal_pairs_at_the_deadline_cost_one_call_for_the_best_so_far(clock: ManualClock) -> None:
    async def scenario() -> list[SearchItem]:
        pool = Pool(clock, call_seconds=0.01)
        await pool.results([explain(40, seed=9)])
        first, second = await pool.results_within(0.2, [explain(2000), explain(2000)])
        assert first.outcome is second.outcome
        assert first.outcome.is_partial
        await pool.scheduler.close()
        return [item for call in pool.backend.search_calls for item in call]

    items = clock.run(scenario())
    assert sum(item.chunk_steps == 0 for item in items) == 1


def test_deadline_of_one_does_not_end_the_search_of_another(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock, call_seconds=0.01)
        patient = asyncio.create_task(pool.results([explain(2000)]))
        await clock.advance(0.03)
        (hasty,) = await pool.results_within(0.3, [explain(2000)])
        (whole,) = await patient
        assert hasty.outcome.is_partial
        assert whole.outcome.end.steps == 2000
        assert pool.started_count() == 1
        await pool.scheduler.close()

    clock.run(scenario())


def test_result_before_the_deadline_is_whole(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock)
        found = await pool.results_within(10.0, [explain(30), explain(30, target=2)])
        assert not any(one.outcome.is_partial for one in found)
        await pool.scheduler.close()

    clock.run(scenario())


@pytest.mark.parametrize(
    ("options", "what"),
    [({}, "a first result"), ({"allows_partial": False}, "the whole result")],
    ids=["partial", "all or nothing"],
)
def test_deadline_that_cannot_be_met_is_rejected_on_arrival(
    clock: ManualClock, options: dict[str, Any], what: str
) -> None:
    async def scenario() -> ServiceError:
        pool = Pool(clock)
        with pytest.raises(ServiceError) as caught:
            await pool.results_within(0.001, [explain(2000)], **options)
        assert not pool.backend.search_calls
        assert pool.scheduler.search_count == 0
        await pool.scheduler.close()
        return caught.value

    error = clock.run(scenario())
    assert error.code is ErrorCode.TIMEOUT
    assert what in error.message
    assert "takes about" in error.message


class SlowEndings(LinearBackend):
    """Every call takes as long as it has searches, also one that only verifies the best so far."""

    def _seconds(self, items: list[bytes]) -> float:
        return self.call_seconds + 0.004 * len(items)


@pytest.mark.parametrize("count", [1, 33, 60, 64])
@pytest.mark.parametrize("workers", [1, 2])
def test_deadline_holds_for_any_number_of_searches_under_load(
    clock: ManualClock, count: int, workers: int
) -> None:
    async def scenario() -> None:
        backend = SlowEndings(0.01, worker_count=workers, clock=clock)
        pool = Pool(clock, backend=backend, worker_count=workers)
        await pool.results_within(0.5, [explain(2000, seed=99)])
        load = [
            asyncio.create_task(pool.results([explain(2000, seed=one)], SearchOptions(tenant="x")))
            for one in range(40)
        ]
        await clock.advance(0.5)
        started = clock.now()
        items = [explain(2000, seed=100 + one) for one in range(count)]
        found = await pool.results_within(1.5, items)
        assert clock.now() - started < 1.5
        assert len(found) == count
        assert all(one.outcome.is_partial for one in found)
        for task in load:
            task.cancel()
        await pool.scheduler.close()

    clock.run(scenario())


def test_deadlines_of_several_clients_hold_together(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock, backend=SlowEndings(0.01, clock=clock))
        await pool.results_within(0.5, [explain(2000, seed=9)])

        async def ask(client: int) -> float:
            items = [explain(2000, seed=100 * client + one) for one in range(60)]
            found = await pool.results_within(4.0, items, tenant=str(client))
            assert any(one.outcome.end.steps > 0 for one in found)
            return clock.now()

        started = clock.now()
        ended = await asyncio.gather(*map(ask, range(1, 7)))
        assert max(ended) - started < 4.0
        await pool.scheduler.close()

    clock.run(scenario())


def test_newcomers_make_no_promised_answer_late(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock, backend=SlowEndings(0.01, clock=clock))
        await pool.results_within(3.0, [explain(2000, seed=one) for one in range(60)])
        late: list[float] = []

        async def was_promised_in_vain(client: int, seconds: float) -> bool:
            started = clock.now()
            items = [explain(2000, seed=100 * client + one) for one in range(60)]
            try:
                await pool.results_within(seconds, items, tenant=str(client))
            except ServiceError:
                return clock.now() > started  # on arrival nothing was promised yet
            late.append(clock.now() - started - seconds)
            return False

        asked = []
        for client in range(1, 9):
            asked.append(asyncio.create_task(was_promised_in_vain(client, 1.4 - 0.1 * client)))
            await clock.advance(0.1)
        assert not any(await asyncio.gather(*asked))
        assert 1 < len(late) < len(asked)
        assert max(late) <= 0.0
        await pool.scheduler.close()

    clock.run(scenario())


def test_whole_result_is_rejected_where_a_partial_one_would_be_in_time(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock, call_seconds=0.01)
        await pool.results([explain(40, seed=9)])
        with pytest.raises(ServiceError, match="the whole result"):
            await pool.results_within(0.5, [explain(2000)], allows_partial=False)
        (found,) = await pool.results_within(0.5, [explain(2000)])
        assert found.outcome.is_partial
        await pool.scheduler.close()

    clock.run(scenario())


def test_cached_results_need_no_time(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock)
        await pool.results([explain()])
        (found,) = await pool.results_within(1e-6, [explain()])
        assert found.from_cache
        await pool.scheduler.close()

    clock.run(scenario())


# --- saliency jobs -----------------------------------------------------------------------------


def test_cancelled_comparison_holds_its_slot_until_the_worker_is_back(clock: ManualClock) -> None:
    async def scenario() -> None:
        pool = Pool(clock, call_seconds=0.05)
        slot = pool.limiter.take()
        item = CompareItem(method=Method.GRADIENT, target=1)
        asking = pool.search_pool.saliencies([item, item], {"image": IMAGE}, SearchOptions(), slot)
        working = asyncio.create_task(asking)
        await clock.until(lambda: bool(pool.backend.in_flight))
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        slot.drop()
        assert pool.limiter.taken == 1
        await pool.limiter.wait_until_idle()
        assert pool.backend.in_flight == 0
        assert pool.scheduler.search_count == 0
        assert len(pool.backend.search_calls) == 1

    clock.run(scenario())


def test_time_kept_back_for_an_answer_grows_with_its_results() -> None:
    times = AnswerTimes(0.2, value_count=3 * 224 * 224)
    assert 0.2 < times.seconds(1) < 0.25
    times.record(2, 0.1)
    assert times.seconds(60) == pytest.approx(0.2 + 1.25 * 60 * 0.05)
    for _ in range(60):
        times.record(60, 0.6)
    assert times.seconds(60) < 1.0
