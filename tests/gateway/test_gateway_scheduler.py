"""Continuous batching of searches."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
import pytest

from candor.contracts import wire
from candor.contracts.api import InputSpec
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import Goal, SearchItem
from gateway.backend import MAX_CALL_BYTES, WorkerFault
from gateway.scheduler import (
    FIRST_CHUNK_STEPS,
    MAX_CHUNK_STEPS,
    ChunkClock,
    SearchResult,
    SearchScheduler,
)
from gateway.service import _searches_a_call
from tests.gateway.linear_worker import POISON_SEED, SHAPE, LinearBackend

T = TypeVar("T")
IMAGE = np.random.default_rng(5).random(SHAPE, dtype=np.float32)


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(work, 20)

    return asyncio.run(bounded())


def explain(steps: int, target: int = 1, seed: int = 0) -> SearchItem:
    return SearchItem(
        goal=Goal.EXPLAIN_FOR, target=target, rho=0.04, step_count=steps, seed=seed, chunk_steps=1
    )


async def one(scheduler: SearchScheduler, item: SearchItem) -> SearchResult:
    return (await scheduler.run([item], IMAGE))[0]


def test_result_does_not_depend_on_the_length_of_chunks() -> None:
    async def searched(chunk_seconds: float) -> tuple[SearchResult, int]:
        backend = LinearBackend()
        scheduler = SearchScheduler(backend, "linear", chunk_seconds=chunk_seconds)
        result = await one(scheduler, explain(60))
        await scheduler.close()
        return result, len(backend.search_calls)

    async def both() -> None:
        short, many_calls = await searched(1e-9)
        long, few_calls = await searched(1e9)
        assert many_calls > few_calls > 1
        np.testing.assert_array_equal(short.image, long.image)
        np.testing.assert_array_equal(short.logits_after, long.logits_after)
        assert short.end == long.end

    run(both())


def test_eight_searches_share_batches_of_equal_chunks() -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(call_seconds=0.005)
        scheduler = SearchScheduler(backend, "linear")
        await asyncio.gather(*(one(scheduler, explain(40)) for _ in range(8)))
        await scheduler.close()
        return backend.search_calls

    calls = run(scenario())
    assert max(len(call) for call in calls) == 8
    assert sum(len(call) for call in calls) < 8 * 40 / FIRST_CHUNK_STEPS
    assert all(len({item.chunk_steps for item in call}) == 1 for call in calls)


def test_batch_never_exceeds_its_limit_and_everyone_is_served_in_order() -> None:
    async def scenario() -> tuple[list[int], list[int]]:
        backend = LinearBackend()
        scheduler = SearchScheduler(backend, "linear", max_batch=3)
        order: list[int] = []

        async def numbered(number: int) -> None:
            await one(scheduler, explain(10))
            order.append(number)

        await asyncio.gather(*(numbered(number) for number in range(8)))
        await scheduler.close()
        return [len(call) for call in backend.search_calls], order

    sizes, order = run(scenario())
    assert max(sizes) == 3
    assert order == sorted(order)


def test_late_short_search_finishes_before_long_ones() -> None:
    async def scenario() -> list[str]:
        backend = LinearBackend(call_seconds=0.005)
        scheduler = SearchScheduler(backend, "linear", chunk_seconds=0.01)
        order: list[str] = []

        async def named(name: str, steps: int) -> None:
            await one(scheduler, explain(steps))
            order.append(name)

        async def late() -> None:
            await asyncio.sleep(0.02)
            await named("late", 5)

        await asyncio.gather(named("long", 60), named("longer", 90), late())
        await scheduler.close()
        return order

    assert run(scenario()) == ["late", "long", "longer"]


def test_failing_worker_that_recovers_loses_no_search() -> None:
    async def scenario() -> tuple[list[SearchResult], list[SearchResult], int]:
        backend = LinearBackend()
        scheduler = SearchScheduler(backend, "linear")
        items = [explain(20, target) for target in range(4)]
        undisturbed = await scheduler.run(items, IMAGE)
        backend.failures_left = 3
        survivors = await asyncio.gather(*(one(scheduler, item) for item in items))
        await scheduler.close()
        return undisturbed, survivors, backend.failures_left

    undisturbed, survivors, failures_left = run(scenario())
    assert failures_left == 0
    for expected, got in zip(undisturbed, survivors, strict=True):
        np.testing.assert_array_equal(got.image, expected.image)


def test_worker_killed_mid_search_costs_one_repeated_chunk() -> None:
    async def scenario() -> list[int]:
        backend = LinearBackend(call_seconds=0.01)
        scheduler = SearchScheduler(backend, "linear", chunk_seconds=1e-9)
        task = asyncio.create_task(one(scheduler, explain(9)))
        while len(backend.search_calls) < 2:
            await asyncio.sleep(0.001)
        backend.failures_left = 1
        await task
        await scheduler.close()
        return [call[0].step for call in backend.search_calls]

    steps = run(scenario())
    assert steps == sorted(set(steps))  # the answered chunks go on where the last one ended


def test_worker_that_stays_away_is_model_not_ready() -> None:
    async def scenario() -> ServiceError:
        backend = LinearBackend()
        backend.failures_left = 10**6
        scheduler = SearchScheduler(backend, "linear", worker_retry_seconds=0.15)
        with pytest.raises(ServiceError) as caught:
            await one(scheduler, explain(5))
        backend.failures_left = 0
        await one(scheduler, explain(5))  # and the next search is served
        await scheduler.close()
        return caught.value

    error = run(scenario())
    assert error.code is ErrorCode.MODEL_NOT_READY
    assert error.retry_seconds


def test_refused_item_harms_no_neighbour() -> None:
    async def scenario() -> list[Any]:
        backend = LinearBackend()
        scheduler = SearchScheduler(backend, "linear")
        seeds = (0, POISON_SEED, 1)
        outcomes = await asyncio.gather(
            *(one(scheduler, explain(12, seed=seed)) for seed in seeds), return_exceptions=True
        )
        await scheduler.close()
        assert len(backend.search_calls[0]) == 3
        return outcomes

    first, refused, last = run(scenario())
    assert isinstance(refused, ServiceError)
    assert refused.code is ErrorCode.INVALID_INPUT
    assert refused.violations[0].field == "seed"
    assert first.end.steps == last.end.steps == 12


def test_cancelled_search_gets_no_next_chunk() -> None:
    async def scenario() -> tuple[int, list[list[SearchItem]]]:
        backend = LinearBackend(call_seconds=0.01)
        scheduler = SearchScheduler(backend, "linear", chunk_seconds=0.01)
        cancelled = asyncio.create_task(one(scheduler, explain(2000, target=0)))
        kept = asyncio.create_task(one(scheduler, explain(40, target=1)))
        while not backend.search_calls:
            await asyncio.sleep(0.001)
        cancelled.cancel()
        answered = len(backend.search_calls)
        await kept
        await asyncio.sleep(0.05)
        await scheduler.close()
        return answered, backend.search_calls

    answered, calls = run(scenario())
    # One call may be on its way at the moment of cancelling; none after it.
    assert all(item.target == 1 for call in calls[answered + 1 :] for item in call)
    assert len(calls) > answered + 1


def test_full_queue_is_overloaded_with_a_time_to_retry() -> None:
    async def scenario() -> ServiceError:
        backend = LinearBackend(call_seconds=0.01)
        scheduler = SearchScheduler(backend, "linear", max_batch=2, max_waiting=3)
        running = asyncio.create_task(scheduler.run([explain(50)] * 5, IMAGE))
        await asyncio.sleep(0)
        with pytest.raises(ServiceError) as caught:
            await one(scheduler, explain(5))
        await running
        await one(scheduler, explain(5))
        await scheduler.close()
        return caught.value

    error = run(scenario())
    assert error.code is ErrorCode.OVERLOADED
    assert error.retry_seconds >= 1.0


class NonsenseBackend:
    """Answers what the contract does not know."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers

    async def call(self, model: str, role: str, items: list[bytes]) -> list[bytes]:
        return self._answers


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [b""],
        [b"Prediction failed"],
        [wire.pack({"kind": "predict_answer"})],
        [wire.pack({"kind": "search_progress", "step": 0, "best_rmse": 0, "best_confidence": 0})],
    ],
    ids=["none", "empty", "text", "wrong kind", "stuck"],
)
def test_nonsense_of_a_worker_is_an_internal_error_at_once(answers: list[bytes]) -> None:
    async def scenario() -> None:
        scheduler = SearchScheduler(NonsenseBackend(answers), "linear")
        with pytest.raises(ServiceError) as caught:
            await one(scheduler, explain(5))
        assert caught.value.code is ErrorCode.INTERNAL
        await scheduler.close()

    run(scenario())


