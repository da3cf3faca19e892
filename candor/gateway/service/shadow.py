"""Asks another version what the primary was asked, behind everybody's back, and compares.

No caller waits for it, pays for it or hears of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.observability.metrics import Metrics, ShadowMeasure, ShadowOutcome, ShadowVerb
from candor.gateway.scheduling.jobs import SearchResult
from candor.gateway.service.concurrency import ConcurrencyLimiter, Slot
from candor.gateway.service.models import Served, ServedModels
from candor.gateway.service.responses import softmax
from candor.gateway.service.search_pool import Found, Terms
from candor.images import pixels
from candor.terms import SearchStatus

GAIN_TOLERANCE = 0.1  # of the target's confidence: explanations that differ by more disagree
RADIUS_FACTOR = 2.0  # radii that differ by more disagree
MAX_IN_FLIGHT = 4  # requests; those beyond are skipped
_MAX_SEARCHES = 4  # of one request: an explanation may have 64
_SECONDS = 120.0  # for one comparison; it waits behind every caller
# No tenant can have it: a name has no space.  So nobody's quota is charged, nobody's turn is taken.
_TENANT = "in shadow"
_log = logging.getLogger("gateway.shadow")


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that its model has answered.

    Attributes:
        key: of the request, see `candor.gateway.service.routing`.
        image: the decoded image, (C, H, W) float32 in [0, 1].
    """

    model: Served
    key: bytes
    request_id: str
    image: pixels.Pixels


class Difference(NamedTuple):
    """What the shadow's answer is beside the primary's; measures as in the gateway's metrics."""

    agrees: bool
    measures: dict[ShadowMeasure, float]


_Ask = Callable[[Served, Slot], Awaitable[list[Difference]]]


class Shadows:
    """Comparisons under way; make and use it inside one event loop."""

    def __init__(self, models: ServedModels, metrics: Metrics) -> None:
        self._models = models
        self._metrics = metrics
        self._limiter = ConcurrencyLimiter(MAX_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def predicted(self, answered: Answered, logits: NDArray[np.float32]) -> None:
        """A prediction was answered with these logits (V,)."""

        async def ask(shadow: Served, slot: Slot) -> list[Difference]:
            other = await self._models.logits(shadow.name, answered.image)
            return [compare_predictions(logits, other)]

        self._begin("predict", answered, ask)

    def explained(
        self, answered: Answered, items: Sequence[SearchItem], found: Sequence[Found]
    ) -> None:
        """An explanation was answered with what was found for each item."""
        self._begin_searches("explain", answered, items, found)

    def probed(
        self, answered: Answered, items: Sequence[SearchItem], found: Sequence[Found]
    ) -> None:
        """The same of a probe."""
        self._begin_searches("probe", answered, items, found)

    async def close(self) -> None:
        """Drops every comparison under way and begins no more."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin_searches(
        self,
        verb: Literal["explain", "probe"],
        answered: Answered,
        items: Sequence[SearchItem],
        found: Sequence[Found],
    ) -> None:
        asked, primary = items[:_MAX_SEARCHES], [one.result for one in found[:_MAX_SEARCHES]]

        async def ask(shadow: Served, slot: Slot) -> list[Difference]:
            terms = Terms(
                tenant=_TENANT, priority=Priority.REPORT, allows_partial=False, uses_cache=False
            )
            digest = shadow.details.model.weights_digest
            with shadow.search_pool.order(asked, answered.image, terms, slot, digest) as order:
                others = [one.result for one in await order.results()]
            trios = zip(asked, primary, others, strict=True)
            if verb == "probe":
                return [compare_radii(one, other) for _, one, other in trios]
            return [
                compare_explanations(answered.image, item.target, one, other)
                for item, one, other in trios
            ]

        # The best of half a search is no measure of a version.
        self._begin(verb, answered, ask, skips=any(one.is_partial for one in primary))

    def _begin(
        self, verb: ShadowVerb, answered: Answered, ask: _Ask, *, skips: bool = False
    ) -> None:
        name = self._models.routes.shadow_of(answered.model.name, answered.key)
        if name is None or self._is_closed:
            return
        if skips or self._limiter.taken >= MAX_IN_FLIGHT:
            self._metrics.shadow_ended(name, verb, "skipped")
            return
        task = asyncio.create_task(self._compare(verb, name, answered, ask, self._limiter.take()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(
        self, verb: ShadowVerb, name: str, answered: Answered, ask: _Ask, slot: Slot
    ) -> None:
        differences: list[Difference] = []
        reason = ""
        try:
            async with asyncio.timeout(_SECONDS):
                shadow = self._models.find(name)
                _check_comparable(answered.model, shadow)
                differences = await ask(shadow, slot)
            outcome: ShadowOutcome = "agree" if all(d.agrees for d in differences) else "disagree"
        except Exception as err:  # whatever it is, only the operator hears of it
            has_no_room = isinstance(err, ServiceError) and err.code is ErrorCode.OVERLOADED
            outcome = "skipped" if has_no_room else "failed"
            reason = f"{type(err).__name__}: {err}"[:200]
        finally:
            slot.drop()
        self._tell(verb, name, answered, outcome, differences, reason)

    def _tell(
        self,
        verb: ShadowVerb,
        name: str,
        answered: Answered,
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
    """Of two logits (V,): they agree on the strongest class."""
    largest = float(np.abs(softmax(primary) - softmax(shadow)).max())
    return Difference(bool(primary.argmax() == shadow.argmax()), {"confidence": largest})


def compare_explanations(
    image: NDArray[np.float32], target: int, primary: SearchResult, shadow: SearchResult
) -> Difference:
    """Of one image (C, H, W): the target gains as much confidence, within `GAIN_TOLERANCE`."""
    gain = abs(_gain(primary, target) - _gain(shadow, target))
    measures: dict[ShadowMeasure, float] = {
        "gain": gain,
        "rmse": abs(primary.end.rmse - shadow.end.rmse),
        "cosine": _cosine(primary.image - image, shadow.image - image),
    }
    return Difference(gain <= GAIN_TOLERANCE, measures)


def compare_radii(primary: SearchResult, shadow: SearchResult) -> Difference:
    """Both ended alike, and where both found a radius they are within `RADIUS_FACTOR`."""
    if primary.end.status is not shadow.end.status:
        return Difference(False, {})
    if primary.end.status is not SearchStatus.FOUND or primary.end.rmse == 0.0:
        return Difference(True, {})
    ratio = shadow.end.rmse / primary.end.rmse
    return Difference(1.0 / RADIUS_FACTOR <= ratio <= RADIUS_FACTOR, {"radius_ratio": ratio})


def _gain(result: SearchResult, target: int) -> float:
    before, after = softmax(result.logits_before), softmax(result.logits_after)
    return float(after[target] - before[target])


def _cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Of two perturbations; 0 where one is nothing."""
    size = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(np.vdot(first, second)) / size if size > 0.0 else 0.0


def _check_comparable(primary: Served, shadow: Served) -> None:
    """Raises: ValueError: one's answer means nothing to the other."""
    for field in ("classes", "input"):
        if getattr(primary.details, field) != getattr(shadow.details, field):
            raise ValueError(f"{field}: {shadow.name} has others than {primary.name}")


def _rounded(difference: Difference) -> dict[str, float]:
    return {measure: round(value, 6) for measure, value in difference.measures.items()}
