"""Workers that die or stay away, and searches that kill them."""

import asyncio
from typing import Any

import numpy as np
import pytest

from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.scheduling.outage import POISONED_DEATHS, Outage
from candor.gateway.workers.codec import SearchOutcome
from tests.gateway.linear_worker import DEADLY_SEED, LinearBackend
from tests.gateway.manual_clock import ManualClock
from tests.gateway.searches import explain, outcome_of, scheduler_of


def test_failing_worker_that_recovers_loses_no_search(clock: ManualClock) -> None:
    async def scenario() -> tuple[list[SearchOutcome], list[SearchOutcome], int]:
        backend = LinearBackend(clock=clock)
        scheduler = scheduler_of(backend, clock)
        items = [explain(20, target) for target in range(4)]
        undisturbed = await asyncio.gather(*(outcome_of(scheduler, item) for item in items))
        backend.failures_left = 3
        survivors = await asyncio.gather(*(outcome_of(scheduler, item) for item in items))
        await scheduler.close()
        return undisturbed, survivors, backend.failures_left

    undisturbed, survivors, failures_left = clock.run(scenario())
    assert failures_left == 0
    for expected, got in zip(undisturbed, survivors, strict=True):
        np.testing.assert_array_equal(got.image, expected.image)


def test_worker_killed_mid_search_costs_one_repeated_chunk(clock: ManualClock) -> None:
    async def scenario() -> list[int]:
        backend = LinearBackend(call_seconds=0.01, clock=clock)
        scheduler = scheduler_of(backend, clock, chunk_seconds=1e-9)
        task = asyncio.create_task(outcome_of(scheduler, explain(9)))
        await clock.until(lambda: len(backend.search_calls) >= 2)
        backend.failures_left = 1
        await task
        await scheduler.close()
        return [call[0].step for call in backend.search_calls]

    steps = clock.run(scenario())
    assert steps == sorted(set(steps))  # the answered chunks go on where the last one ended


def test_worker_that_stays_away_is_model_not_ready(clock: ManualClock) -> None:
    async def scenario() -> ServiceError:
        backend = LinearBackend(clock=clock)
        backend.failures_left = 10**6
        scheduler = scheduler_of(backend, clock, worker_retry_seconds=0.15)
        with pytest.raises(ServiceError) as caught:
            await outcome_of(scheduler, explain(5))
        backend.failures_left = 0
        await outcome_of(scheduler, explain(5))  # and the next search is served
        await scheduler.close()
        return caught.value

    error = clock.run(scenario())
    assert error.code is ErrorCode.MODEL_NOT_READY
    assert error.retry_seconds


def test_poisoned_search_fails_and_no_other_with_it(clock: ManualClock) -> None:
    async def scenario() -> tuple[list[Any], LinearBackend]:
        backend = LinearBackend(clock=clock)
        scheduler = scheduler_of(backend, clock)
        seeds = (1, 2, DEADLY_SEED, 3)
        outcomes = await asyncio.gather(
            *(outcome_of(scheduler, explain(60, seed=seed)) for seed in seeds),
            return_exceptions=True,
        )
        assert scheduler.search_count == 0
        await scheduler.close()
        return outcomes, backend

    (first, second, poisoned, third), backend = clock.run(scenario())
    assert first.end.steps == second.end.steps == third.end.steps == 60
    assert isinstance(poisoned, ServiceError)
    assert poisoned.code is ErrorCode.SEARCH_FAILED
    assert poisoned.retry_seconds is None
    assert backend.death_count == POISONED_DEATHS


def test_outage_pauses_longer_and_longer_until_it_is_time_to_give_up(clock: ManualClock) -> None:
    async def scenario() -> list[float]:
        outage = Outage(clock, give_up_seconds=3.0)
        assert outage.pause_seconds == 0.0
        pauses = []
        while outage.go_on():
            pauses.append(outage.pause_seconds)
            await clock.advance(outage.pause_seconds)
        return pauses

    assert clock.run(scenario()) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])


def test_outage_that_has_ended_begins_anew(clock: ManualClock) -> None:
    outage = Outage(clock, give_up_seconds=0.15)
    assert outage.go_on()
    assert not outage.go_on()  # 0.2 seconds from now would be too late
    outage.end()
    assert outage.pause_seconds == 0.0
    assert outage.go_on()
    assert outage.pause_seconds == pytest.approx(0.1)
