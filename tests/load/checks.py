"""What must be true of a response that says OK.

Each check raises `WrongResponse` with what was expected and what came.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from candor.contracts import api

_TOLERANCE = 1e-4  # of float32 sums and of RMSE


class WrongResponse(Exception):
    """A response that says OK and breaks the contract."""


def check_prediction(response: api.PredictResponse, class_count: int) -> None:
    """All classes were requested: each comes once, the strongest first, and the sum is 1."""
    indices = [one.index for one in response.predictions]
    _expect(
        sorted(indices) == list(range(class_count)), f"classes: expected each once, got {indices}"
    )
    _check_order(response.predictions)
    total = math.fsum(one.confidence for one in response.predictions)
    _expect(abs(total - 1.0) <= _TOLERANCE, f"sum of confidences: expected 1, got {total}")


def check_explanation(
    request: api.ExplainRequest, pixels: NDArray[np.uint8], response: api.ExplainResponse
) -> None:
    """One for each pair in order, none further from ``pixels`` (H, W, 3) than its rho."""
    expected = [(target.index, rho) for target in request.targets for rho in request.rhos]
    received = [(one.target.index, one.rho) for one in response.explanations]
    _expect(received == expected, f"pairs: expected {expected}, got {received}")
    for one in response.explanations:
        _expect(
            one.direction == request.direction,
            f"direction: expected {request.direction}, got {one.direction}",
        )
        _expect(
            one.rmse <= one.rho + _TOLERANCE, f"rmse: expected at most {one.rho}, got {one.rmse}"
        )
        real = _rmse(pixels, one.image_png)
        _expect(
            real <= one.rho + _TOLERANCE,
            f"RMSE of the image: expected at most {one.rho}, got {real}",
        )
        gain = one.confidence_after - one.confidence_before
        _expect(gain >= -_TOLERANCE, f"gain of confidence: expected at least 0, got {gain}")
        _check_order(one.predictions_after)


def check_probe(
    request: api.ProbeRequest, pixels: NDArray[np.uint8], response: api.ProbeResponse
) -> None:
    """One for each goal in order; a radius is that of its image."""
    goals = [one.goal for one in response.results]
    _expect(goals == list(request.goals), f"goals: expected {list(request.goals)}, got {goals}")
    for one in response.results:
        if one.radius is not None:
            real = _rmse(pixels, one.image_png)
            _expect(
                real <= one.radius + _TOLERANCE, f"RMSE: expected at most {one.radius}, got {real}"
            )


def _check_order(classes: Sequence[api.ClassConfidence]) -> None:
    values = [one.confidence for one in classes]
    _expect(
        values == sorted(values, reverse=True), f"confidences: expected falling ones, got {values}"
    )


def _rmse(pixels: NDArray[np.uint8], png: bytes) -> float:
    with Image.open(io.BytesIO(png)) as opened:
        other = np.asarray(opened.convert("RGB"))
    _expect(other.shape == pixels.shape, f"shape: expected {pixels.shape}, got {other.shape}")
    return float(np.sqrt(np.mean((pixels.astype(np.float64) - other) ** 2)) / 255.0)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise WrongResponse(otherwise)
