"""A worker of the contract in plain numpy: a linear softmax model and a real, resumable search.

`LinearWorker` answers items; `LinearBackend` puts it behind the gateway's backend protocol, can be
made to fail and to take time, and records its calls.
"""

import asyncio
import threading
from typing import Any

import numpy as np

from candor.contracts import wire
from candor.contracts.card import InputCard, MetricCard, ModelCard, NetworkCard
from candor.contracts.worker import (
    ITEM_ADAPTER,
    CompareAnswer,
    CompareItem,
    DescribeAnswer,
    ItemError,
    PredictAnswer,
    SearchEnd,
    SearchItem,
    SearchProgress,
)
from candor.gateway.clock import MONOTONIC, Clock
from candor.gateway.workers.protocol import WorkerDied, WorkerFault, WorkerUnavailable
from candor.terms import Goal, Norm, SearchStatus

SHAPE = (3, 8, 6)  # height and width differ, so a swap of the two shows
CLASSES = ("cat", "dog", "frog", "ship", "truck")
STEP_RMSE = 0.01
POISON_SEED = 666  # a search with this seed is rejected by the worker
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
        MetricCard(
            name="median_radius",
            value=0.0026,
            low=0.002,
            high=0.003,
            image_count=900,
            data="made/up",
            method="counted",
        ),
    ),
    code_version="0.1.0",
    weights_sha256="ab" * 32,
)
_WEIGHTS = np.random.default_rng(7).normal(0.0, 0.5, (len(CLASSES), int(np.prod(SHAPE))))


# By version: 1.3 is 1.2 over again, 2.0 takes every class for the next one.
WEIGHTS = {"1.2": _WEIGHTS, "1.3": _WEIGHTS, "2.0": np.roll(_WEIGHTS, 1, axis=0)}


def card_of(version: str) -> ModelCard:
    digest = f"{sum(map(ord, version)):064x}"
    return CARD.model_copy(update={"version": version, "weights_sha256": digest})


def logits_of(image: np.ndarray, weights: np.ndarray = _WEIGHTS) -> np.ndarray:
    return (weights @ (image.astype(np.float64).ravel() - 0.5)).astype(np.float32)


def confidences_of(image: np.ndarray, weights: np.ndarray = _WEIGHTS) -> np.ndarray:
    logits = logits_of(image, weights).astype(np.float64)
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def size_in(norm: Norm, delta: np.ndarray) -> float:
    change = np.abs(delta.astype(np.float64))
    if norm is Norm.LINF:
        return float(change.max())
    power = {Norm.L1: 1.0, Norm.L1_5: 1.5, Norm.L2: 2.0}[norm]
    return float(np.mean(change**power) ** (1 / power))


def rmse_between(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.sqrt(np.mean((first.astype(np.float64) - second) ** 2)))


class LinearWorker:
    """Stateless: everything a search needs travels with its item."""

    def __init__(self, card: ModelCard = CARD) -> None:
        self._card = card
        self._weights = WEIGHTS[card.version]

    def answer(self, items: list[bytes]) -> list[bytes]:
        return [self._answer_one(item) for item in items]

    def _answer_one(self, message: bytes) -> bytes:
        try:
            meta, arrays = wire.unpack(message)
            item = ITEM_ADAPTER.validate_python(meta)
        except ValueError as err:
            return _packed(ItemError(field="item", message=str(err)))
        if item.kind == "describe":
            return _packed(DescribeAnswer(card=self._card))
        if item.kind == "predict":
            return _packed(PredictAnswer(), {"logits": logits_of(arrays["image"], self._weights)})
        if item.seed == POISON_SEED:
            return _packed(ItemError(field="seed", message="expected any other, got 666"))
        if item.kind == "compare":
            return _compared(item, self._weights)
        image = arrays["image"]
        return _search(item, arrays, arrays.get("current", image), self._weights)


def _asks_for_description(items: list[bytes]) -> bool:
    return [wire.unpack(item)[0].get("kind") for item in items] == ["describe"]


def _packed(meta: Any, arrays: dict[str, np.ndarray] | None = None) -> bytes:
    return wire.pack(meta.model_dump(mode="json"), arrays)


def _compared(item: CompareItem, weights: np.ndarray) -> bytes:
    """The gradient for every method: a linear model's is the same at every image."""
    saliency = np.abs(weights[item.target]).reshape(SHAPE).max(axis=0).astype(np.float32)
    scores = CompareAnswer(top_share=0.2, energy_share=0.3, rank_correlation=1.0, cosine=1.0)
    return _packed(scores, {"saliency": saliency, "perturbed_saliency": saliency})


def _search(
    item: SearchItem, given: dict[str, np.ndarray], current: np.ndarray, weights: np.ndarray
) -> bytes:
    image = given["image"]
    if item.step == 0 and item.goal in (Goal.ATTACK, Goal.BTR) and _holds(item, image, weights):
        return _ended(item, SearchStatus.ALREADY_WRONG, 0, given, image, weights)
    step = item.step
    for _ in range(min(item.chunk_steps, item.step_count - item.step)):
        current = _stepped(item, given, current, weights)
        step += 1
        if item.goal in (Goal.ATTACK, Goal.BTR) and _holds(item, current, weights):
            return _ended(item, SearchStatus.FOUND, step, given, current, weights)
    if step < item.step_count and item.chunk_steps > 0:
        progress = SearchProgress(
            step=step,
            best_rmse=rmse_between(current, image),
            best_confidence=float(confidences_of(current, weights)[item.target]),
        )
        return _packed(progress, {"current": current, "best": current})
    is_found = item.goal not in (Goal.ATTACK, Goal.BTR)
    status = SearchStatus.FOUND if is_found else SearchStatus.UNRESOLVED
    return _ended(item, status, step, given, current, weights)


