"""What the gateway needs of a runtime that holds the networks."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal, Protocol, TypeVar

from candor.contracts.errors import ErrorCode, ServiceError

T = TypeVar("T")
Role = Literal["predict", "search"]

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
MAX_CALL_BYTES = 64 * 1024 * 1024  # one call to a worker, or its answer
RESTART_SECONDS = 3.0  # what a killed TorchServe worker needs to come back, measured


class WorkerUnavailable(Exception):
    """No answer: the worker died, hangs or is not there yet.  The same call may work later."""


class WorkerDied(WorkerUnavailable):
    """The worker ended, or hung, while it worked on this very call, which may be why."""


class WorkerFault(Exception):
    """An answer that breaks the protocol.  Asking again would not help."""


class WorkerBackend(Protocol):
    async def call(self, model: str, role: Role, items: list[bytes]) -> list[bytes]:
        """One answer an item, in order.

        Raises:
            WorkerUnavailable: try again; `WorkerDied` where this call was under way.
            WorkerFault: do not.
        """


def pauses() -> Iterator[float]:
    """Seconds between attempts: 0.1 doubling to 1."""
    for attempt in itertools.count():
        # The exponent is capped, not only the product: 2.0**1024 overflows.
        yield min(_FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 10), _LONGEST_PAUSE_SECONDS)


def not_ready(model: str, reason: str) -> ServiceError:
    message = f"model {model!r} does not answer: {reason}"
    return ServiceError(ErrorCode.MODEL_NOT_READY, message, retry_seconds=RESTART_SECONDS)


async def patiently(call: Callable[[], Awaitable[T]], model: str, seconds: float) -> T:
    """The answer of ``call``, asked again while the worker is away, for ``seconds``.

    Raises:
        ServiceError: MODEL_NOT_READY when the worker stayed away.
    """
    give_up = time.monotonic() + seconds
    for pause in pauses():
        try:
            return await call()
        except WorkerUnavailable as err:
            if time.monotonic() + pause > give_up:
                raise not_ready(model, str(err)) from err
        await asyncio.sleep(pause)
    raise AssertionError("pauses never end")
