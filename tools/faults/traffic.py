"""Requests in a steady stream, every answer looked at."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ServiceError
from candor.images.encode import png_of

EXPLAINING, PREDICTING = 4, 2  # callers, each with one request at a time
STEPS = 25
RHO = 0.1
_TARGET = api.ClassRef(index=3)
_PATIENCE_SECONDS = 150.0  # of one caller
_MAX_ATTEMPTS = 60
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Answer:
    """One good answer; times of `time.monotonic`."""

    verb: str
    begun: float
    ended: float


def picture(seed: int) -> api.ImageInput:
    """A PNG of 32 x 32 pixels, the same for the same seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return api.ImageInput(encoded=png_of(Image.fromarray(pixels)))


def explain_request(seed: int, model: str = "", steps: int = STEPS) -> api.ExplainRequest:
    return api.ExplainRequest(
        model=model,
        image=picture(seed),
        targets=(_TARGET,),
        rhos=(RHO,),
        steps=steps,
        no_cache=True,
    )


def explain_complaint(answer: api.ExplainResponse) -> str:
    """What is wrong with an explanation; nothing where nothing is."""
    (found,) = answer.explanations
    if found.rmse > RHO or found.target.index != _TARGET.index:
        return f"explain: got class {found.target.index} at RMSE {found.rmse}"
    if not found.confidence_after > found.confidence_before:
        return f"explain: {found.confidence_before} became {found.confidence_after}"
    return ""


class Traffic:
    """Callers that ask one thing after another until the block ends; they retry as clients do.

    Args:
        address: of the gateway, or of several as gRPC writes them.
        model: empty for the default.
    Attributes:
        complaints: requests lost, in words.
    """

    def __init__(self, address: str, model: str = "") -> None:
        self._client = CandorClient(
            address, timeout_seconds=_PATIENCE_SECONDS, max_attempts=_MAX_ATTEMPTS
        )
        self._model = model
        self._answers: list[Answer] = []
        self.complaints: list[str] = []
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(name, call, number), daemon=True)
            for name, call, count in (
                ("explain", self._explain, EXPLAINING),
                ("predict", self._predict, PREDICTING),
            )
            for number in range(count)
        ]
        self._usual: dict[int, int] = {}

    def __enter__(self) -> Self:
        for seed in range(PREDICTING):
            self._usual[seed] = self._strongest(seed)
        for thread in self._threads:
            thread.start()
        self.wait_for_answers(time.monotonic(), _PATIENCE_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    @property
    def tried(self) -> int:
        return len(self._answers) + len(self.complaints)

    def wait_for_answers(self, since: float, limit_seconds: float) -> float:
        """Seconds until every verb has answered a request that came after ``since``.

        Infinite where one did not within ``limit_seconds``.
        """
        while time.monotonic() < since + limit_seconds:
            firsts = [self._first(verb, since) for verb in ("explain", "predict")]
            if None not in firsts:
                return max(first for first in firsts if first is not None) - since
            time.sleep(_LOOK_SECONDS)
        return float("inf")

    def _first(self, verb: str, since: float) -> float | None:
        with self._lock:
            ended = [one.ended for one in self._answers if one.verb == verb and one.begun >= since]
        return min(ended, default=None)

    def _ask(self, verb: str, call: Callable[[int], str], number: int) -> None:
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                complaint = call(number)
            except ServiceError as err:
                complaint = f"{verb}: {err.code} {err}"
            with self._lock:
                if complaint:
                    self.complaints.append(complaint)
                else:
                    self._answers.append(Answer(verb, begun, time.monotonic()))

    def _explain(self, number: int) -> str:
        return explain_complaint(self._client.explain(explain_request(number, self._model)))

    def _predict(self, number: int) -> str:
        strongest = self._strongest(number)
        if strongest == self._usual[number]:
            return ""
        return f"predict: got class {strongest}, before the fault {self._usual[number]}"

    def _strongest(self, seed: int) -> int:
        request = api.PredictRequest(model=self._model, image=picture(seed))
        return self._client.predict(request).predictions[0].index
