"""The service behind both doors.  Imports contracts and the gateway's own parts, no transport.

A request is a plain mapping with the fields of `candor.contracts.api`; an answer is a model of it.
"""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candor.contracts import api, limits, wire
from candor.contracts.card import ModelCard
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.tracing import NO_TRACING, Tracing
from candor.contracts.worker import (
    CompareItem,
    DescribeAnswer,
    DescribeItem,
    Goal,
    ItemError,
    PredictAnswer,
    PredictItem,
    SearchItem,
)
from gateway import answers, images, validation
from gateway.backend import (
    MAX_CALL_BYTES,
    RESTART_SECONDS,
    Role,
    WorkerBackend,
    WorkerFault,
    WorkerUnavailable,
    not_ready,
    patiently,
    pauses,
)
from gateway.cache import ResultCache
from gateway.caller import Caller, Priority
from gateway.counted import CountedBackend
from gateway.desk import Found, Order, SearchDesk, Terms
from gateway.metrics import Metrics
from gateway.quotas import Quota, Quotas
from gateway.scheduler import SearchScheduler
from gateway.search import item_error, read_answer
from gateway.settings import Settings
from gateway.slots import Slot, Slots

_EXPLAIN_GOALS = {
    api.Direction.FOR: Goal.EXPLAIN_FOR,
    api.Direction.AGAINST: Goal.EXPLAIN_AGAINST,
}
_PROBE_GOALS = {api.ProbeGoal.ATTACK: Goal.ATTACK, api.ProbeGoal.BTR: Goal.BTR}
_STATE_PICTURES = 5  # a search's state is four arrays of a picture's size, and some numbers
_READY_GREY = 0.5  # of the picture that readiness is tried on


