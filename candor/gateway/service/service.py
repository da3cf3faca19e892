"""The service behind both doors.

A request is a plain mapping with the fields of `candor.contracts.api`; an answer is a model of it.
"""

import asyncio
import functools
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from candor import terms
from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import CompareItem, SearchItem
from candor.gateway.access.quotas import Quota, Quotas
from candor.gateway.access.request_context import Priority, RequestContext, report_model
from candor.gateway.config.settings import Settings
from candor.gateway.observability.metrics import Metrics
from candor.gateway.service import responses, validation
from candor.gateway.service.concurrency import ConcurrencyLimiter, Slot
from candor.gateway.service.models import Served, ServedModels
from candor.gateway.service.routing import request_key
from candor.gateway.service.search_pool import Found, SearchGroup, Terms
from candor.gateway.service.shadow import Answered, Shadows
from candor.gateway.workers.counted import CountedBackend
from candor.gateway.workers.protocol import RESTART_SECONDS, WorkerBackend
from candor.images import pixels
from candor.terms import Goal
from candor.tracing import NO_TRACING, Tracing

_EXPLAIN_GOALS = {
    api.Direction.FOR: Goal.EXPLAIN_FOR,
    api.Direction.AGAINST: Goal.EXPLAIN_AGAINST,
}
_PROBE_GOALS = {api.ProbeGoal.ATTACK: Goal.ATTACK, api.ProbeGoal.BTR: Goal.BTR}
_FIRST_LOOKS = 5  # for first results, in the pause between two looks for any progress


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A request that is being worked on.

    Attributes:
        key: of its image, see `candor.gateway.service.routing`; empty where no route asks for it.
    """

    model: Served
    key: bytes
    slot: Slot
    request_context: RequestContext
    timeout: asyncio.Timeout

    def terms(
        self,
        request: api.ExplainRequest | api.ProbeRequest | api.CompareRequest,
        usual: Priority,
        answer_seconds: float,
    ) -> Terms:
        """How it wants its searches done; from here on its own `timeout_seconds` counts too."""
        deadline = self.request_context.deadline
        if request.timeout_seconds is not None:
            deadline = min(deadline, self.request_context.arrived + request.timeout_seconds)
            self.timeout.reschedule(min(self.timeout.when() or deadline, deadline))
        return Terms(
            tenant=self.request_context.tenant,
            priority=self.request_context.priority(usual),
            deadline=deadline - answer_seconds,
            # Half a search says nothing about how methods compare.
            allows_partial=not isinstance(request, api.CompareRequest) and request.allow_partial,
            uses_cache=not request.no_cache,
        )

    def answered(self, image: pixels.Pixels) -> Answered:
        return Answered(self.model, self.key, self.request_context.request_id, image)


class CandorService:
    """Predict, explain, probe and compare; make and use it inside one event loop.

    Args:
        metrics: told of what happens; its own where none is given.
        tracing: makes a span of every chunk.
        quotas: charged with what searches cost; none are kept where none are given.
    """

    def __init__(
        self,
        backend: WorkerBackend,
        settings: Settings,
        metrics: Metrics | None = None,
        tracing: Tracing = NO_TRACING,
        quotas: Quotas | None = None,
    ) -> None:
        metrics = metrics or Metrics(settings.models)
        self.models = ServedModels(
            CountedBackend(backend, metrics),
            settings,
            metrics,
            tracing,
            quotas or Quotas(Quota(), {}),
        )
        self._shadows = Shadows(self.models, metrics)
        self._settings = settings
        self._limiter = ConcurrencyLimiter(settings.max_in_flight)
        self._draining = False

    async def start(self) -> None:
        """Asks every worker what it holds, until those that answer callers have said it."""
        await self.models.start()

    async def predict(self, payload: Any, request_context: RequestContext) -> api.PredictResponse:
        async with self._admitted(payload, api.PredictRequest, request_context) as admitted:
            details = admitted.model.details
            checked = await validation.check(api.PredictRequest, payload, details)
            logits = await self.models.logits(admitted.model.name, checked.image)
            answer = api.PredictResponse(
                predictions=responses.strongest(logits, details, checked.request.top_k),
                model=details.model,
                request_id=request_context.request_id,
            )
            self._shadows.predicted(admitted.answered(checked.image), logits)
            return answer

    async def explain(self, payload: Any, request_context: RequestContext) -> api.ExplainResponse:
        async with self._admitted(payload, api.ExplainRequest, request_context) as admitted:
            details = admitted.model.details
            checked = await validation.check(api.ExplainRequest, payload, details)
            items = _explain_items(checked, details)
            with self._order(items, checked, admitted, Priority.EXPLAIN) as order:
                found = await order.results()
            # In a thread: 64 PNGs take longer than a chunk of everybody else's searches.
            answer = await asyncio.to_thread(
                responses.explain_response,
                checked,
                items,
                found,
                details,
                request_context.request_id,
            )
            self._shadows.explained(admitted.answered(checked.image), items, found)
            return answer

    async def explain_stream(
        self, payload: Any, request_context: RequestContext
    ) -> AsyncGenerator[api.ExplainStreamResponse, None]:
        """Progress of every pair where it changed, at most every `progress_seconds`; the answer.

        Closing the generator ends the work.
        """
        async with self._admitted(payload, api.ExplainRequest, request_context) as admitted:
            details = admitted.model.details
            checked = await validation.check(api.ExplainRequest, payload, details)
            items = _explain_items(checked, details)
            with self._order(items, checked, admitted, Priority.EXPLAIN) as order:
                working = asyncio.ensure_future(order.results())
                try:
                    async with aclosing(self._progress(order, working)) as events:
                        async for event in events:
                            yield event
                    found = await working
                finally:
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)
            answer = await asyncio.to_thread(
                responses.explain_response,
                checked,
                items,
                found,
                details,
                request_context.request_id,
            )
            self._shadows.explained(admitted.answered(checked.image), items, found)
            yield api.ExplainStreamResponse(result=answer)

    async def probe(self, payload: Any, request_context: RequestContext) -> api.ProbeResponse:
        async with self._admitted(payload, api.ProbeRequest, request_context) as admitted:
            details = admitted.model.details
            checked = await validation.check(api.ProbeRequest, payload, details)
            logits = await self.models.logits(admitted.model.name, checked.image)
            label = checked.classes.get("label", int(logits.argmax()))
            items = _probe_items(checked.request, label)
            with self._order(items, checked, admitted, Priority.PROBE) as order:
                found = await order.results()
            answer = await asyncio.to_thread(
                responses.probe_response,
                checked,
                label,
                logits,
                found,
                details,
                request_context.request_id,
            )
            self._shadows.probed(admitted.answered(checked.image), items, found)
            return answer

    async def compare(self, payload: Any, request_context: RequestContext) -> api.CompareResponse:
        """Searches first, each needing the one before it; then every method's saliency."""
        async with self._admitted(payload, api.CompareRequest, request_context) as admitted:
            details, search_pool = admitted.model.details, admitted.model.search_pool
            checked = await validation.check(api.CompareRequest, payload, details)
            target = checked.classes.get("target")
            if target is None:
                logits = await self.models.logits(admitted.model.name, checked.image)
                target = int(logits.argmax())
            terms = self._terms(checked.request, admitted, Priority.EXPLAIN)
            explain, perturb = _compare_searches(checked.request, target, details)
            digest, slot = details.model.weights_digest, admitted.slot
            with search_pool.order([explain, perturb], checked.image, terms, slot, digest) as order:
                explained, perturbed = await order.results()
            with search_pool.order([explain], perturbed.result.image, terms, slot, digest) as order:
                (explained_anew,) = await order.results()
            arrays = {
                "image": checked.image,
                "perturbed": perturbed.result.image,
                "explanation": explained.result.image,
                "perturbed_explanation": explained_anew.result.image,
            }
            items = _compare_items(checked.request, target)
            compared = await search_pool.compare(items, arrays, terms, slot)
            return await asyncio.to_thread(
                responses.compare_response,
                checked, explain, (explained, perturbed), list(zip(items, compared, strict=True)),
                details, request_context.request_id,
            )  # fmt: skip

    def list_models(self) -> api.ModelList:
        """Those whose workers have answered at least once, the default first."""
        return self.models.listed()

    def get_model(self, name: str) -> api.ModelDetails:
        """Of several versions the primary, where ``name`` has none."""
        return self.models.find(name).details

    async def route(self, payload: Any, request_context: RequestContext) -> str:
        """The name that brings every request of a batch to the version its first one would get.

        Raises:
            ServiceError: MODEL_NOT_FOUND, MODEL_NOT_READY.
        """
        model, _ = await self._route(payload, None, request_context)
        return model.name

    async def ready(self) -> bool:
        """Whether every model answers a real prediction and a real search step now."""
        return not self._draining and await self.models.work()

    async def drain(self) -> None:
        """Admits nothing more, drops shadows and waits for what runs, at most `drain_seconds`."""
        self._draining = True
        await self._shadows.close()
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await self._limiter.wait_until_idle()
        except TimeoutError:
            pass  # the doors close on whoever is left
        await self.models.close()

    @asynccontextmanager
    async def _admitted(
        self, payload: Any, kind: type[Any], request_context: RequestContext
    ) -> AsyncIterator[_Admitted]:
        """Counts the request as running and ends it when its time is over."""
        if self._draining:
            raise ServiceError(
                ErrorCode.MODEL_NOT_READY, "shutting down", retry_seconds=RESTART_SECONDS
            )
        slot = self._limiter.take()
        try:
            model, key = await self._route(payload, kind, request_context)
            report_model.get()(model.name)
            longest = request_context.arrived + self._settings.request_seconds
            async with asyncio.timeout_at(min(request_context.deadline, longest)) as timeout:
                yield _Admitted(model, key, slot, request_context, timeout)
        except TimeoutError as err:
            message = f"not finished in {time.monotonic() - request_context.arrived:.3g} seconds"
            raise ServiceError(ErrorCode.TIMEOUT, message) from err
        finally:
            slot.drop()

    async def _route(
        self, payload: Any, kind: type[Any] | None, request_context: RequestContext
    ) -> tuple[Served, bytes]:
        """The model, and the key of the request where its route asks for one."""
        wanted, key = validation.requested_model(payload), b""
        if self.models.routes.needs_image(wanted):
            # In a thread: base64 and digest of megabytes.
            picture = await asyncio.to_thread(validation.sent_image, payload)
            key = request_key(request_context.tenant, picture)
        return self.models.find(wanted, key, payload, kind), key

    def _order(
        self,
        items: Sequence[SearchItem],
        checked: validation.Checked[Any],
        admitted: _Admitted,
        usual: Priority,
    ) -> AbstractContextManager[SearchGroup]:
        terms = self._terms(checked.request, admitted, usual)
        digest = admitted.model.details.model.weights_digest
        return admitted.model.search_pool.order(items, checked.image, terms, admitted.slot, digest)

    def _terms(
        self,
        request: api.ExplainRequest | api.ProbeRequest | api.CompareRequest,
        admitted: _Admitted,
        usual: Priority,
    ) -> Terms:
        return admitted.terms(request, usual, self._settings.answer_seconds)

    async def _progress(
        self, order: SearchGroup, working: "asyncio.Future[list[Found]]"
    ) -> AsyncGenerator[api.ExplainStreamResponse, None]:
        """Until the work is done; a pair's first result does not wait for the end of a pause."""
        pause = self._settings.progress_seconds
        told: dict[int, tuple[int, int]] = {}
        begun: set[int] = set()
        for is_due in itertools.cycle([True, *[False] * (_FIRST_LOOKS - 1)]):
            if working.done():
                return
            firsts = order.begun() - begun
            for place, snapshot in (order.snapshots() if is_due or firsts else {}).items():
                news = (snapshot.step, snapshot.queue_position)
                is_wanted = (is_due or place in firsts) and told.get(place) != news
                if is_wanted and not working.done():
                    told[place] = news
                    yield await asyncio.to_thread(responses.progress_event, place, snapshot)
            begun |= firsts
            await asyncio.wait({working}, timeout=pause / _FIRST_LOOKS)


