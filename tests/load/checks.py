"""What must be true of an answer that says OK.

Each check raises `WrongAnswer` with what it got and what is allowed.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from candor.contracts import api

_TOLERANCE = 1e-4  # of float32 sums and of RMSE


class WrongAnswer(Exception):
    """An answer that says OK and is not."""


def check_prediction(answer: api.PredictResponse, class_count: int) -> None:
    """All classes were asked for: each once, strongest first, and together 1."""
    indices = [one.index for one in answer.predictions]
    _expect(sorted(indices) == list(range(class_count)), f"classes: got {indices}")
    _check_order(answer.predictions)
    total = math.fsum(one.confidence for one in answer.predictions)
    _expect(abs(total - 1.0) <= _TOLERANCE, f"sum of confidences: got {total}, allowed 1")


def check_explanation(
    request: api.ExplainRequest, picture: NDArray[np.uint8], answer: api.ExplainResponse
) -> None:
    """One for each pair in order, none further from ``image`` (H, W, 3) than its rho."""
    asked = [(target.index, rho) for target in request.targets for rho in request.rhos]
    told = [(one.target.index, one.rho) for one in answer.explanations]
    _expect(told == asked, f"pairs: got {told}, allowed {asked}")
    for one in answer.explanations:
        _expect(one.direction == request.direction, f"direction: got {one.direction}")
        _expect(one.rmse <= one.rho + _TOLERANCE, f"rmse: got {one.rmse}, allowed {one.rho}")
        real = _rmse(picture, one.image_png)
        _expect(real <= one.rho + _TOLERANCE, f"RMSE of the picture: got {real}")
        gain = one.confidence_after - one.confidence_before
        _expect(gain >= -_TOLERANCE, f"gain of confidence: got {gain}, allowed none below 0")
        _check_order(one.predictions_after)


def check_probe(
    request: api.ProbeRequest, picture: NDArray[np.uint8], answer: api.ProbeResponse
) -> None:
    """One for each goal in order; a radius is that of its image."""
    told = [one.goal for one in answer.results]
    _expect(told == list(request.goals), f"goals: got {told}, allowed {list(request.goals)}")
    for one in answer.results:
        if one.radius is not None:
            real = _rmse(picture, one.image_png)
            _expect(real <= one.radius + _TOLERANCE, f"RMSE: got {real}, allowed {one.radius}")


def _check_order(classes: Sequence[api.ClassConfidence]) -> None:
    told = [one.confidence for one in classes]
    _expect(told == sorted(told, reverse=True), f"confidences: got {told}, allowed falling ones")


def _rmse(picture: NDArray[np.uint8], png: bytes) -> float:
    with Image.open(io.BytesIO(png)) as opened:
        other = np.asarray(opened.convert("RGB"))
    _expect(other.shape == picture.shape, f"shape: got {other.shape}, allowed {picture.shape}")
    return float(np.sqrt(np.mean((picture.astype(np.float64) - other) ** 2)) / 255.0)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise WrongAnswer(otherwise)
