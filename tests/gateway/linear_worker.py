"""A worker of the contract in plain numpy: a linear softmax model and a real, resumable search.

`LinearWorker` answers items; `LinearBackend` puts it behind the gateway's backend protocol and can
be told to fail, to wait and to remember what it was asked.
"""

import asyncio
import threading
from typing import Any

import numpy as np

from candor.contracts import wire
from candor.contracts.api import SearchStatus
from candor.contracts.card import InputCard, MetricCard, ModelCard, NetworkCard
from candor.contracts.worker import (
    ITEM_ADAPTER,
    CompareAnswer,
    CompareItem,
    DescribeAnswer,
    Goal,
    ItemError,
    PredictAnswer,
    SearchEnd,
    SearchItem,
    SearchProgress,
)
from gateway.backend import WorkerDied, WorkerUnavailable

SHAPE = (3, 8, 6)  # height and width differ, so a swap of the two shows
CLASSES = ("cat", "dog", "frog", "ship", "truck")
STEP_RMSE = 0.01
POISON_SEED = 666  # a search with this seed is refused by the worker
DEADLY_SEED = 667  # and one with this seed kills it, each time
CARD = ModelCard(
    name="linear",
    version="1.2",
    description="five classes, linear",
    network=NetworkCard(
        architecture="linear",
        activation="none",
        curvature=1.0,
        width_factor=1,
        class_count=len(CLASSES),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    ),
    input=InputCard(channels=SHAPE[0], height=SHAPE[1], width=SHAPE[2]),
    classes=CLASSES,
    recommended_rho=0.05,
    recipe={},
    metrics=(
        MetricCard(
            name="accuracy",
            value=0.9,
            low=0.88,
            high=0.92,
            image_count=1000,
            data="made/up",
            method="counted",
        ),
    ),
    code_version="0.1.0",
    weights_sha256="ab" * 32,
)
_WEIGHTS = np.random.default_rng(7).normal(0.0, 0.5, (len(CLASSES), int(np.prod(SHAPE))))


def logits_of(image: np.ndarray) -> np.ndarray:
    return (_WEIGHTS @ (image.astype(np.float64).ravel() - 0.5)).astype(np.float32)


def confidences_of(image: np.ndarray) -> np.ndarray:
    logits = logits_of(image).astype(np.float64)
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def rmse_between(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.sqrt(np.mean((first.astype(np.float64) - second) ** 2)))


class LinearWorker:
    """Stateless: everything a search needs travels with its item."""

    def answer(self, items: list[bytes]) -> list[bytes]:
        return [self._answer_one(item) for item in items]

    def _answer_one(self, message: bytes) -> bytes:
        try:
            meta, arrays = wire.unpack(message)
            item = ITEM_ADAPTER.validate_python(meta)
        except ValueError as err:
            return _packed(ItemError(field="item", message=str(err)))
        if item.kind == "describe":
            return _packed(DescribeAnswer(card=CARD))
        if item.kind == "predict":
            return _packed(PredictAnswer(), {"logits": logits_of(arrays["image"])})
        if item.seed == POISON_SEED:
            return _packed(ItemError(field="seed", message="got 666, allowed any other"))
        if item.kind == "compare":
            return _compared(item)
        return _search(item, arrays["image"], arrays.get("current", arrays["image"]))


def _packed(meta: Any, arrays: dict[str, np.ndarray] | None = None) -> bytes:
    return wire.pack(meta.model_dump(mode="json"), arrays)


def _compared(item: CompareItem) -> bytes:
    """The gradient for every method: a linear model's is the same wherever it is asked."""
    saliency = np.abs(_WEIGHTS[item.target]).reshape(SHAPE).max(axis=0).astype(np.float32)
    scores = CompareAnswer(top_share=0.2, energy_share=0.3, rank_correlation=1.0, cosine=1.0)
    return _packed(scores, {"saliency": saliency, "perturbed_saliency": saliency})


