"""A sign of life in a stream's silence: balancers close what is quiet for long."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from candor.contracts import api
from candor.contracts.errors import ServiceError

_MAX_UNSENT_EVENTS = 64  # then a slow reader slows the search down


async def with_heartbeats(
    events: AsyncGenerator[api.ExplainStreamResponse, None], pause_seconds: float
) -> AsyncGenerator[api.ExplainStreamResponse | None, None]:
    """The events, and None whenever ``pause_seconds`` pass before the result without one."""
    # One task runs the generator to its end: its time limit belongs to the task that entered it.
    queue: asyncio.Queue[api.ExplainStreamResponse] = asyncio.Queue(_MAX_UNSENT_EVENTS)
    pumping = asyncio.create_task(_pump(events, queue))
    has_ended = False
    try:
        while not (pumping.done() and queue.empty()):
            getting = asyncio.create_task(queue.get())
            try:
                await asyncio.wait(
                    {getting, pumping},
                    timeout=pause_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if getting.done():
                    event = getting.result()
                    has_ended = event.result is not None
                    yield event
                elif not (pumping.done() or has_ended):
                    yield None
            finally:
                getting.cancel()
        await pumping
    finally:
        pumping.cancel()
        with suppress(asyncio.CancelledError, ServiceError):
            await pumping


async def _pump(
    events: AsyncGenerator[api.ExplainStreamResponse, None],
    queue: "asyncio.Queue[api.ExplainStreamResponse]",
) -> None:
    async with aclosing(events):
        async for event in events:
            await queue.put(event)