@dataclass(frozen=True, slots=True)
class _Served:
    """A model whose worker has said what it is."""

    details: api.ModelDetails
    desk: SearchDesk


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A request that is being worked on."""

    model: _Served
    slot: Slot
    caller: Caller
    timeout: asyncio.Timeout

    def terms(
        self,
        request: api.ExplainRequest | api.ProbeRequest | api.CompareRequest,
        usual: Priority,
        answer_seconds: float,
    ) -> Terms:
        """How it wants its searches done; from here on its own `timeout_seconds` counts too."""
        deadline = self.caller.deadline
        if request.timeout_seconds is not None:
            deadline = min(deadline, self.caller.arrived + request.timeout_seconds)
            self.timeout.reschedule(min(self.timeout.when() or deadline, deadline))
        return Terms(
            tenant=self.caller.tenant,
            priority=self.caller.priority(usual),
            deadline=deadline - answer_seconds,
            # Half a search says nothing about how methods compare.
            allows_partial=not isinstance(request, api.CompareRequest) and request.allow_partial,
            uses_cache=not request.no_cache,
        )


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
        self._tracing = tracing
        self._metrics = metrics or Metrics(settings.models)
        self._backend = CountedBackend(backend, self._metrics)
        self._quotas = quotas or Quotas(Quota(), {})
        self._settings = settings
        self._served: dict[str, _Served] = {}
        self._cache = ResultCache(settings.cache_bytes)
        self._slots = Slots(settings.max_in_flight)
        self._draining = False

    async def start(self) -> None:
        """Asks every worker what it holds, for as long as it takes."""
        async with asyncio.TaskGroup() as group:
            for name in self._settings.models:
                group.create_task(self._describe_until_known(name))

    async def predict(self, payload: Any, caller: Caller) -> api.PredictResponse:
        async with self._admitted(payload, api.PredictRequest, caller) as admitted:
            details = admitted.model.details
            checked = await validation.check(api.PredictRequest, payload, details)
            logits = await self._logits(details, checked.image)
            return api.PredictResponse(
                predictions=answers.strongest(logits, details, checked.request.top_k),
                model=details.model,
                request_id=caller.request_id,
            )

    async def explain(self, payload: Any, caller: Caller) -> api.ExplainResponse:
        async with self._admitted(payload, api.ExplainRequest, caller) as admitted:
            details = admitted.model.details
            checked = await validation.check(api.ExplainRequest, payload, details)
            items = _explain_items(checked, details)
            with self._order(items, checked, admitted, Priority.EXPLAIN) as order:
                found = await order.results()
            # In a thread: 64 PNGs take longer than a chunk of everybody else's searches.
            return await asyncio.to_thread(
                answers.explain_response, checked, items, found, details, caller.request_id
            )

    async def explain_stream(
        self, payload: Any, caller: Caller
    ) -> AsyncGenerator[api.ExplainStreamResponse, None]:
        """Progress of every pair where it changed, at most every `progress_seconds`; the answer.

        Closing the generator ends the work.
        """
        async with self._admitted(payload, api.ExplainRequest, caller) as admitted:
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
                answers.explain_response, checked, items, found, details, caller.request_id
            )
            yield api.ExplainStreamResponse(result=answer)

    async def probe(self, payload: Any, caller: Caller) -> api.ProbeResponse:
        async with self._admitted(payload, api.ProbeRequest, caller) as admitted:
            details = admitted.model.details
            checked = await validation.check(api.ProbeRequest, payload, details)
            logits = await self._logits(details, checked.image)
            label = checked.classes.get("label", int(logits.argmax()))
            items = _probe_items(checked.request, label)
            with self._order(items, checked, admitted, Priority.PROBE) as order:
                found = await order.results()
            return await asyncio.to_thread(
                answers.probe_response, checked, label, logits, found, details, caller.request_id
            )

    async def compare(self, payload: Any, caller: Caller) -> api.CompareResponse:
        """Searches first, each needing the one before it; then every method's saliency."""
        async with self._admitted(payload, api.CompareRequest, caller) as admitted:
            details, desk = admitted.model.details, admitted.model.desk
            checked = await validation.check(api.CompareRequest, payload, details)
            target = checked.classes.get("target")
            if target is None:
                target = int((await self._logits(details, checked.image)).argmax())
            terms = self._terms(checked.request, admitted, Priority.EXPLAIN)
            explain, perturb = _compare_searches(checked.request, target, details)
            digest, slot = details.model.weights_digest, admitted.slot
            with desk.order([explain, perturb], checked.image, terms, slot, digest) as order:
                explained, perturbed = await order.results()
            with desk.order([explain], perturbed.result.image, terms, slot, digest) as order:
                (explained_anew,) = await order.results()
            arrays = {
                "image": checked.image,
                "perturbed": perturbed.result.image,
                "explanation": explained.result.image,
                "perturbed_explanation": explained_anew.result.image,
            }
            items = _compare_items(checked.request, target)
            compared = await desk.compare(items, arrays, terms, slot)
            return await asyncio.to_thread(
                answers.compare_response,
                checked, explain, (explained, perturbed), list(zip(items, compared, strict=True)),
                details, caller.request_id,
            )  # fmt: skip

    def list_models(self) -> api.ModelList:
        """Those whose workers have answered at least once, the default first."""
        names = self._settings.models
        known = [self._served[name].details for name in names if name in self._served]
        return api.ModelList(models=tuple(_summary(details, names[0]) for details in known))

    def get_model(self, name: str) -> api.ModelDetails:
        return self._find(name, None, None).details

    async def ready(self) -> bool:
        """Whether every model answers a real prediction and a real search step now."""
        if self._draining or len(self._served) < len(self._settings.models):
            return False
        try:
            for name in self._settings.models:
                await self._describe(name)
                await self._try_out(name)
        except (WorkerUnavailable, WorkerFault, ServiceError):
            return False
        return True

    async def drain(self) -> None:
        """Admits nothing more and waits for what runs, at most `drain_seconds`."""
        self._draining = True
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await self._slots.wait_until_idle()
        except TimeoutError:
            pass  # the doors close on whoever is left
        for model in self._served.values():
            await model.desk.scheduler.close()

    @asynccontextmanager
    async def _admitted(
        self, payload: Any, kind: type[Any], caller: Caller
    ) -> AsyncIterator[_Admitted]:
        """Counts the request as running and ends it when its time is over."""
        if self._draining:
            raise ServiceError(
                ErrorCode.MODEL_NOT_READY, "shutting down", retry_seconds=RESTART_SECONDS
            )
        slot = self._slots.take()
        try:
            model = self._find(validation.requested_model(payload), payload, kind)
            longest = caller.arrived + self._settings.request_seconds
            async with asyncio.timeout_at(min(caller.deadline, longest)) as timeout:
                yield _Admitted(model, slot, caller, timeout)
        except TimeoutError as err:
            message = f"not finished in {time.monotonic() - caller.arrived:.3g} seconds"
            raise ServiceError(ErrorCode.TIMEOUT, message) from err
        finally:
            slot.drop()

    def _order(
        self,
        items: Sequence[SearchItem],
        checked: validation.Checked[Any],
        admitted: _Admitted,
        usual: Priority,
    ) -> AbstractContextManager[Order]:
        terms = self._terms(checked.request, admitted, usual)
        digest = admitted.model.details.model.weights_digest
        return admitted.model.desk.order(items, checked.image, terms, admitted.slot, digest)

    def _terms(
        self,
        request: api.ExplainRequest | api.ProbeRequest | api.CompareRequest,
        admitted: _Admitted,
        usual: Priority,
    ) -> Terms:
        return admitted.terms(request, usual, self._settings.answer_seconds)

    async def _progress(
        self, order: Order, working: "asyncio.Future[list[Found]]"
    ) -> AsyncGenerator[api.ExplainStreamResponse, None]:
        """Until the work is done."""
        told: dict[int, tuple[int, int]] = {}
        while not working.done():
            for place, glimpse in order.glimpses().items():
                news = (glimpse.step, glimpse.queue_position)
                if told.get(place) != news and not working.done():
                    told[place] = news
                    yield await asyncio.to_thread(answers.progress_event, place, glimpse)
            await asyncio.wait({working}, timeout=self._settings.progress_seconds)

    def _find(self, name: str, payload: Any, kind: type[Any] | None) -> _Served:
        names = self._settings.models
        wanted = name or names[0]
        if wanted not in names:
            raise validation.unknown_model(wanted, names, payload, kind)
        if wanted not in self._served:
            raise not_ready(wanted, "still loading")
        return self._served[wanted]

    async def _describe_until_known(self, name: str) -> None:
        for pause in pauses():
            try:
                await self._describe(name)
                return
            except (WorkerUnavailable, WorkerFault, ServiceError):
                await asyncio.sleep(pause)

    async def _describe(self, name: str) -> None:
        """Also when known already: the worker may have come back with a newer version."""
        item = wire.pack(DescribeItem().model_dump(mode="json"))
        answer, _ = await self._ask(name, "predict", item)
        if not isinstance(answer, DescribeAnswer):
            raise WorkerFault(f"got {answer.kind} to a describe item")
        known = self._served.get(name)
        details = _details(name, answer.card)
        desk = known.desk if known else self._desk(details)
        self._served[name] = _Served(details, desk)
        self._metrics.set_model(details.model)

    def _desk(self, details: api.ModelDetails) -> SearchDesk:
        scheduler = self._scheduler(details)
        return SearchDesk(scheduler, self._cache, self._metrics, details.model.name)

    def _scheduler(self, details: api.ModelDetails) -> SearchScheduler:
        settings = self._settings
        return SearchScheduler(
            self._backend,
            details.model.name,
            value_count=_value_count(details.input),
            worker_count=settings.search_workers,
            max_batch=min(settings.max_batch, _searches_a_call(details.input)),
            max_waiting=settings.max_waiting,
            chunk_seconds=settings.chunk_seconds,
            short_steps=settings.short_steps,
            worker_retry_seconds=settings.worker_retry_seconds,
            on_charge=self._quotas.charge,
            metrics=self._metrics,
            tracing=self._tracing,
        )

    async def _ask(self, name: str, role: Role, item: bytes) -> tuple[Any, dict[str, Any]]:
        (message,) = await self._backend.call(name, role, [item])
        answer, arrays = read_answer(message)
        if isinstance(answer, ItemError):
            raise item_error(answer)
        return answer, arrays

    async def _logits(self, details: api.ModelDetails, image: images.Pixels) -> NDArray[np.float32]:
        name = details.model.name
        item = wire.pack(PredictItem().model_dump(mode="json"), {"image": image})
        answer, arrays = await patiently(
            functools.partial(self._ask, name, "predict", item),
            name,
            self._settings.predict_retry_seconds,
        )
        if not isinstance(answer, PredictAnswer) or "logits" not in arrays:
            raise WorkerFault(f"got {answer.kind} with {sorted(arrays)} to a predict item")
        return np.asarray(arrays["logits"])

    async def _try_out(self, name: str) -> None:
        spec = self._served[name].details.input
        grey = np.full((spec.channels, spec.height, spec.width), _READY_GREY, np.float32)
        predict = wire.pack(PredictItem().model_dump(mode="json"), {"image": grey})
        await self._ask(name, "predict", predict)
        search = SearchItem(goal=Goal.BTR, target=0, step_count=2, chunk_steps=1)
        await self._ask(name, "search", wire.pack(search.model_dump(mode="json"), {"image": grey}))


def _searches_a_call(spec: api.InputSpec) -> int:
    """How many running searches fit into one message."""
    return max(1, MAX_CALL_BYTES // (_STATE_PICTURES * 4 * _value_count(spec)))


def _value_count(spec: api.InputSpec) -> int:
    return spec.channels * spec.height * spec.width


def _details(name: str, card: ModelCard) -> api.ModelDetails:
    """What is told of a model: its card, under the name it is served by."""
    return api.ModelDetails(
        model=api.ModelRef(name=name, version=card.version, weights_digest=card.weights_sha256),
        description=card.description,
        architecture=card.network.architecture,
        classes=card.classes,
        input=api.InputSpec(**card.input.model_dump()),
        recommended_rho=card.recommended_rho,
        metrics=card.metrics,
        solvers=limits.SOLVERS,
    )


def _summary(details: api.ModelDetails, default: str) -> api.ModelSummary:
    return api.ModelSummary(
        model=details.model,
        description=details.description,
        is_default=details.model.name == default,
    )


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
        make(goal=Goal.EXPLAIN_AGAINST, target=target, rho=limits.IMPERCEPTIBLE_RMSE),
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
