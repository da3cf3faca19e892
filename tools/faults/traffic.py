"""Requests in a steady stream; every response is checked."""

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

EXPLAINING, PREDICTING = 4, 2  # clients, each with one request at a time
SOLVER = "paper"  # takes every step that is asked for, so that a search lasts
STEPS = 25
RHO = 0.1
_TARGET = api.ClassRef(index=3)
_PATIENCE_SECONDS = 150.0  # of one client
_MAX_ATTEMPTS = 60
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class GoodResponse:
    """One correct response; times of `time.monotonic`."""

    verb: str
    begun: float
    ended: float


def image(seed: int) -> api.ImageInput:
    """A PNG of 32 x 32 pixels, the same for the same seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return api.ImageInput(encoded=png_of(Image.fromarray(pixels)))


def explain_request(seed: int, model: str = "", steps: int = STEPS) -> api.ExplainRequest:
    return api.ExplainRequest(
        model=model,
        image=image(seed),
        targets=(_TARGET,),
        rhos=(RHO,),
        steps=steps,
        solver=SOLVER,
        no_cache=True,
    )


def explain_complaint(response: api.ExplainResponse) -> str:
    """What is wrong with an explanation; empty where it is correct."""
    (found,) = response.explanations
    if found.rmse > RHO or found.target.index != _TARGET.index:
        return f"explain: got class {found.target.index} at RMSE {found.rmse}"
    if not found.confidence_after > found.confidence_before:
        return f"explain: {found.confidence_before} became {found.confidence_after}"
    return ""


class Traffic:
    """Clients that send one request after another until the block ends, with the usual retries.

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
        self._responses: list[GoodResponse] = []
        self.complaints: list[str] = []
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._call, args=(name, call, number), daemon=True)
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
        self.wait_for_responses(time.monotonic(), _PATIENCE_SECONDS)
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
        return len(self._responses) + len(self.complaints)

    def wait_for_responses(self, since: float, limit_seconds: float) -> float:
        """Seconds until every verb has responded to a request sent after ``since``.

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
            ended = [
                one.ended for one in self._responses if one.verb == verb and one.begun >= since
            ]
        return min(ended, default=None)

    def _call(self, verb: str, call: Callable[[int], str], number: int) -> None:
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
                    self._responses.append(GoodResponse(verb, begun, time.monotonic()))

    def _explain(self, number: int) -> str:
        return explain_complaint(self._client.explain(explain_request(number, self._model)))

    def _predict(self, number: int) -> str:
        strongest = self._strongest(number)
        if strongest == self._usual[number]:
            return ""
        return f"predict: expected class {self._usual[number]} as before the fault, got {strongest}"

    def _strongest(self, seed: int) -> int:
        request = api.PredictRequest(model=self._model, image=image(seed))
        return self._client.predict(request).predictions[0].index