def _explain_items(
    checked: validation.Checked[api.ExplainRequest], model: api.ModelDetails
) -> list[SearchItem]:
    """One search a pair: targets in order, for each target its rhos in order."""
    request = checked.request
    targets = [checked.classes[f"targets.{place}"] for place in range(len(request.targets))]
    rhos = request.rhos or (model.recommended_rho,)
    goal = _EXPLAIN_GOALS[request.direction]
    make = _item_maker(request)
    return [make(goal=goal, target=target, rho=rho) for target in targets for rho in rhos]


def _probe_items(request: api.ProbeRequest, label: int) -> list[SearchItem]:
    make = _item_maker(request)
    return [make(goal=_PROBE_GOALS[goal], target=label) for goal in request.goals]


def _compare_searches(
    request: api.CompareRequest, target: int, model: api.ModelDetails
) -> tuple[SearchItem, SearchItem]:
    """The explanation, and the perturbation that nobody sees."""
    make = _item_maker(request)
    return (
        make(goal=Goal.EXPLAIN_FOR, target=target, rho=request.rho or model.recommended_rho),
        make(goal=Goal.EXPLAIN_AGAINST, target=target, rho=terms.IMPERCEPTIBLE_RMSE),
    )


def _compare_items(request: api.CompareRequest, target: int) -> list[CompareItem]:
    return [CompareItem(method=method, target=target, seed=request.seed) for method in api.Method]


def _item_maker(
    request: api.ExplainRequest | api.ProbeRequest | api.CompareRequest,
) -> Callable[..., SearchItem]:
    return functools.partial(
        SearchItem,
        step_count=request.steps,
        seed=request.seed,
        solver=request.solver,
        chunk_steps=1,  # the scheduler sets it anew for every chunk
    )
