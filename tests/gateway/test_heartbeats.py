"""A stream's silence is filled while its result is awaited, and not after it."""

import asyncio
from collections.abc import AsyncGenerator

from candor.contracts import api
from candor.gateway.transport.heartbeats import with_heartbeats


def test_nothing_follows_the_result() -> None:
    beats = asyncio.Event()
    result = api.ExplainStreamResponse(result=api.ExplainResponse.model_construct())

    async def events() -> AsyncGenerator[api.ExplainStreamResponse, None]:
        await beats.wait()
        yield result
        await asyncio.sleep(0.1)  # many pauses long: the request is counted, its place given back

    async def collected() -> list[api.ExplainStreamResponse | None]:
        passed = []
        async for event in with_heartbeats(events(), 0.001):
            passed.append(event)
            beats.set()
        return passed

    first, *between, last = asyncio.run(collected())
    assert first is None
    assert set(between) <= {None}
    assert last is result
