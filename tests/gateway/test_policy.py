"""Whose turn it is: service classes, tenants, short and long searches."""

import asyncio

from candor.contracts.worker import SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.scheduling.jobs import Search, ServiceClass
from candor.gateway.scheduling.policy import JobQueue
from tests.gateway.linear_worker import LinearBackend
from tests.gateway.manual_clock import ManualClock
from tests.gateway.searches import explain, outcome_of, scheduler_of


def steps_of(calls: list[list[SearchItem]], target: int) -> int:
    """Steps requested for this target, which stands for the client."""
    return sum(item.chunk_steps for call in calls for item in call if item.target == target)


def test_tenants_share_image_steps_however_many_searches_they_bring(clock: ManualClock) -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(step_seconds=0.0005, clock=clock)
        scheduler = scheduler_of(backend, clock, max_batch=4, chunk_seconds=0.002)
        greedy = [
            asyncio.create_task(outcome_of(scheduler, explain(2000, 0), "a")) for _ in range(20)
        ]
        await clock.until(lambda: len(backend.search_calls) >= 10)
        since = len(backend.search_calls)
        modest = [
            asyncio.create_task(outcome_of(scheduler, explain(2000, 1), "b")) for _ in range(4)
        ]
        await clock.until(lambda: len(backend.search_calls) >= since + 40)
        for task in [*greedy, *modest]:
            task.cancel()
        await scheduler.close()
        return backend.search_calls[since : since + 40]

    calls = clock.run(scenario())
    greedy, modest = steps_of(calls, 0), steps_of(calls, 1)
    assert 0.5 < modest / greedy < 2.0  # by the number of searches it would be 0.2


def test_reports_advance_slower_than_explanations_but_do_advance(clock: ManualClock) -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(step_seconds=0.0005, clock=clock)
        scheduler = scheduler_of(backend, clock, max_batch=4, chunk_seconds=0.002)
        tasks = [
            asyncio.create_task(
                outcome_of(scheduler, explain(2000, priority), "", Priority(priority))
            )
            for priority in Priority
            for _ in range(8)
        ]
        await clock.until(lambda: len(backend.search_calls) >= 130)
        for task in tasks:
            task.cancel()
        await scheduler.close()
        return backend.search_calls[:130]

    calls = clock.run(scenario())
    explains, probes, reports = (steps_of(calls, priority) for priority in Priority)
    assert explains > 1.5 * probes
    assert probes > 2 * reports
    assert explains < 20 * reports  # 8 to 1 by weight


def test_short_search_shares_no_batch_with_long_ones_and_starves_none(clock: ManualClock) -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(step_seconds=0.0005, clock=clock)
        scheduler = scheduler_of(backend, clock, chunk_seconds=0.02)
        long = [asyncio.create_task(outcome_of(scheduler, explain(2000, 0))) for _ in range(8)]
        await clock.until(lambda: len(backend.search_calls) >= 2)
        since = len(backend.search_calls)
        for _ in range(60):
            await outcome_of(scheduler, explain(20, 1))
        for task in long:
            task.cancel()
        await scheduler.close()
        return backend.search_calls[since:]

    calls = clock.run(scenario())
    assert all(len({item.target for item in call}) == 1 for call in calls)
    lone = [call for call in calls if call[0].target == 1]
    assert sum(call[0].step == 0 for call in lone) == 60
    assert len(calls) > len(lone)  # a stream of short ones starves no long one


def test_short_search_takes_its_few_chunks_in_a_row(clock: ManualClock) -> None:
    async def scenario() -> list[bool]:
        queue, seconds = JobQueue(), 0.2
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
                    admitted=0.0,
                )
            )
        turns = []
        for _ in range(6):
            (search,) = queue.next_batch(8, seconds)
            queue.charge(search, seconds)
            turns.append(search.service_class.is_long)
        return turns

    turns = clock.run(scenario())
    assert turns[:2] == [False] * 2
    assert turns[2]


def test_each_search_has_its_first_chunk_before_any_has_its_next(clock: ManualClock) -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(call_seconds=0.002, clock=clock)
        scheduler = scheduler_of(backend, clock, max_batch=2)
        await asyncio.gather(*(outcome_of(scheduler, explain(200, target)) for target in range(5)))
        await scheduler.close()
        return backend.search_calls

    calls = clock.run(scenario())
    assert [[item.target for item in call] for call in calls[:3]] == [[0, 1], [2, 3], [4, 0]]
    assert [item.target for item in calls[3]] == [0, 1]  # and then first come, first served


def test_long_searches_of_another_class_at_most_double_the_batch(clock: ManualClock) -> None:
    async def scenario() -> list[list[SearchItem]]:
        backend = LinearBackend(call_seconds=0.002, clock=clock)
        scheduler = scheduler_of(backend, clock)
        work = [outcome_of(scheduler, explain(200, 0)) for _ in range(2)]
        work += [outcome_of(scheduler, explain(200, 1), "", Priority.REPORT) for _ in range(6)]
        await asyncio.gather(*work)
        await scheduler.close()
        return backend.search_calls

    first = clock.run(scenario())[0]
    assert sorted(item.target for item in first) == [0, 0, 1, 1]
