"""Continuous batching: which searches share a chunk, and what ends one."""

import asyncio
import gc
import weakref
from typing import Any

import numpy as np
import pytest

from candor.contracts import wire
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import SearchItem
from candor.gateway.workers.codec import SearchOutcome
from candor.gateway.workers.protocol import WorkerFault
from tests.gateway.linear_worker import POISON_SEED, LinearBackend
from tests.gateway.manual_clock import ManualClock
from tests.gateway.searches import IMAGE, explain, outcome_of, scheduler_of


def test_result_does_not_depend_on_the_length_of_chunks(clock: ManualClock) -> None:
    async def searched(chunk_seconds: float) -> tuple[SearchOutcome, int]:
        backend = LinearBackend(clock=clock)
        scheduler = scheduler_of(backend, clock, chunk_seconds=chunk_seconds)
        result = await outcome_of(scheduler, explain(60))
        await scheduler.close()
        return result, len(backend.search_calls)

    async def both() -> None:
        short, many_calls = await searched(1e-9)
        long, few_calls = await searched(1e9)
        assert many_calls > few_calls > 1
        np.testing.assert_array_equal(short.image, long.image)
        np.testing.assert_array_equal(short.logits_after, long.logits_after)
        assert short.end == long.end

    clock.run(both())


def test_eight_searches_share_batches_of_equal_chunks(clock: ManualClock) -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(call_seconds=0.005, clock=clock)
        scheduler = scheduler_of(backend, clock)
        await asyncio.gather(*(outcome_of(scheduler, explain(40)) for _ in range(8)))
        await scheduler.close()
        return backend.search_calls

    calls = clock.run(scenario())
    assert max(len(call) for call in calls) == 8
    assert sum(len(call) for call in calls) < 8 * 40 / 5
    assert all(len({item.chunk_steps for item in call}) == 1 for call in calls)


def test_batch_never_exceeds_its_limit_and_searches_end_in_order(clock: ManualClock) -> None:
    async def scenario() -> tuple[list[int], list[int]]:
        backend = LinearBackend(clock=clock)
        scheduler = scheduler_of(backend, clock, max_batch=3, chunk_seconds=1e-9)
        order: list[int] = []

        async def numbered(number: int) -> None:
            await outcome_of(scheduler, explain(10))
            order.append(number)

        await asyncio.gather(*(numbered(number) for number in range(8)))
        await scheduler.close()
        return [len(call) for call in backend.search_calls], order

    sizes, order = clock.run(scenario())
    assert max(sizes) == 3
    assert order == sorted(order)


def test_late_short_search_finishes_before_long_ones(clock: ManualClock) -> None:
    async def scenario() -> list[str]:
        backend = LinearBackend(call_seconds=0.005, clock=clock)
        scheduler = scheduler_of(backend, clock, chunk_seconds=0.01)
        order: list[str] = []

        async def named(name: str, steps: int) -> None:
            await outcome_of(scheduler, explain(steps))
            order.append(name)

        async def late() -> None:
            await clock.advance(0.02)
            await named("late", 5)

        await asyncio.gather(named("long", 60), named("longer", 90), late())
        await scheduler.close()
        return order

    assert clock.run(scenario()) == ["late", "long", "longer"]


def test_several_workers_compute_at_once_and_change_no_result(clock: ManualClock) -> None:
    async def scenario(worker_count: int) -> tuple[list[SearchOutcome], int, int]:
        backend = LinearBackend(call_seconds=0.005, clock=clock)
        scheduler = scheduler_of(backend, clock, worker_count=worker_count)
        items = [explain(90, target) for target in range(5)] + [explain(70, 1)]
        results = await asyncio.gather(*(outcome_of(scheduler, item) for item in items))
        await scheduler.close()
        return results, backend.most_in_flight, max(len(call) for call in backend.search_calls)

    alone, one_call, whole_batch = clock.run(scenario(1))
    spread, three_calls, third_of_it = clock.run(scenario(3))
    assert (one_call, whole_batch) == (1, 6)
    assert (three_calls, third_of_it) == (3, 2)
    for expected, got in zip(alone, spread, strict=True):
        np.testing.assert_array_equal(got.image, expected.image)


def test_rejected_item_harms_no_other_of_its_batch(clock: ManualClock) -> None:
    async def scenario() -> list[Any]:
        backend = LinearBackend(clock=clock)
        scheduler = scheduler_of(backend, clock)
        seeds = (0, POISON_SEED, 1)
        outcomes = await asyncio.gather(
            *(outcome_of(scheduler, explain(12, seed=seed)) for seed in seeds),
            return_exceptions=True,
        )
        await scheduler.close()
        assert len(backend.search_calls[0]) == 3
        return outcomes

    first, rejected, last = clock.run(scenario())
    assert isinstance(rejected, ServiceError)
    assert rejected.code is ErrorCode.INVALID_INPUT
    assert rejected.violations[0].field == "seed"
    assert first.end.steps == last.end.steps == 12


