"""The service behind both doors.  Imports contracts and the gateway's own parts, no transport.

A request is a plain mapping with the fields of `candor.contracts.api`; an answer is a model of it.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candor.contracts import api, limits, wire
from candor.contracts.card import ModelCard
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import (
    DescribeAnswer,
    DescribeItem,
    Goal,
    ItemError,
    PredictAnswer,
    PredictItem,
    SearchItem,
)
from gateway import images, validation
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
from gateway.scheduler import SearchResult, SearchScheduler, item_error, read_answer
from gateway.settings import Settings

_EXPLAIN_GOALS = {
    api.Direction.FOR: Goal.EXPLAIN_FOR,
    api.Direction.AGAINST: Goal.EXPLAIN_AGAINST,
}
_PROBE_GOALS = {api.ProbeGoal.ATTACK: Goal.ATTACK, api.ProbeGoal.BTR: Goal.BTR}
_CROWDED_SECONDS = 1.0  # when to come back to a gateway that has all the requests it can hold
_STATE_PICTURES = 5  # a search's state is four arrays of a picture's size, and some numbers
_READY_GREY = 0.5  # of the picture that readiness is tried on


@dataclass(frozen=True, slots=True)
class _Served:
    """A model whose worker has said what it is."""

    details: api.ModelDetails
    scheduler: SearchScheduler


class CandorService:
    """Predict, explain and probe; make and use it inside one event loop."""

    def __init__(self, backend: WorkerBackend, settings: Settings) -> None:
        self._backend = backend
        self._settings = settings
        self._served: dict[str, _Served] = {}
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    async def start(self) -> None:
        """Asks every worker what it holds, for as long as it takes."""
        async with asyncio.TaskGroup() as group:
            for name in self._settings.models:
                group.create_task(self._describe_until_known(name))

    async def predict(self, payload: Any, request_id: str) -> api.PredictResponse:
        async with self._admitted(payload, api.PredictRequest) as model:
            checked = await validation.check(api.PredictRequest, payload, model.details)
            logits = await self._logits(model, checked.image)
            return api.PredictResponse(
                predictions=_strongest(logits, model.details, checked.request.top_k),
                model=model.details.model,
                request_id=request_id,
            )

    async def explain(self, payload: Any, request_id: str) -> api.ExplainResponse:
        async with self._admitted(payload, api.ExplainRequest) as model:
            checked = await validation.check(api.ExplainRequest, payload, model.details)
            items = _explain_items(checked, model.details)
            results = await model.scheduler.run(items, checked.image)
            # In a thread: 64 PNGs take longer than a chunk of everybody else's searches.
            return await asyncio.to_thread(
                _explain_response, checked, items, results, model.details, request_id
            )

    async def probe(self, payload: Any, request_id: str) -> api.ProbeResponse:
        async with self._admitted(payload, api.ProbeRequest) as model:
            checked = await validation.check(api.ProbeRequest, payload, model.details)
            logits = await self._logits(model, checked.image)
            label = checked.classes.get("label", int(logits.argmax()))
            items = _probe_items(checked.request, label)
            results = await model.scheduler.run(items, checked.image)
            return await asyncio.to_thread(
                _probe_response, checked, label, logits, results, model.details, request_id
            )

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
                await self._idle.wait()
        except TimeoutError:
            pass  # the doors close on whoever is left
        for model in self._served.values():
            await model.scheduler.close()

    @asynccontextmanager
    async def _admitted(self, payload: Any, kind: type[Any]) -> AsyncIterator[_Served]:
        """Counts the request as running and ends it when its time is over."""
        self._check_admission()
        model = self._find(validation.requested_model(payload), payload, kind)
        self._in_flight += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(self._settings.request_seconds):
                yield model
        except TimeoutError as err:
            message = f"not finished in {self._settings.request_seconds:g} seconds"
            raise ServiceError(ErrorCode.TIMEOUT, message) from err
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()

    def _check_admission(self) -> None:
        if self._draining:
            raise ServiceError(
                ErrorCode.MODEL_NOT_READY, "shutting down", retry_seconds=RESTART_SECONDS
            )
        limit = self._settings.max_in_flight
        if self._in_flight >= limit:
            message = f"got one request more than the {limit} allowed at once"
            raise ServiceError(ErrorCode.OVERLOADED, message, retry_seconds=_CROWDED_SECONDS)

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
        scheduler = known.scheduler if known else self._scheduler(details)
        self._served[name] = _Served(details, scheduler)

    def _scheduler(self, details: api.ModelDetails) -> SearchScheduler:
        settings = self._settings
        return SearchScheduler(
            self._backend,
            details.model.name,
            max_batch=min(settings.max_batch, _searches_a_call(details.input)),
            max_waiting=settings.max_waiting,
            chunk_seconds=settings.chunk_seconds,
            worker_retry_seconds=settings.worker_retry_seconds,
        )

    async def _ask(self, name: str, role: Role, item: bytes) -> tuple[Any, dict[str, Any]]:
        (message,) = await self._backend.call(name, role, [item])
        answer, arrays = read_answer(message)
        if isinstance(answer, ItemError):
            raise item_error(answer)
        return answer, arrays

    async def _logits(self, model: _Served, image: images.Pixels) -> NDArray[np.float32]:
        name = model.details.model.name
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
    picture_bytes = 4 * spec.channels * spec.height * spec.width
    return max(1, MAX_CALL_BYTES // (_STATE_PICTURES * picture_bytes))


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


def _item_maker(request: api.ExplainRequest | api.ProbeRequest) -> Callable[..., SearchItem]:
    return functools.partial(
        SearchItem,
        step_count=request.steps,
        seed=request.seed,
        solver=request.solver,
        chunk_steps=1,  # the scheduler sets it anew for every chunk
    )


def _explain_response(
    checked: validation.Checked[api.ExplainRequest],
    items: Sequence[SearchItem],
    results: Sequence[SearchResult],
    model: api.ModelDetails,
    request_id: str,
) -> api.ExplainResponse:
    before = results[0].logits_before
    explanations = [
        _explanation(checked, item, result, model)
        for item, result in zip(items, results, strict=True)
    ]
    return api.ExplainResponse(
        explanations=tuple(explanations),
        predictions_before=_strongest(before, model, checked.request.top_k),
        input_png=images.encode_png(checked.image),
        model=model.model,
        request_id=request_id,
    )


def _explanation(
    checked: validation.Checked[api.ExplainRequest],
    item: SearchItem,
    result: SearchResult,
    model: api.ModelDetails,
) -> api.Explanation:
    request = checked.request
    before, after = _softmax(result.logits_before), _softmax(result.logits_after)
    return api.Explanation(
        target=_class_confidence(item.target, after, model),
        direction=request.direction,
        rho=item.rho,
        rmse=result.end.rmse,
        confidence_before=float(before[item.target]),
        confidence_after=float(after[item.target]),
        predicted_before=_strongest(result.logits_before, model, 1)[0],
        predicted_after=_strongest(result.logits_after, model, 1)[0],
        predictions_after=_strongest(result.logits_after, model, request.top_k),
        steps=result.end.steps,
        status=result.end.status,
        solver=result.end.solver,
        image_png=images.encode_png_toward(result.image, checked.image),
        image_tensor=_tensor(result.image) if request.include_tensor else None,
    )


def _tensor(image: NDArray[np.float32]) -> api.TensorInput:
    return api.TensorInput(shape=image.shape, data=image.astype("<f4").tobytes())


def _probe_response(
    checked: validation.Checked[api.ProbeRequest],
    label: int,
    logits: NDArray[np.float32],
    results: Sequence[SearchResult],
    model: api.ModelDetails,
    request_id: str,
) -> api.ProbeResponse:
    probed = [
        _probe_result(goal, label, result, checked.image, model)
        for goal, result in zip(checked.request.goals, results, strict=True)
    ]
    return api.ProbeResponse(
        results=tuple(probed),
        label=_class_confidence(label, _softmax(logits), model),
        predictions_before=_strongest(logits, model, checked.request.top_k),
        model=model.model,
        request_id=request_id,
    )


def _probe_result(
    goal: api.ProbeGoal,
    label: int,
    result: SearchResult,
    image: images.Pixels,
    model: api.ModelDetails,
) -> api.ProbeResult:
    end = result.end
    is_found = end.status is api.SearchStatus.FOUND
    is_unresolved = end.status is api.SearchStatus.UNRESOLVED
    return api.ProbeResult(
        goal=goal,
        status=end.status,
        radius=end.rmse if is_found else None if is_unresolved else 0.0,
        lower_bound=end.lower_bound if is_unresolved else None,
        falls_to=_strongest(result.logits_after, model, 1)[0],
        label_confidence_after=float(_softmax(result.logits_after)[label]),
        steps=end.steps,
        solver=end.solver,
        image_png=images.encode_png_toward(result.image, image) if is_found else b"",
    )


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(shifted / shifted.sum())


def _strongest(
    logits: NDArray[Any], model: api.ModelDetails, count: int
) -> tuple[api.ClassConfidence, ...]:
    """The ``count`` strongest classes; of equals the lower index first."""
    confidences = _softmax(logits)
    order = np.argsort(-confidences, kind="stable")[:count]
    return tuple(_class_confidence(int(index), confidences, model) for index in order)


def _class_confidence(
    index: int, confidences: NDArray[np.float64], model: api.ModelDetails
) -> api.ClassConfidence:
    return api.ClassConfidence(
        index=index, name=model.classes[index], confidence=float(confidences[index])
    )
