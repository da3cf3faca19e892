"""Continuous batching of searches."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
import pytest

from candor.contracts import wire
from candor.contracts.api import InputSpec, Method
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import CompareItem, SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.scheduling.chunk_sizer import MAX_CHUNK_STEPS, ChunkClock
from candor.gateway.scheduling.dispatcher import SearchScheduler
from candor.gateway.scheduling.jobs import Search, SearchResult, ServiceClass
from candor.gateway.scheduling.policy import POISONED_DEATHS, SearchQueue
from candor.gateway.service.models import searches_a_call
from candor.gateway.workers.protocol import MAX_CALL_BYTES, WorkerFault
from candor.terms import Goal
from tests.gateway.linear_worker import DEADLY_SEED, POISON_SEED, SHAPE, LinearBackend

T = TypeVar("T")
VALUE_COUNT = 3 * 32 * 32  # so that the first chunk is 4 steps
IMAGE = np.random.default_rng(5).random(SHAPE, dtype=np.float32)


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(work, 20)

    return asyncio.run(bounded())


def explain(steps: int, target: int = 1, seed: int = 0) -> SearchItem:
    return SearchItem(
        goal=Goal.EXPLAIN_FOR, target=target, rho=0.04, step_count=steps, seed=seed, chunk_steps=1
    )


def scheduler_of(backend: Any, **options: Any) -> SearchScheduler:
    return SearchScheduler(backend, "linear", value_count=VALUE_COUNT, **options)


async def one(
    scheduler: SearchScheduler,
    item: SearchItem,
    tenant: str = "",
    priority: Priority = Priority.EXPLAIN,
) -> SearchResult:
    scheduler.check_room(1)
    search = scheduler.submit(item, IMAGE, tenant=tenant, priority=priority)
    try:
        return await search.future
    finally:
        search.future.cancel()


def test_result_does_not_depend_on_the_length_of_chunks() -> None:
    async def searched(chunk_seconds: float) -> tuple[SearchResult, int]:
        backend = LinearBackend()
        scheduler = scheduler_of(backend, chunk_seconds=chunk_seconds)
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
        scheduler = scheduler_of(backend)
        await asyncio.gather(*(one(scheduler, explain(40)) for _ in range(8)))
        await scheduler.close()
        return backend.search_calls

    calls = run(scenario())
    assert max(len(call) for call in calls) == 8
    assert sum(len(call) for call in calls) < 8 * 40 / 5
    assert all(len({item.chunk_steps for item in call}) == 1 for call in calls)


def test_batch_never_exceeds_its_limit_and_everyone_is_served_in_order() -> None:
    async def scenario() -> tuple[list[int], list[int]]:
        backend = LinearBackend()
        scheduler = scheduler_of(backend, max_batch=3, chunk_seconds=1e-9)
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
        scheduler = scheduler_of(backend, chunk_seconds=0.01)
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
        scheduler = scheduler_of(backend)
        items = [explain(20, target) for target in range(4)]
        undisturbed = await asyncio.gather(*(one(scheduler, item) for item in items))
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
        scheduler = scheduler_of(backend, chunk_seconds=1e-9)
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
        scheduler = scheduler_of(backend, worker_retry_seconds=0.15)
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
        scheduler = scheduler_of(backend)
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
        scheduler = scheduler_of(backend, chunk_seconds=0.01)
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
        scheduler = scheduler_of(backend, max_batch=2, max_waiting=3)
        running = asyncio.gather(*(one(scheduler, explain(50)) for _ in range(5)))
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


def steps_of(calls: list[list[SearchItem]], target: int) -> int:
    """Image-steps asked for with this target, which stands for who asked."""
    return sum(item.chunk_steps for call in calls for item in call if item.target == target)


def test_several_workers_fly_at_once_and_change_no_result() -> None:
    async def scenario(worker_count: int) -> tuple[list[SearchResult], int, int]:
        backend = LinearBackend(call_seconds=0.005)
        scheduler = scheduler_of(backend, worker_count=worker_count)
        items = [explain(90, target) for target in range(5)] + [explain(70, 1)]
        results = await asyncio.gather(*(one(scheduler, item) for item in items))
        await scheduler.close()
        return results, backend.most_flying, max(len(call) for call in backend.search_calls)

    alone, one_flying, whole_batch = run(scenario(1))
    spread, three_flying, third_of_it = run(scenario(3))
    assert (one_flying, whole_batch) == (1, 6)
    assert (three_flying, third_of_it) == (3, 2)
    for expected, got in zip(alone, spread, strict=True):
        np.testing.assert_array_equal(got.image, expected.image)


def test_search_that_kills_its_worker_takes_no_other_with_it() -> None:
    async def scenario() -> tuple[list[Any], LinearBackend]:
        backend = LinearBackend()
        scheduler = scheduler_of(backend)
        seeds = (1, 2, DEADLY_SEED, 3)
        outcomes = await asyncio.gather(
            *(one(scheduler, explain(60, seed=seed)) for seed in seeds), return_exceptions=True
        )
        assert scheduler.search_count == 0
        await scheduler.close()
        return outcomes, backend

    (first, second, poisoned, third), backend = run(scenario())
    assert first.end.steps == second.end.steps == third.end.steps == 60
    assert isinstance(poisoned, ServiceError)
    assert poisoned.code is ErrorCode.SEARCH_FAILED
    assert poisoned.retry_seconds is None
    assert backend.death_count == POISONED_DEATHS


def test_tenants_share_image_steps_however_many_searches_they_bring() -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(call_seconds=0.002)
        scheduler = scheduler_of(backend, max_batch=4, chunk_seconds=0.002)
        greedy = [asyncio.create_task(one(scheduler, explain(2000, 0), "a")) for _ in range(20)]
        while len(backend.search_calls) < 10:
            await asyncio.sleep(0.001)
        since = len(backend.search_calls)
        modest = [asyncio.create_task(one(scheduler, explain(2000, 1), "b")) for _ in range(4)]
        while len(backend.search_calls) < since + 40:
            await asyncio.sleep(0.001)
        for task in [*greedy, *modest]:
            task.cancel()
        await scheduler.close()
        return backend.search_calls[since : since + 40]

    calls = run(scenario())
    greedy, modest = steps_of(calls, 0), steps_of(calls, 1)
    assert 0.5 < modest / greedy < 2.0  # by the number of searches it would be 0.2


def test_reports_step_behind_explanations_and_yet_go_on() -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(call_seconds=0.002)
        scheduler = scheduler_of(backend, max_batch=4, chunk_seconds=0.002)
        tasks = [
            asyncio.create_task(one(scheduler, explain(2000, priority), "", Priority(priority)))
            for priority in Priority
            for _ in range(8)
        ]
        while len(backend.search_calls) < 130:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        await scheduler.close()
        return backend.search_calls[:130]

    calls = run(scenario())
    explains, probes, reports = (steps_of(calls, priority) for priority in Priority)
    assert explains > 1.5 * probes
    assert probes > 2 * reports
    assert explains < 20 * reports  # 8 to 1 by weight


def test_short_search_shares_no_batch_with_long_ones_that_go_on_all_the_same() -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(call_seconds=0.002)
        scheduler = scheduler_of(backend, chunk_seconds=0.02)
        long = [asyncio.create_task(one(scheduler, explain(2000, 0))) for _ in range(8)]
        while len(backend.search_calls) < 2:
            await asyncio.sleep(0.001)
        since = len(backend.search_calls)
        for _ in range(60):
            await one(scheduler, explain(20, 1))
        for task in long:
            task.cancel()
        await scheduler.close()
        return backend.search_calls[since:]

    calls = run(scenario())
    assert all(len({item.target for item in call}) == 1 for call in calls)
    lone = [call for call in calls if call[0].target == 1]
    assert sum(call[0].step == 0 for call in lone) == 60
    assert len(calls) > len(lone)  # a stream of short ones starves nobody


def test_short_search_takes_its_few_chunks_in_a_row() -> None:
    async def scenario() -> list[bool]:
        queue, seconds = SearchQueue(), 0.2
        for number, is_long in enumerate((True, False)):
            service_class = ServiceClass(Priority.EXPLAIN, is_long=is_long)
            future = asyncio.get_running_loop().create_future()
            queue.add(
                Search(
                    item=explain(100),
                    arrays={},
                    future=future,
                    service_class=service_class,
                    tenant="",
                    number=number,
                )
            )
        turns = []
        for _ in range(6):
            (search,) = queue.next_batch(8, seconds)
            queue.charge(search, seconds)
            turns.append(search.service_class.is_long)
        return turns

    turns = run(scenario())
    assert turns[:2] == [False] * 2
    assert turns[2]


def test_each_search_has_its_first_chunk_before_any_goes_on() -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(call_seconds=0.002)
        scheduler = scheduler_of(backend, max_batch=2)
        await asyncio.gather(*(one(scheduler, explain(200, target)) for target in range(5)))
        await scheduler.close()
        return backend.search_calls

    calls = run(scenario())
    assert [[item.target for item in call] for call in calls[:3]] == [[0, 1], [2, 3], [4, 0]]
    assert [item.target for item in calls[3]] == [0, 1]  # and then first come, first served


def test_long_searches_of_a_lesser_class_ride_along_to_double_the_batch() -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(call_seconds=0.002)
        scheduler = scheduler_of(backend)
        work = [one(scheduler, explain(200, 0)) for _ in range(2)]
        work += [one(scheduler, explain(200, 1), "", Priority.REPORT) for _ in range(6)]
        await asyncio.gather(*work)
        await scheduler.close()
        return backend.search_calls

    first = run(scenario())[0]
    assert sorted(item.target for item in first) == [0, 0, 1, 1]


def test_best_so_far_can_be_had_while_the_search_goes_on() -> None:
    async def scenario() -> tuple[SearchResult, SearchResult, list[int]]:
        backend = LinearBackend(call_seconds=0.005)
        scheduler = scheduler_of(backend, chunk_seconds=0.05)
        search = scheduler.submit(explain(1000), IMAGE)
        while search.item.step == 0:
            await asyncio.sleep(0.001)
        partial = await scheduler.end_now(search)
        whole = await search.future
        late = await scheduler.end_now(search)
        assert late is whole
        await scheduler.close()
        return partial, whole, [len(call) for call in backend.search_calls]

    partial, whole, sizes = run(scenario())
    assert partial.is_partial
    assert 0 < partial.end.steps < 1000
    assert not whole.is_partial
    assert whole.end.steps == 1000
    assert set(sizes) == {1}


def test_place_of_a_cancelled_search_is_free_only_when_its_chunk_is_back() -> None:
    async def scenario() -> None:
        backend = LinearBackend(call_seconds=0.05)
        scheduler = scheduler_of(backend, max_batch=1, max_waiting=2)
        tasks = [asyncio.create_task(one(scheduler, explain(2000))) for _ in range(3)]
        while not backend.flying:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert scheduler.search_count == 1  # the waiting ones have gone, the flying one has not
        while backend.flying:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert scheduler.search_count == 0
        await scheduler.close()

    run(scenario())


def test_two_hundred_cancelled_searches_leave_nothing() -> None:
    async def scenario() -> None:
        backend = LinearBackend(call_seconds=0.002)
        scheduler = scheduler_of(backend)
        tasks = [
            asyncio.create_task(one(scheduler, explain(2000), f"tenant {number}"))
            for number in range(200)
        ]
        while len(backend.search_calls) < 10:
            await asyncio.sleep(0.001)
        arrays = weakref.WeakSet(s for s in scheduler._queue)
        assert len(arrays) == 200
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)
        answered = len(backend.search_calls)
        await asyncio.sleep(0.05)
        assert len(backend.search_calls) == answered
        assert scheduler.search_count == 0
        assert len(scheduler._queue._tenants) == 0
        del task, tasks
        gc.collect()
        assert len(arrays) == 0
        assert len(asyncio.all_tasks()) == 3  # this one, its time limit and the scheduler's loop
        await scheduler.close()

    run(scenario())


def test_estimates_grow_with_what_is_ahead() -> None:
    async def scenario() -> None:
        scheduler = scheduler_of(LinearBackend(call_seconds=0.01), max_batch=2)
        item = explain(400)
        service_class = scheduler.service_class(Priority.EXPLAIN, item)
        assert (
            scheduler.whole_seconds([item], "a", service_class) < 1.0
        )  # nothing measured, no refusal
        await one(scheduler, explain(60))
        idle = scheduler.first_result_seconds("a", service_class)
        assert scheduler.whole_seconds([item], "a", service_class) > 2 * idle
        tasks = [asyncio.create_task(one(scheduler, item, "a")) for _ in range(20)]
        await asyncio.sleep(0)
        busy = scheduler.first_result_seconds("a", service_class)
        assert busy > 3 * idle
        assert (
            scheduler.first_result_seconds("b", service_class) < busy / 3
        )  # does not wait for those
        for task in tasks:
            task.cancel()
        await scheduler.close()

    run(scenario())


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
        scheduler = scheduler_of(NonsenseBackend(answers))
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
        scheduler = scheduler_of(backend)
        with pytest.raises(ServiceError, match="not a list"):
            await one(scheduler, explain(5))
        await scheduler.close()
        return len(backend.search_calls)

    assert run(scenario()) == 1


def test_chunks_grow_and_shrink_to_their_time() -> None:
    def steps(clock: ChunkClock, batch_size: int) -> int:
        return clock.begin("", batch_size, has_newcomer=True)

    clock = ChunkClock(0.075, 3 * 32 * 32)
    assert steps(clock, 1) == 4
    assert steps(ChunkClock(0.075, 3 * 224 * 224), 1) == 1
    clock.record(1, 5, 0.050)  # 10 ms a step
    assert steps(clock, 1) == 7
    clock.record(32, 1, 0.3)
    assert steps(clock, 32) == 1
    assert steps(clock, 30) == 1  # its share of the nearest size measured
    clock.record(16, 1, 0.05)
    assert clock.step_seconds(32) == 0.1  # no more than two halves
    for _ in range(30):
        clock.record(1, 7, 0.0007)
    assert steps(clock, 1) == MAX_CHUNK_STEPS


def test_chunks_grow_while_nobody_comes_and_a_newcomer_gets_a_short_one() -> None:
    clock = ChunkClock(0.1, 3072)
    clock.record(8, 10, 0.2)
    comers = [True, False, False, False, True, False]
    assert [clock.begin("long", 8, has_newcomer=has) for has in comers] == [5, 10, 20, 20, 5, 10]
    assert clock.begin("short", 8, has_newcomer=True) == 5
    assert clock.begin("short", 8, has_newcomer=False) == 10
    assert clock.begin("long", 8, has_newcomer=False) == 5  # whoever comes next waits no longer


def test_batch_shrinks_until_its_chunk_is_worth_the_travel_of_its_states() -> None:
    slow, quick = ChunkClock(0.1, 3072), ChunkClock(0.1, 3072)
    for size in (8, 16, 32):
        slow.record(size, 1, 0.02 * size)
        quick.record(size, 10, 1.3)
    assert slow.batch_limit(32) == 8
    assert quick.batch_limit(32) == 32
    assert slow.batch_limit(4) == 4


def test_worst_lengths_follow_peaks_at_once_and_forget_them_slowly() -> None:
    clock = ChunkClock(0.1, 3072)
    assert clock.ending_length() > 0
    clock.record(8, 4, 0.5)
    clock.record_ending(0.3)
    assert (clock.chunk_length(8), clock.ending_length()) == (0.5, 0.3)
    clock.record(8, 4, 0.1)
    assert 0.4 < clock.chunk_length(8) < 0.5
    for _ in range(60):
        clock.record(8, 4, 0.1)
        clock.record_ending(0.02)
    assert clock.chunk_length(8) < 0.11
    assert clock.ending_length() < 0.03


def test_closing_fails_what_still_runs() -> None:
    async def scenario() -> ServiceError:
        scheduler = scheduler_of(LinearBackend(call_seconds=0.01), max_batch=1)
        running = asyncio.gather(
            *(one(scheduler, explain(2000)) for _ in range(2)), return_exceptions=True
        )
        await asyncio.sleep(0.05)
        await scheduler.close()
        first, second = await running
        assert first.code is second.code
        return first

    assert run(scenario()).code is ErrorCode.MODEL_NOT_READY


def test_batch_of_large_images_fits_into_one_message() -> None:
    large = InputSpec(channels=3, height=224, width=224, lower=0.0, upper=1.0)
    count = searches_a_call(large)
    assert 16 <= count < 32
    assert count * 4 * (4 * 3 * 224 * 224) < MAX_CALL_BYTES


# --- errands -----------------------------------------------------------------------------------


def saliency_job_of(seed: int = 0) -> CompareItem:
    return CompareItem(method=Method.GRADIENT, target=1, seed=seed)


def test_an_errand_flies_alone_and_before_the_next_chunk_of_what_runs() -> None:
    async def scenario() -> None:
        backend = LinearBackend(call_seconds=0.002)
        scheduler = scheduler_of(backend, chunk_seconds=1e-9)
        searches = [asyncio.create_task(one(scheduler, explain(60))) for _ in range(3)]
        while len(backend.search_calls) < 5:
            await asyncio.sleep(0.002)
        arrived = len(backend.search_calls)
        compared = await scheduler.run(saliency_job_of(), {"image": IMAGE}).future
        assert compared.saliency.shape == SHAPE[1:]
        kinds = [{item.kind for item in call} for call in backend.search_calls]
        assert kinds.index({"compare"}) <= arrived + 1
        assert {"compare", "search"} not in kinds
        await asyncio.gather(*searches)
        await scheduler.close()

    run(scenario())


def test_an_errand_repeats_its_call_when_the_worker_dies_but_not_for_ever() -> None:
    async def scenario() -> None:
        backend = LinearBackend()
        backend.failures_left = 1
        scheduler = scheduler_of(backend)
        await scheduler.run(saliency_job_of(), {"image": IMAGE}).future
        with pytest.raises(ServiceError, match="its worker died") as caught:
            await scheduler.run(saliency_job_of(DEADLY_SEED), {"image": IMAGE}).future
        assert caught.value.code is ErrorCode.SEARCH_FAILED
        with pytest.raises(ServiceError, match="seed: got 666"):
            await scheduler.run(saliency_job_of(POISON_SEED), {"image": IMAGE}).future
        assert scheduler.search_count == 0
        await scheduler.close()

    run(scenario())


def test_a_cancelled_errand_frees_its_place_with_its_call() -> None:
    async def scenario() -> None:
        backend = LinearBackend(call_seconds=0.05)
        scheduler = scheduler_of(backend)
        saliency_job = scheduler.run(saliency_job_of(), {"image": IMAGE})
        while not saliency_job.is_in_flight:
            await asyncio.sleep(0.001)
        saliency_job.future.cancel()
        await asyncio.sleep(0)
        assert scheduler.search_count == 1
        while saliency_job.is_in_flight:
            await asyncio.sleep(0.005)
        assert scheduler.search_count == 0
        await scheduler.close()

    run(scenario())
