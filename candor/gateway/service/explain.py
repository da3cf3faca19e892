"""Explain: one search for each pair of a target and a rho, answered at once or as a stream."""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Self

from candor.contracts import api
from candor.contracts.worker import SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.pools import PICTURES
from candor.gateway.service import responses, validation
from candor.gateway.service.admission import AdmittedRequest
from candor.gateway.service.items import item_maker
from candor.gateway.service.search_pool import PoolResult, SearchGroup, Snapshot
from candor.gateway.service.shadow import AnsweredRequest, Shadows
from candor.terms import Goal

_GOALS = {
    api.Direction.FOR: Goal.EXPLAIN_FOR,
    api.Direction.AGAINST: Goal.EXPLAIN_AGAINST,
}


async def respond(payload: Any, admitted: AdmittedRequest, shadows: Shadows) -> api.ExplainResponse:
    """Raises: ServiceError: INVALID_INPUT, OVERLOADED, TIMEOUT, or that of a search."""
    explanation = await _Explanation.checked_of(payload, admitted)
    async with explanation.searches() as group:
        results = await group.results()
    return await explanation.response(results, shadows)


async def stream(
    payload: Any, admitted: AdmittedRequest, shadows: Shadows, progress_seconds: float
) -> AsyncGenerator[api.ExplainStreamResponse, None]:
    """Progress of every pair where it changed, then the response.

    Closing the generator ends the searches.

    Args:
        progress_seconds: the shortest pause between two progress events of a pair.
    Raises:
        ServiceError: as `respond`.
    """
    explanation = await _Explanation.checked_of(payload, admitted)
    async with explanation.searches() as group:
        working = asyncio.ensure_future(group.results())
        try:
            async with aclosing(_progress(group, working, progress_seconds)) as events:
                async for event in events:
                    yield event
            results = await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    yield api.ExplainStreamResponse(result=await explanation.response(results, shadows))


@dataclass(frozen=True, slots=True)
class _Explanation:
    """A checked request and its searches: targets in order, for each target its rhos in order."""

    checked: validation.Checked[api.ExplainRequest]
    items: Sequence[SearchItem]
    admitted: AdmittedRequest

    @classmethod
    async def checked_of(cls, payload: Any, admitted: AdmittedRequest) -> Self:
        details = admitted.model.details
        checked = await validation.check(
            api.ExplainRequest, payload, details, admitted.model.preprocessing
        )
        return cls(checked, _items(checked, details), admitted)

    def searches(self) -> AbstractAsyncContextManager[SearchGroup]:
        options = self.admitted.search_options(
            self.checked.request, Priority.EXPLAIN, len(self.items)
        )
        return self.admitted.searches(self.items, self.checked.arrays, options)

    async def response(
        self, results: Sequence[PoolResult], shadows: Shadows
    ) -> api.ExplainResponse:
        started = time.monotonic()
        # In a thread: 64 PNGs take longer than a chunk of the searches of other requests.
        response = await PICTURES.run(
            responses.explain_response,
            self.checked,
            self.items,
            results,
            self.admitted.model.details,
            self.admitted.context.request_id,
        )
        self.admitted.model.answer_times.record(len(self.items), time.monotonic() - started)
        answered = AnsweredRequest.of(self.admitted, self.checked.arrays)
        shadows.after_explanation(answered, self.items, results)
        return response


def _items(
    checked: validation.Checked[api.ExplainRequest], model: api.ModelDetails
) -> list[SearchItem]:
    request = checked.request
    targets = [checked.classes[f"targets.{index}"] for index in range(len(request.targets))]
    rhos = request.rhos or (model.recommended_rho,)
    make = functools.partial(
        item_maker(request),
        goal=_GOALS[request.direction],
        norm=request.norm,
        away_from=checked.classes.get("away_from"),
    )
    return [make(target=target, rho=rho) for target in targets for rho in rhos]


async def _progress(
    group: SearchGroup, working: "asyncio.Future[list[PoolResult]]", pause: float
) -> AsyncGenerator[api.ExplainStreamResponse, None]:
    """Events until the work is done; a pair's first result does not wait for the pause to end."""
    now = asyncio.get_running_loop().time
    reported: dict[int, tuple[int, int]] = {}
    with_progress: set[int] = set()
    due = now()
    while not working.done():
        # Asked for before anything is looked at, so that no change is missed.
        awaited: set[asyncio.Future[Any]] = {working, group.changed()}
        is_due, firsts = now() >= due, group.with_progress() - with_progress
        news = _news(group, reported) if is_due or firsts else {}
        for index, snapshot in news.items():
            if (is_due or index in firsts) and not working.done():
                reported[index] = _state(snapshot)
                yield await PICTURES.run(responses.progress_event, index, snapshot)
        with_progress |= firsts
        if is_due:
            due = now() + pause
        # A change that must wait for the end of the pause is looked at then.
        waits = bool(_news(group, reported))
        await asyncio.wait(
            awaited,
            timeout=max(0.0, due - now()) if waits else None,
            return_when=asyncio.FIRST_COMPLETED,
        )


def _news(group: SearchGroup, reported: Mapping[int, tuple[int, int]]) -> dict[int, Snapshot]:
    """The pairs whose state is another than the one reported."""
    return {
        index: snapshot
        for index, snapshot in group.snapshots().items()
        if reported.get(index) != _state(snapshot)
    }


def _state(snapshot: Snapshot) -> tuple[int, int]:
    """What has to change before a pair is reported again."""
    return snapshot.step, snapshot.queue_position
