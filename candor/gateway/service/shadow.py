"""Sends the requests of the primary version to another version, too, and compares the results.

No client waits for it, is charged for it or sees it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.observability.metrics import Metrics, ShadowMeasure, ShadowOutcome, ShadowVerb
from candor.gateway.service.admission import AdmittedRequest
from candor.gateway.service.concurrency import ConcurrencyLimiter, Slot
from candor.gateway.service.models import ModelRegistry, ServedModel
from candor.gateway.service.responses import softmax
from candor.gateway.service.search_pool import PoolResult, SearchOptions
from candor.gateway.workers.codec import Arrays, SearchOutcome
from candor.images.pixels import Pixels
from candor.terms import SearchStatus

GAIN_TOLERANCE = 0.1  # of the target's confidence: explanations that differ by more disagree
RADIUS_FACTOR = 2.0  # radii that differ by more disagree
MAX_IN_FLIGHT = 4  # requests; those beyond are skipped
_MAX_SEARCHES = 4  # of one request: an explanation may have 64
_SECONDS = 120.0  # for one comparison; it waits behind every request
# No tenant can have it: a name has no space.  So no quota is charged and no tenant loses its turn.
_TENANT = "in shadow"
_log = logging.getLogger("gateway.shadow")


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """A request that its model has answered.

    Attributes:
        key: of the request, see `candor.gateway.service.routing`.
        arrays: the decoded image, (C, H, W), and perhaps the mask, (H, W), float32 in [0, 1].
    """

    model: ServedModel
    key: bytes
    request_id: str
    arrays: Arrays

    @classmethod
    def of(cls, admitted: AdmittedRequest, arrays: Arrays) -> Self:
        """The answered request of ``admitted`` with its decoded image and mask."""
        return cls(admitted.model, admitted.key, admitted.context.request_id, arrays)

    @property
    def image(self) -> Pixels:
        """(C, H, W) float32 in [0, 1]."""
        return self.arrays["image"]


class Difference(NamedTuple):
    """How the shadow's result differs from the primary's; measures as in the gateway's metrics."""

    agrees: bool
    measures: dict[ShadowMeasure, float]


_Comparison = Callable[[ServedModel, Slot], Awaitable[list[Difference]]]