def test_fault_of_the_whole_call_is_not_retried() -> None:
    class Faulty(LinearBackend):
        async def call(self, model: str, role: str, items: list[bytes]) -> list[bytes]:
            self.search_calls.append([])
            raise WorkerFault("not a list")

    async def scenario() -> int:
        backend = Faulty()
        scheduler = SearchScheduler(backend, "linear")
        with pytest.raises(ServiceError, match="not a list"):
            await one(scheduler, explain(5))
        await scheduler.close()
        return len(backend.search_calls)

    assert run(scenario()) == 1


def test_chunks_grow_and_shrink_to_their_time() -> None:
    clock = ChunkClock(0.075)
    assert clock.steps(1) == FIRST_CHUNK_STEPS
    clock.record(1, 5, 0.050)  # 10 ms a step
    assert clock.steps(1) == 7
    clock.record(32, 1, 0.3)
    assert clock.steps(32) == 1
    assert clock.steps(30) == 1  # nearest size measured
    for _ in range(30):
        clock.record(1, 7, 0.0007)
    assert clock.steps(1) == MAX_CHUNK_STEPS


def test_closing_fails_what_still_runs() -> None:
    async def scenario() -> ServiceError:
        scheduler = SearchScheduler(LinearBackend(call_seconds=0.01), "linear", max_batch=1)
        running = asyncio.gather(
            *(one(scheduler, explain(2000)) for _ in range(2)), return_exceptions=True
        )
        await asyncio.sleep(0.05)
        await scheduler.close()
        first, second = await running
        assert first.code is second.code
        return first

    assert run(scenario()).code is ErrorCode.MODEL_NOT_READY


def test_batch_of_large_pictures_fits_into_one_message() -> None:
    large = InputSpec(channels=3, height=224, width=224, lower=0.0, upper=1.0)
    count = _searches_a_call(large)
    assert 16 <= count < 32
    assert count * 4 * (4 * 3 * 224 * 224) < MAX_CALL_BYTES
