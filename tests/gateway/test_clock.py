"""The clock of the gateway, and the manual one of these tests."""

import asyncio
import time

import pytest

from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.clock import MONOTONIC
from candor.gateway.workers.protocol import WorkerUnavailable
from candor.gateway.workers.retry import call_until_available
from tests.gateway.manual_clock import ManualClock


def test_monotonic_clock_waits_for_a_failure_but_not_for_ever() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        failed, pending = loop.create_future(), loop.create_future()
        failed.set_exception(ValueError("expected"))
        before = time.monotonic()
        assert before <= MONOTONIC.now()
        assert await MONOTONIC.wait({failed, pending}, 60.0) == {failed}
        assert isinstance(failed.exception(), ValueError)
        assert await MONOTONIC.wait({pending}, 0.0) == set()
        await MONOTONIC.sleep(-1.0)

    asyncio.run(scenario())


def test_manual_clock_wakes_tasks_in_order_of_time(clock: ManualClock) -> None:
    woken: list[tuple[float, float]] = []

    async def sleeper(seconds: float) -> None:
        begin = clock.now()
        await clock.sleep(seconds)
        woken.append((seconds, clock.now() - begin))

    async def scenario() -> None:
        await asyncio.gather(*(sleeper(seconds) for seconds in (30.0, 10.0, 20.0)))

    clock.run(scenario())
    assert woken == [(10.0, 10.0), (20.0, 20.0), (30.0, 30.0)]


def test_manual_clock_waits_for_a_failure_or_its_time(clock: ManualClock) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        failed, pending = loop.create_future(), loop.create_future()
        begin = clock.now()
        assert await clock.wait({pending}, 60.0) == set()
        assert clock.now() == begin + 60.0
        failed.set_exception(ValueError("expected"))
        assert await clock.wait({failed, pending}, 60.0) == {failed}
        assert clock.now() == begin + 60.0
        assert isinstance(failed.exception(), ValueError)

    clock.run(scenario())


def test_call_is_repeated_until_the_worker_is_back(clock: ManualClock) -> None:
    failures_left = 3

    async def call() -> str:
        nonlocal failures_left
        failures_left -= 1
        if failures_left >= 0:
            raise WorkerUnavailable("away")
        return "answer"

    async def scenario() -> None:
        begin = clock.now()
        assert await call_until_available(call, "linear", 1.0, clock) == "answer"
        assert clock.now() - begin == pytest.approx(0.1 + 0.2 + 0.4)

    clock.run(scenario())


def test_call_to_a_worker_that_stays_away_is_model_not_ready(clock: ManualClock) -> None:
    async def call() -> str:
        raise WorkerUnavailable("away")

    async def scenario() -> None:
        begin = clock.now()
        with pytest.raises(ServiceError, match="'linear' does not answer: away") as caught:
            await call_until_available(call, "linear", 1.0, clock)
        assert caught.value.code is ErrorCode.MODEL_NOT_READY
        assert clock.now() - begin == pytest.approx(0.7)

    clock.run(scenario())