class Shadows:
    """Comparisons in progress; make and use it inside one event loop."""

    def __init__(self, models: ModelRegistry, metrics: Metrics) -> None:
        self._models = models
        self._metrics = metrics
        self._limiter = ConcurrencyLimiter(MAX_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def after_prediction(self, answered: AnsweredRequest, logits: NDArray[np.float32]) -> None:
        """A prediction was answered with these logits (V,)."""

        async def compare(shadow: ServedModel, slot: Slot) -> list[Difference]:
            return [compare_predictions(logits, await shadow.logits(answered.image))]

        self._start("predict", answered, compare)

    def after_explanation(
        self,
        answered: AnsweredRequest,
        items: Sequence[SearchItem],
        results: Sequence[PoolResult],
    ) -> None:
        """An explanation was answered with one result for each item."""
        self._start_searches("explain", answered, items, results)

    def after_probe(
        self,
        answered: AnsweredRequest,
        items: Sequence[SearchItem],
        results: Sequence[PoolResult],
    ) -> None:
        """A probe was answered with one result for each item."""
        self._start_searches("probe", answered, items, results)

    async def close(self) -> None:
        """Drops every comparison in progress and starts no more."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start_searches(
        self,
        verb: Literal["explain", "probe"],
        answered: AnsweredRequest,
        items: Sequence[SearchItem],
        results: Sequence[PoolResult],
    ) -> None:
        compared = items[:_MAX_SEARCHES]
        primary = [one.outcome for one in results[:_MAX_SEARCHES]]

        async def compare(shadow: ServedModel, slot: Slot) -> list[Difference]:
            others = await _search(shadow, compared, answered.arrays, slot)
            pairs = zip(primary, others, strict=True)
            if verb == "probe":
                return [compare_radii(one, other) for one, other in pairs]
            return [
                compare_explanations(answered.image, item.target, one, other)
                for item, (one, other) in zip(compared, pairs, strict=True)
            ]

        # The best of half a search is no measure of a version.
        self._start(verb, answered, compare, skips=any(one.is_partial for one in primary))

    def _start(
        self,
        verb: ShadowVerb,
        answered: AnsweredRequest,
        comparison: _Comparison,
        *,
        skips: bool = False,
    ) -> None:
        name = self._models.routes.shadow_of(answered.model.name, answered.key)
        if name is None or self._is_closed:
            return
        if skips or self._limiter.taken >= MAX_IN_FLIGHT:
            self._metrics.shadow_ended(name, verb, "skipped")
            return
        work = self._compare(verb, name, answered, comparison, self._limiter.take())
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(
        self,
        verb: ShadowVerb,
        name: str,
        answered: AnsweredRequest,
        comparison: _Comparison,
        slot: Slot,
    ) -> None:
        differences: list[Difference] = []
        reason = ""
        try:
            async with asyncio.timeout(_SECONDS):
                shadow = self._models.find(name)
                _check_comparable(answered.model, shadow)
                differences = await comparison(shadow, slot)
            outcome: ShadowOutcome = "agree" if all(d.agrees for d in differences) else "disagree"
        except Exception as err:  # whatever it is, only the operator sees it
            has_no_room = isinstance(err, ServiceError) and err.code is ErrorCode.OVERLOADED
            outcome = "skipped" if has_no_room else "failed"
            reason = f"{type(err).__name__}: {err}"[:200]
        finally:
            slot.drop()
        self._report(verb, name, answered, outcome, differences, reason)

    def _report(
        self,
        verb: ShadowVerb,
        name: str,
        answered: AnsweredRequest,
        outcome: ShadowOutcome,
        differences: Sequence[Difference],
        reason: str,
    ) -> None:
        self._metrics.shadow_ended(name, verb, outcome)
        for difference in differences:
            for measure, value in difference.measures.items():
                self._metrics.shadow_differs(name, measure, value)
        fields = {
            "request_id": answered.request_id,
            "verb": verb,
            "model": answered.model.name,
            "shadow": name,
            "outcome": outcome,
            "differences": [_rounded(difference) for difference in differences],
        }
        if reason:
            fields["reason"] = reason
        _log.info("shadow", extra={"fields": fields})


def compare_predictions(primary: NDArray[np.float32], shadow: NDArray[np.float32]) -> Difference:
    """Whether two logits (V,) have the same strongest class."""
    largest = float(np.abs(softmax(primary) - softmax(shadow)).max())
    return Difference(bool(primary.argmax() == shadow.argmax()), {"confidence": largest})


def compare_explanations(
    image: NDArray[np.float32], target: int, primary: SearchOutcome, shadow: SearchOutcome
) -> Difference:
    """Whether the target of one image (C, H, W) gains as much, within `GAIN_TOLERANCE`."""
    gain = abs(_gain(primary, target) - _gain(shadow, target))
    measures: dict[ShadowMeasure, float] = {
        "gain": gain,
        "rmse": abs(primary.end.rmse - shadow.end.rmse),
        "cosine": _cosine(primary.image - image, shadow.image - image),
    }
    return Difference(gain <= GAIN_TOLERANCE, measures)


def compare_radii(primary: SearchOutcome, shadow: SearchOutcome) -> Difference:
    """Whether both ended alike and, where both found a radius, these are within `RADIUS_FACTOR`."""
    if primary.end.status is not shadow.end.status:
        return Difference(False, {})
    if primary.end.status is not SearchStatus.FOUND or primary.end.rmse == 0.0:
        return Difference(True, {})
    ratio = shadow.end.rmse / primary.end.rmse
    return Difference(1.0 / RADIUS_FACTOR <= ratio <= RADIUS_FACTOR, {"radius_ratio": ratio})


def _gain(outcome: SearchOutcome, target: int) -> float:
    before, after = softmax(outcome.logits_before), softmax(outcome.logits_after)
    return float(after[target] - before[target])


def _cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """The cosine between two perturbations; 0 where one of them is zero."""
    size = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(np.vdot(first, second)) / size if size > 0.0 else 0.0


async def _search(
    shadow: ServedModel, items: Sequence[SearchItem], arrays: Arrays, slot: Slot
) -> list[SearchOutcome]:
    options = SearchOptions(
        tenant=_TENANT, priority=Priority.REPORT, allows_partial=False, uses_cache=False
    )
    digest = shadow.details.model.weights_digest
    with shadow.search_pool.group(items, arrays, options, slot, digest) as group:
        return [one.outcome for one in await group.results()]


def _check_comparable(primary: ServedModel, shadow: ServedModel) -> None:
    """Raises: ValueError: classes or input differ, so that results cannot be compared."""
    for field in ("classes", "input"):
        if getattr(primary.details, field) != getattr(shadow.details, field):
            raise ValueError(f"{field}: {shadow.name} has others than {primary.name}")


def _rounded(difference: Difference) -> dict[str, float]:
    return {measure: round(value, 6) for measure, value in difference.measures.items()}
