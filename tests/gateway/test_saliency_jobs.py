"""Saliency jobs among the searches."""

import asyncio

import pytest

from candor.contracts.api import Method
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import CompareItem
from tests.gateway.linear_worker import DEADLY_SEED, POISON_SEED, SHAPE, LinearBackend
from tests.gateway.manual_clock import ManualClock
from tests.gateway.searches import IMAGE, explain, outcome_of, scheduler_of


def saliency_job_of(seed: int = 0) -> CompareItem:
    return CompareItem(method=Method.GRADIENT, target=1, seed=seed)


def test_saliency_job_is_sent_alone_before_the_next_chunk_of_searches(clock: ManualClock) -> None:
    async def scenario() -> None:
        backend = LinearBackend(call_seconds=0.002, clock=clock)
        scheduler = scheduler_of(backend, clock, chunk_seconds=1e-9)
        searches = [asyncio.create_task(outcome_of(scheduler, explain(60))) for _ in range(3)]
        await clock.until(lambda: len(backend.search_calls) >= 5)
        arrived = len(backend.search_calls)
        compared = await scheduler.submit_saliency(saliency_job_of(), {"image": IMAGE}).future
        assert compared.saliency.shape == SHAPE[1:]
        kinds = [{item.kind for item in call} for call in backend.search_calls]
        assert kinds.index({"compare"}) <= arrived + 1
        assert {"compare", "search"} not in kinds
        await asyncio.gather(*searches)
        await scheduler.close()

    clock.run(scenario())


def test_saliency_job_is_repeated_when_the_worker_dies_until_it_is_poisoned(
    clock: ManualClock,
) -> None:
    async def scenario() -> None:
        backend = LinearBackend(clock=clock)
        backend.failures_left = 1
        scheduler = scheduler_of(backend, clock)
        await scheduler.submit_saliency(saliency_job_of(), {"image": IMAGE}).future
        with pytest.raises(ServiceError, match="its worker died") as caught:
            await scheduler.submit_saliency(saliency_job_of(DEADLY_SEED), {"image": IMAGE}).future
        assert caught.value.code is ErrorCode.SEARCH_FAILED
        with pytest.raises(ServiceError, match="seed: expected any other, got 666"):
            await scheduler.submit_saliency(saliency_job_of(POISON_SEED), {"image": IMAGE}).future
        assert scheduler.search_count == 0
        await scheduler.close()

    clock.run(scenario())


def test_cancelled_saliency_job_makes_room_when_its_call_is_back(clock: ManualClock) -> None:
    async def scenario() -> None:
        backend = LinearBackend(call_seconds=0.05, clock=clock)
        scheduler = scheduler_of(backend, clock)
        saliency_job = scheduler.submit_saliency(saliency_job_of(), {"image": IMAGE})
        await clock.until(lambda: bool(saliency_job.is_in_flight))
        saliency_job.future.cancel()
        await clock.settle()
        assert scheduler.search_count == 1
        await clock.until(lambda: not saliency_job.is_in_flight)
        assert scheduler.search_count == 0
        await scheduler.close()

    clock.run(scenario())