def test_cancelled_search_gets_no_next_chunk(clock: ManualClock) -> None:
    async def scenario() -> tuple[int, list[list[SearchItem]]]:
        backend = LinearBackend(call_seconds=0.01, clock=clock)
        scheduler = scheduler_of(backend, clock, chunk_seconds=0.01)
        cancelled = asyncio.create_task(outcome_of(scheduler, explain(2000, target=0)))
        kept = asyncio.create_task(outcome_of(scheduler, explain(40, target=1)))
        await clock.until(lambda: bool(backend.search_calls))
        cancelled.cancel()
        answered = len(backend.search_calls)
        await kept
        await clock.advance(0.05)
        await scheduler.close()
        return answered, backend.search_calls

    answered, calls = clock.run(scenario())
    # One call may be on its way at the moment of cancelling; none after it.
    assert all(item.target == 1 for call in calls[answered + 1 :] for item in call)
    assert len(calls) > answered + 1


def test_best_so_far_is_available_while_the_search_goes_on(clock: ManualClock) -> None:
    async def scenario() -> tuple[SearchOutcome, SearchOutcome, list[int]]:
        backend = LinearBackend(call_seconds=0.005, clock=clock)
        scheduler = scheduler_of(backend, clock, chunk_seconds=0.05)
        search = scheduler.submit(explain(1000), {"image": IMAGE})
        await clock.until(lambda: search.item.step > 0)
        partial = await scheduler.end_now(search)
        whole = await search.future
        late = await scheduler.end_now(search)
        assert late is whole
        await scheduler.close()
        return partial, whole, [len(call) for call in backend.search_calls]

    partial, whole, sizes = clock.run(scenario())
    assert partial.is_partial
    assert 0 < partial.end.steps < 1000
    assert not whole.is_partial
    assert whole.end.steps == 1000
    assert set(sizes) == {1}


def test_cancelled_search_makes_room_only_when_its_chunk_is_back(clock: ManualClock) -> None:
    async def scenario() -> None:
        backend = LinearBackend(call_seconds=0.05, clock=clock)
        scheduler = scheduler_of(backend, clock, max_batch=1, max_waiting=2)
        tasks = [asyncio.create_task(outcome_of(scheduler, explain(2000))) for _ in range(3)]
        await clock.until(lambda: bool(backend.in_flight))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert scheduler.search_count == 1  # the waiting ones have gone, the one in flight has not
        await clock.until(lambda: not backend.in_flight)
        await clock.advance(0.01)
        assert scheduler.search_count == 0
        await scheduler.close()

    clock.run(scenario())


def test_two_hundred_cancelled_searches_leave_nothing(clock: ManualClock) -> None:
    async def scenario() -> None:
        backend = LinearBackend(step_seconds=0.001, clock=clock)
        scheduler = scheduler_of(backend, clock)
        tasks = [
            asyncio.create_task(outcome_of(scheduler, explain(2000), f"tenant {number}"))
            for number in range(200)
        ]
        await clock.until(lambda: len(backend.search_calls) >= 10)
        arrays = weakref.WeakSet(s for s in scheduler.queue)
        assert len(arrays) == 200
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await clock.advance(1.0)
        answered = len(backend.search_calls)
        await clock.advance(1.0)
        assert len(backend.search_calls) == answered
        assert scheduler.search_count == 0
        assert scheduler.queue.tenant_count == 0
        del task, tasks
        gc.collect()
        assert len(arrays) == 0
        assert len(asyncio.all_tasks()) == 2  # this one and the scheduler's loop
        await scheduler.close()

    clock.run(scenario())


def test_closing_fails_what_still_runs(clock: ManualClock) -> None:
    async def scenario() -> ServiceError:
        scheduler = scheduler_of(LinearBackend(call_seconds=0.01, clock=clock), clock, max_batch=1)
        running = asyncio.gather(
            *(outcome_of(scheduler, explain(2000)) for _ in range(2)), return_exceptions=True
        )
        await clock.advance(0.05)
        await scheduler.close()
        first, second = await running
        assert first.code is second.code
        return first

    assert clock.run(scenario()).code is ErrorCode.MODEL_NOT_READY


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
def test_nonsense_of_a_worker_is_an_internal_error_at_once(
    clock: ManualClock, answers: list[bytes]
) -> None:
    async def scenario() -> None:
        scheduler = scheduler_of(NonsenseBackend(answers), clock)
        with pytest.raises(ServiceError) as caught:
            await outcome_of(scheduler, explain(5))
        assert caught.value.code is ErrorCode.INTERNAL
        await scheduler.close()

    clock.run(scenario())


def test_fault_of_the_whole_call_is_not_retried(clock: ManualClock) -> None:
    class Faulty(LinearBackend):
        async def call(self, model: str, role: str, items: list[bytes]) -> list[bytes]:
            self.search_calls.append([])
            raise WorkerFault("not a list")

    async def scenario() -> int:
        backend = Faulty()
        scheduler = scheduler_of(backend, clock)
        with pytest.raises(ServiceError, match="not a list"):
            await outcome_of(scheduler, explain(5))
        await scheduler.close()
        return len(backend.search_calls)

    assert clock.run(scenario()) == 1
