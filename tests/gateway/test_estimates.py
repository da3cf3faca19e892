"""Room in the queue, and the time until a result."""

import asyncio

import pytest

from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.access.request_context import Priority
from tests.gateway.linear_worker import LinearBackend
from tests.gateway.manual_clock import ManualClock
from tests.gateway.searches import explain, outcome_of, scheduler_of


def test_full_queue_is_overloaded_with_a_time_to_retry(clock: ManualClock) -> None:
    async def scenario() -> ServiceError:
        backend = LinearBackend(call_seconds=0.01, clock=clock)
        scheduler = scheduler_of(backend, clock, max_batch=2, max_waiting=3)
        running = asyncio.gather(*(outcome_of(scheduler, explain(50)) for _ in range(5)))
        await clock.settle()
        with pytest.raises(ServiceError) as caught:
            await outcome_of(scheduler, explain(5))
        await running
        await outcome_of(scheduler, explain(5))
        await scheduler.close()
        return caught.value

    error = clock.run(scenario())
    assert error.code is ErrorCode.OVERLOADED
    assert error.retry_seconds >= 1.0


def test_estimates_grow_with_what_is_ahead(clock: ManualClock) -> None:
    async def scenario() -> None:
        scheduler = scheduler_of(LinearBackend(call_seconds=0.01, clock=clock), clock, max_batch=2)
        item = explain(400)
        service_class = scheduler.service_class(Priority.EXPLAIN, item)
        first = scheduler.plan.estimates.first_result_seconds
        whole = scheduler.plan.estimates.whole_result_seconds
        assert whole([400], "a", service_class, 0) < 1.0  # nothing measured, nothing rejected
        await outcome_of(scheduler, explain(60))
        await clock.settle()
        idle = first("a", service_class, scheduler._dispatcher.call_count)
        assert whole([400], "a", service_class, 0) > 2 * idle
        tasks = [asyncio.create_task(outcome_of(scheduler, item, "a")) for _ in range(20)]
        await clock.settle()
        busy = first("a", service_class, scheduler._dispatcher.call_count)
        assert busy > 3 * idle
        assert (
            first("b", service_class, scheduler._dispatcher.call_count) < busy / 3
        )  # does not wait for those
        mine, others = (whole([400], one, service_class, 0) for one in "ab")
        assert others < mine / 5  # of what each tenant asks for, it gets the same share
        for task in tasks:
            task.cancel()
        await scheduler.close()

    clock.run(scenario())
