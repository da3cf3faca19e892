"""Calls repeated while a worker is away."""

import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.clock import MONOTONIC, Clock
from candor.gateway.workers.protocol import WorkerUnavailable

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
RESTART_SECONDS = 3.0  # what a killed TorchServe worker needs to come back, measured


def pauses() -> Iterator[float]:
    """Seconds between attempts: 0.1 doubling to 1."""
    for attempt in itertools.count():
        # The exponent is capped, not only the product: 2.0**1024 overflows.
        yield min(_FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 10), _LONGEST_PAUSE_SECONDS)


def not_ready(model: str, reason: str) -> ServiceError:
    """MODEL_NOT_READY, with the time after which a retry may succeed."""
    message = f"model {model!r} does not answer: {reason}"
    return ServiceError(ErrorCode.MODEL_NOT_READY, message, retry_seconds=RESTART_SECONDS)


def shutting_down() -> ServiceError:
    """MODEL_NOT_READY for a request that this gateway will not answer: another one, or the next
    one at this address, will.
    """
    message = "this gateway is shutting down"
    return ServiceError(ErrorCode.MODEL_NOT_READY, message, retry_seconds=RESTART_SECONDS)


async def call_until_available(
    call: Callable[[], Awaitable[T]], model: str, seconds: float, clock: Clock = MONOTONIC
) -> T:
    """The result of ``call``, repeated for ``seconds`` while the worker is away.

    Raises:
        ServiceError: MODEL_NOT_READY when the worker stayed away.
    """
    give_up = clock.now() + seconds
    for pause in pauses():
        try:
            return await call()
        except WorkerUnavailable as err:
            if clock.now() + pause > give_up:
                raise not_ready(model, str(err)) from err
        await clock.sleep(pause)
    raise AssertionError("pauses never end")