def _holds(item: SearchItem, image: np.ndarray, weights: np.ndarray) -> bool:
    confidences = confidences_of(image, weights)
    if item.goal is Goal.ATTACK:
        return int(confidences.argmax()) != item.target
    return bool(confidences[item.target] < 1.0 / len(CLASSES))


def _stepped(
    item: SearchItem, given: dict[str, np.ndarray], current: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    image = given["image"]
    rival = confidences_of(current, weights) @ weights
    if item.away_from is not None:
        rival = weights[item.away_from]
    gradient = (weights[item.target] - rival).reshape(SHAPE) * given.get("mask", 1.0)
    sign = 1.0 if item.goal is Goal.EXPLAIN_FOR else -1.0
    moved = current + sign * STEP_RMSE * gradient / np.sqrt(np.mean(gradient**2))
    delta = np.clip(moved, 0.0, 1.0) - image
    size = size_in(item.norm, delta)
    if size > item.rho:
        delta *= 0.9999 * item.rho / size  # float32 may round up
    return (image + delta).astype(np.float32)


def _ended(
    item: SearchItem,
    status: SearchStatus,
    steps: int,
    given: dict[str, np.ndarray],
    current: np.ndarray,
    weights: np.ndarray,
) -> bytes:
    image, mask = given["image"], given.get("mask")
    rmse, delta = rmse_between(current, image), current.astype(np.float64) - image
    end = SearchEnd(
        status=status,
        rmse=rmse,
        lower_bound=rmse if status is SearchStatus.UNRESOLVED else None,
        steps=steps,
        solver=item.solver,
        rho_1=size_in(Norm.L1, delta),
        rho_1_5=size_in(Norm.L1_5, delta),
        rho_inf=size_in(Norm.LINF, delta),
        rmse_inside=None if mask is None else size_in(Norm.L2, delta[:, mask > 0]),
        sparsity=float((np.abs(delta).max(axis=0) > 1 / 255).mean()),
    )
    arrays = {
        "image": current,
        "logits_before": logits_of(image, weights),
        "logits_after": logits_of(current, weights),
    }
    return _packed(end, arrays)


class LinearBackend:
    """A worker in this process for each model, ``linear`` or ``linear@VERSION``.

    Args:
        call_seconds: how long a search call takes, in the time of ``clock``,
        step_seconds: and how much longer for each step of a search in it.
        worker_count: search calls computed at once; the others wait.

    Attributes:
        calls: the model and the role of every call but those that ask what a search worker is.
        delays: seconds that calls to a model take in addition.
        broken: models whose workers answer nothing that can be read.
        failures_left: search calls to answer with WorkerUnavailable.
        call_seconds: how long a search call takes.
        search_calls: the items of every search call that was answered.
        started: set when the first search call arrives.
        in_flight, most_in_flight: search calls now, and the most there were at once.
        described: by role, what its worker says that it is; its card alone where none is given.
        death_count: times a search with `DEADLY_SEED` killed the worker.
    """

    def __init__(
        self,
        call_seconds: float = 0.0,
        *,
        step_seconds: float = 0.0,
        worker_count: int = 1,
        clock: Clock = MONOTONIC,
    ) -> None:
        self.clock = clock
        self._workers: dict[str, LinearWorker] = {}
        self._free = asyncio.Semaphore(worker_count)
        self.calls: list[tuple[str, str]] = []
        self.delays: dict[str, float] = {}
        self.broken: set[str] = set()
        self.failures_left = 0
        self.call_seconds = call_seconds
        self.step_seconds = step_seconds
        self.search_calls: list[list[SearchItem | CompareItem]] = []
        self.started = threading.Event()
        self.in_flight = self.most_in_flight = 0
        self.described: dict[str, DescribeAnswer] = {}
        self.death_count = 0

    async def call(self, model: str, role: str, items: list[bytes]) -> list[bytes]:
        is_asked = _asks_for_description(items)
        if role == "predict" or not is_asked:
            self.calls.append((model, role))
        await self.clock.sleep(self.delays.get(model, 0.0))
        if model in self.broken:
            raise WorkerFault("unreadable answer")
        worker = self._worker(model)
        if is_asked and role in self.described:
            return [_packed(self.described[role])]
        if role == "predict" or is_asked:
            return worker.answer(items)
        self.started.set()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            async with self._free:
                await self.clock.sleep(self._seconds(items))
                return self._search(items, worker)
        finally:
            self.in_flight -= 1

    def hold(self, model: str, version: str) -> None:
        """This version from now on, whatever the model is called."""
        self._workers[model] = LinearWorker(card_of(version))

    def _worker(self, model: str) -> LinearWorker:
        version = model.partition("@")[2]
        if model not in self._workers:
            self._workers[model] = LinearWorker(card_of(version) if version else CARD)
        return self._workers[model]

    def _seconds(self, items: list[bytes]) -> float:
        if not self.step_seconds:
            return self.call_seconds
        steps = sum(wire.unpack(item)[0].get("chunk_steps", 0) for item in items)
        return self.call_seconds + self.step_seconds * steps

    def _search(self, items: list[bytes], worker: LinearWorker) -> list[bytes]:
        if self.failures_left > 0:
            self.failures_left -= 1
            raise WorkerUnavailable("Worker died.")
        searches = [ITEM_ADAPTER.validate_python(wire.unpack(item)[0]) for item in items]
        if any(search.seed == DEADLY_SEED for search in searches):
            self.death_count += 1
            raise WorkerDied("Worker died.")
        self.search_calls.append(searches)
        return worker.answer(items)
