"""How true a network's probabilities are, and the temperature that makes them truest.

The softmax of logits y at temperature T is that of y / T.  A label t is then less likely than
chance where mean_j exp((y_j - y_t) / T) > 1, a power mean of exponent 1 / T: a higher temperature
never shrinks a BTR radius, and changes neither accuracy nor an attack's radius.  So a BTR ARA means
little without the temperature of the network that it was measured on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from candor.robustness.ara import CONFIDENCE, RESAMPLE_COUNT, Interval

BIN_COUNT = 15  # of Guo et al.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0
_HALVINGS = 60
_QUANTILE = 1.959964  # of the normal distribution, for 95 %

FloatArray = NDArray[np.float64]


class AtTemperature(nn.Module):
    """A network whose logits (B, V) are divided by ``temperature``."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature
        self.training = network.training
        if hasattr(network, "most_threads"):  # of a compiled one, see `candor.runtime.threads`
            self.most_threads = network.most_threads

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, V) of images (B, C, H, W)."""
        logits: Tensor = self.network(images)
        return logits / self.temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """The temperature of least negative log-likelihood on some labelled images.

    Attributes:
        value: T, in [`LOWEST_TEMPERATURE`, `HIGHEST_TEMPERATURE`].
        low, high: 95 % interval.
        image_count: images it was found on.
    """

    value: float
    low: float
    high: float
    image_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How true the probabilities are at one temperature.

    Attributes:
        nll: mean negative log-likelihood of the labels, nats.
        error: expected calibration error, [0, 1].
    """

    nll: float
    error: Interval


def fitted_temperature(logits: ArrayLike, labels: ArrayLike) -> Temperature:
    """The T > 0 that minimises the NLL of softmax(logits / T).  (Guo et al. 2017, 1706.04599, 4.2)

    The NLL is convex in b = 1/T, its derivative mean(sum_j p_j y_j - y_t), so b is found by halving
    an interval.  Its variance is that of an M-estimator (White 1982): the mean square of the terms
    of the derivative over N times the square of the mean variance of y under p.

    Args:
        logits: (N, V).     labels: (N,) integers in [0, V).
    Raises:
        ValueError: shapes or ranges; the message names the argument.
    """
    values, own = _checked(logits, labels)
    if not np.ptp(values, axis=1).any():  # every temperature gives the same answers
        return _temperature(1.0, np.inf, len(own))
    low, high = np.log(1 / HIGHEST_TEMPERATURE), np.log(1 / LOWEST_TEMPERATURE)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        terms, _ = _slopes(values, own, np.exp(middle))
        low, high = (middle, high) if terms.mean() <= 0.0 else (low, middle)
    inverse = float(np.exp(0.5 * (low + high)))
    terms, curvature = _slopes(values, own, inverse)
    deviation = float(np.sqrt(np.square(terms).mean() / len(own)))
    return _temperature(inverse, deviation / curvature if curvature > 0.0 else np.inf, len(own))


def _temperature(inverse: float, deviation: float, image_count: int) -> Temperature:
    """From 1/T and its standard deviation, infinite where the images say nothing."""
    spread = _QUANTILE * deviation
    ends = np.clip([inverse + spread, inverse - spread], 1 / HIGHEST_TEMPERATURE, None)
    low, high = np.maximum(1.0 / ends, LOWEST_TEMPERATURE).tolist()
    return Temperature(value=1.0 / inverse, low=low, high=high, image_count=image_count)


def calibration(
    logits: ArrayLike, labels: ArrayLike, *, temperature: float, generator: Generator
) -> Calibration:
    """NLL and calibration error of softmax(logits / temperature).

    Args:
        logits, labels: as in `fitted_temperature`.
        temperature: > 0.
        generator: source of the bootstrap's draws.
    """
    if not temperature > 0.0:
        raise ValueError(f"temperature: expected (0, inf), got {temperature!r}")
    values, own = _checked(logits, labels)
    log_shares = _log_softmax(values / temperature)
    return Calibration(
        nll=float(-log_shares[np.arange(len(own)), own].mean()),
        error=calibration_error(
            np.exp(log_shares.max(axis=1)), values.argmax(axis=1) == own, generator=generator
        ),
    )


def calibration_error(
    confidences: ArrayLike,
    is_correct: ArrayLike,
    *,
    generator: Generator,
    resample_count: int = RESAMPLE_COUNT,
) -> Interval:
    """Expected calibration error (ECE) in 15 bins of equal width.  (1706.04599, Eq. 3)

    ECE = sum_m |B_m| / N |accuracy(B_m) - mean confidence(B_m)|, B_m the images whose confidence is
    in ((m - 1) / 15, m / 15].  (Naeini et al. 2015.)  The interval is the spread of a bootstrap
    over the images, laid around the value: resampling alone makes a calibration error larger.

    Args:
        confidences: (N,) probability of the predicted class, [0, 1].
        is_correct: (N,) bool.
    Raises:
        ValueError: shapes or ranges.
    """
    shares = np.asarray(confidences, dtype=np.float64)
    flags = np.asarray(is_correct)
    if shares.ndim != 1 or shares.shape != flags.shape or shares.size == 0:
        raise ValueError(f"confidences: expected (N,) as is_correct, got {shares.shape}")
    if not bool(((shares >= 0.0) & (shares <= 1.0 + 1e-9)).all()):
        raise ValueError("confidences: expected [0, 1], got a number outside")
    bins = np.clip(np.ceil(shares * BIN_COUNT).astype(np.int64) - 1, 0, BIN_COUNT - 1)
    gaps, count = flags.astype(np.float64) - shares, len(shares)

    def error(chosen: NDArray[np.int64]) -> float:
        sums = np.bincount(bins[chosen], weights=gaps[chosen], minlength=BIN_COUNT)
        return float(np.abs(sums).sum() / count)

    value = error(np.arange(count))
    return _around(value, error, count, generator, resample_count)


def _around(
    value: float,
    statistic: Callable[[NDArray[np.int64]], float],
    count: int,
    generator: Generator,
    resample_count: int,
) -> Interval:
    drawn = [statistic(generator.integers(count, size=count)) for _ in range(resample_count)]
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(drawn, (tail, 100.0 - tail)) - np.mean(drawn)
    return Interval(value=value, low=max(0.0, value + float(low)), high=value + float(high))


def _slopes(values: FloatArray, own: NDArray[np.int64], inverse: float) -> tuple[FloatArray, float]:
    """(N,) terms of the NLL's derivative by b = 1/T, and its mean second derivative."""
    shares = np.exp(_log_softmax(values * inverse))
    means = (shares * values).sum(axis=1)
    variances = (shares * np.square(values - means[:, None])).sum(axis=1)
    return means - values[np.arange(len(own)), own], float(variances.mean())


def _log_softmax(values: FloatArray) -> FloatArray:
    shifted = values - values.max(axis=1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, NDArray[np.int64]]:
    values, own = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or min(values.shape) < 1 or not bool(np.isfinite(values).all()):
        raise ValueError(f"logits: expected finite (N, V), N >= 1, got shape {values.shape}")
    if own.shape != (len(values),) or own.dtype.kind not in "iu":
        raise ValueError(f"labels: expected ({len(values)},) integers, got {own.shape}")
    if own.min() < 0 or own.max() >= values.shape[1]:
        raise ValueError(f"labels: expected [0, {values.shape[1] - 1}], got one outside")
    return values, own.astype(np.int64)