def _search(item: SearchItem, image: np.ndarray, current: np.ndarray) -> bytes:
    if item.step == 0 and item.goal in (Goal.ATTACK, Goal.BTR) and _holds(item, image):
        return _ended(item, SearchStatus.ALREADY_WRONG, 0, image, image)
    step = item.step
    for _ in range(min(item.chunk_steps, item.step_count - item.step)):
        current = _stepped(item, image, current)
        step += 1
        if item.goal in (Goal.ATTACK, Goal.BTR) and _holds(item, current):
            return _ended(item, SearchStatus.FOUND, step, image, current)
    if step < item.step_count and item.chunk_steps > 0:
        progress = SearchProgress(
            step=step,
            best_rmse=rmse_between(current, image),
            best_confidence=float(confidences_of(current)[item.target]),
        )
        return _packed(progress, {"image": image, "current": current, "best": current})
    is_found = item.goal not in (Goal.ATTACK, Goal.BTR)
    status = SearchStatus.FOUND if is_found else SearchStatus.UNRESOLVED
    return _ended(item, status, step, image, current)


def _holds(item: SearchItem, image: np.ndarray) -> bool:
    confidences = confidences_of(image)
    if item.goal is Goal.ATTACK:
        return int(confidences.argmax()) != item.target
    return bool(confidences[item.target] < 1.0 / len(CLASSES))


def _stepped(item: SearchItem, image: np.ndarray, current: np.ndarray) -> np.ndarray:
    gradient = (_WEIGHTS[item.target] - confidences_of(current) @ _WEIGHTS).reshape(SHAPE)
    sign = 1.0 if item.goal is Goal.EXPLAIN_FOR else -1.0
    moved = current + sign * STEP_RMSE * gradient / np.sqrt(np.mean(gradient**2))
    delta = np.clip(moved, 0.0, 1.0) - image
    size = np.sqrt(np.mean(delta**2))
    if size > item.rho:
        delta *= 0.9999 * item.rho / size  # float32 may round up
    return (image + delta).astype(np.float32)


def _ended(
    item: SearchItem, status: SearchStatus, steps: int, image: np.ndarray, current: np.ndarray
) -> bytes:
    rmse = rmse_between(current, image)
    end = SearchEnd(
        status=status,
        rmse=rmse,
        lower_bound=rmse if status is SearchStatus.UNRESOLVED else None,
        steps=steps,
        solver=item.solver,
    )
    arrays = {
        "image": current,
        "logits_before": logits_of(image),
        "logits_after": logits_of(current),
    }
    return _packed(end, arrays)


class LinearBackend:
    """The worker in this process.

    Attributes:
        failures_left: search calls to answer with WorkerUnavailable.
        call_seconds: how long a search call takes.
        search_calls: the items of every search call that was answered.
        started: set when the first search call arrives.
        flying, most_flying: search calls now, and the most there were at once.
        death_count: times a search with `DEADLY_SEED` killed the worker.
    """

    def __init__(self, call_seconds: float = 0.0) -> None:
        self._worker = LinearWorker()
        self.failures_left = 0
        self.call_seconds = call_seconds
        self.search_calls: list[list[SearchItem | CompareItem]] = []
        self.started = threading.Event()
        self.flying = self.most_flying = 0
        self.death_count = 0

    async def call(self, model: str, role: str, items: list[bytes]) -> list[bytes]:
        if role == "predict":
            return self._worker.answer(items)
        self.started.set()
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            await asyncio.sleep(self.call_seconds)
            return self._search(items)
        finally:
            self.flying -= 1

    def _search(self, items: list[bytes]) -> list[bytes]:
        if self.failures_left > 0:
            self.failures_left -= 1
            raise WorkerUnavailable("Worker died.")
        searches = [ITEM_ADAPTER.validate_python(wire.unpack(item)[0]) for item in items]
        if any(search.seed == DEADLY_SEED for search in searches):
            self.death_count += 1
            raise WorkerDied("Worker died.")
        self.search_calls.append(searches)
        return self._worker.answer(items)
