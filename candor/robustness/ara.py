"""Accuracy-robustness area, its interval, and accuracies.  (III-A)

A *radius* is the smallest RMSE on the [0, 1] pixel scale at which one image is no longer classified
correctly (attack) or better than at random (BTR); 0 where it never was.  Where the search found
nothing the radius is unknown: its largest visited RMSE stands in, which makes every area computed
from it a lower bound, and the result says for how many images that was so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

CONFIDENCE = 0.95
RESAMPLE_COUNT = 2000
_CHUNK_ELEMENTS = 2_000_000  # of one resampled matrix: 16 MB of float64

FloatArray = NDArray[np.float64]
# Of the last axis, as `np.mean` and `np.median` are called.
Statistic = Callable[..., FloatArray]
IndexArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A measured number between the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianRadius:
    """Median attack radius, RMSE, of ``image_count`` images that were classified correctly."""

    interval: Interval
    image_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AraResult:
    """An accuracy-robustness area, in RMSE.

    Attributes:
        value: exact area; a lower bound if ``unresolved_count`` is not 0.
        low, high: 95 % percentile bootstrap over the images, ``naive`` held fixed.
        image_count: N, images that were already wrong included.
        unresolved_count: images whose radius is only a lower bound.
        naive: accuracy of always naming the most frequent class, [0, 1].
    """

    value: float
    low: float
    high: float
    image_count: int
    unresolved_count: int
    naive: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """ARA of model a minus ARA of model b on the same images, in RMSE.

    Attributes:
        value: the difference; positive where a is the more robust.
        low, high: 95 % percentile bootstrap, the same images drawn for both.
        image_count: N.
        naive: as in `AraResult`.
    """

    value: float
    low: float
    high: float
    image_count: int
    naive: float


def accuracy_robustness_area(
    radii: ArrayLike,
    *,
    naive: float,
    generator: Generator,
    is_unresolved: ArrayLike | None = None,
    resample_count: int = RESAMPLE_COUNT,
) -> AraResult:
    """Exact area of max(0, accuracy(r) - naive) over r >= 0.  (arXiv 1906.02896, III-A1)

    accuracy(r) is the share of images whose radius exceeds r, a step function, so the area is a
    weighted sum of the sorted radii: no histogram (as in the authors' code) and no trapezoid.

    Args:
        radii: (N,) float, finite, RMSE; 0 for images already wrong, the lower bound for unresolved.
        naive: see `naive_accuracy`, [0, 1].
        generator: source of the bootstrap's draws.
        is_unresolved: (N,) bool, images whose radius is a lower bound; None for none.
        resample_count: bootstrap resamples, >= 1.
    Raises:
        ValueError: an argument is out of range; the message names it.
    """
    distances = _checked_radii("radii", radii)
    unresolved = np.zeros(len(distances), dtype=np.bool_)
    if is_unresolved is not None:
        unresolved = _checked_flags("is_unresolved", is_unresolved, len(distances))
    _check_fraction("naive", naive)
    _check_count("resample_count", resample_count)
    low, high = _percentiles(
        np.concatenate(
            [
                areas(distances[chosen], naive)
                for chosen in _resamples(len(distances), resample_count, generator)
            ]
        )
    )
    return AraResult(
        value=float(areas(distances, naive)),
        low=low,
        high=high,
        image_count=len(distances),
        unresolved_count=int(unresolved.sum()),
        naive=float(naive),
    )


def paired_difference(
    radii_a: ArrayLike,
    radii_b: ArrayLike,
    *,
    naive: float,
    generator: Generator,
    resample_count: int = RESAMPLE_COUNT,
) -> PairedDifference:
    """ARA of a minus ARA of b, with an interval that knows both saw the same images.

    Args:
        radii_a, radii_b: (N,) as in `accuracy_robustness_area`; row i is the same image in both.
        naive, generator, resample_count: as in `accuracy_robustness_area`.
    Raises:
        ValueError: an argument is out of range or the lengths differ.
    """
    a = _checked_radii("radii_a", radii_a)
    b = _checked_radii("radii_b", radii_b)
    if len(a) != len(b):
        raise ValueError(f"radii_b: expected {len(a)}, one for each image of radii_a, got {len(b)}")
    _check_fraction("naive", naive)
    _check_count("resample_count", resample_count)
    low, high = _percentiles(
        np.concatenate(
            [
                areas(a[chosen], naive) - areas(b[chosen], naive)
                for chosen in _resamples(len(a), resample_count, generator)
            ]
        )
    )
    value = float(areas(a, naive) - areas(b, naive))
    return PairedDifference(value=value, low=low, high=high, image_count=len(a), naive=float(naive))


def accuracy_curve(radii: ArrayLike, grid: ArrayLike) -> FloatArray:
    """Share of images whose radius exceeds each RMSE of ``grid``; for plots.  (Fig. 3)

    Args:
        radii: (N,) as in `accuracy_robustness_area`.
        grid: (G,) float, RMSE >= 0, in any order.
    Returns:
        (G,) float64 in [0, 1].
    """
    ordered = np.sort(_checked_radii("radii", radii))
    points = _checked_radii("grid", grid)
    return 1.0 - np.searchsorted(ordered, points, side="right") / len(ordered)


def naive_accuracy(labels: ArrayLike, class_count: int) -> float:
    """Share of the most frequent class: the baseline of both ARAs.  (III-A2)

    Args:
        labels: (N,) integers in [0, class_count).
        class_count: V, >= 1.
    Raises:
        ValueError: no labels, not integers, or a label outside its range.
    """
    _check_count("class_count", class_count)
    indices = np.asarray(labels)
    if indices.ndim != 1 or indices.size == 0 or indices.dtype.kind not in "iu":
        got = f"shape {indices.shape} of {indices.dtype}"
        raise ValueError(f"labels: expected (N,) integers, N >= 1, got {got}")
    for label in (indices.min(), indices.max()):
        if not 0 <= label < class_count:
            raise ValueError(f"labels: expected [0, {class_count - 1}], got {label}")
    return float(np.bincount(indices).max() / indices.size)


def accuracy_interval(correct: int, total: int) -> Interval:
    """Accuracy with its exact (Clopper-Pearson) 95 % interval.

    Args:
        correct: images classified correctly, [0, total].
        total: images, >= 1.
    """
    _check_count("total", total)
    if not 0 <= correct <= total:
        raise ValueError(f"correct: expected [0, {total}], got {correct}")
    bounds = binomtest(correct, total).proportion_ci(CONFIDENCE, method="exact")
    return Interval(value=correct / total, low=float(bounds.low), high=float(bounds.high))


def sample_interval(values: ArrayLike, statistic: Statistic, *, generator: Generator) -> Interval:
    """A mean or median with its 95 % percentile bootstrap interval.

    Args:
        values: (N,) float, N >= 1, finite.
        statistic: `np.mean`, `np.median` or another that takes ``axis``.
        generator: source of the bootstrap's draws.
    Raises:
        ValueError: no values, or one that is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError(f"values: expected (N,) finite numbers, N >= 1, got {sample}")
    low, high = _percentiles(
        np.concatenate(
            [
                statistic(sample[chosen], axis=-1)
                for chosen in _resamples(len(sample), RESAMPLE_COUNT, generator)
            ]
        )
    )
    return Interval(value=float(statistic(sample, axis=-1)), low=low, high=high)


def median_radius(
    radii: ArrayLike, *, is_correct: ArrayLike, is_unresolved: ArrayLike, generator: Generator
) -> MedianRadius | None:
    """The RMSE at which half of the right predictions have changed, by an attack.

    Images that were wrong as they came have no prediction to lose and do not count.

    Args:
        radii, is_unresolved: (N,) as in `accuracy_robustness_area`.
        is_correct: (N,) bool, images classified correctly as they came.
        generator: source of the bootstrap's draws.
    Returns:
        None where no image is classified correctly, or half of those are unresolved: then the
        median itself is not known.
    """
    distances = _checked_radii("radii", radii)
    chosen = _checked_flags("is_correct", is_correct, len(distances))
    unresolved = _checked_flags("is_unresolved", is_unresolved, len(distances)) & chosen
    if 2 * unresolved.sum() >= chosen.sum():
        return None
    interval = sample_interval(distances[chosen], np.median, generator=generator)
    return MedianRadius(interval=interval, image_count=int(chosen.sum()))


def areas(radii: FloatArray, naive: float) -> FloatArray:
    """Areas (...) of radii (..., N); every row is one data set.

    Between the sorted radii a_{i-1} and a_i the accuracy is (N - i)/N, so the area is
    sum_i (a_i - a_{i-1}) h_i with h_i = max(0, (N - i)/N - naive) and a_{-1} = 0.
    """
    count = radii.shape[-1]
    heights = np.maximum(0.0, np.arange(count, 0, -1) / count - naive)
    steps = np.diff(np.sort(radii, axis=-1), axis=-1, prepend=0.0)
    result: FloatArray = steps @ heights
    return result


def _resamples(count: int, resample_count: int, generator: Generator) -> Iterator[IndexArray]:
    """Draws of ``count`` images with replacement, (rows, count), until there are enough rows."""
    chunk = max(1, _CHUNK_ELEMENTS // count)
    for start in range(0, resample_count, chunk):
        rows = min(chunk, resample_count - start)
        yield generator.integers(count, size=(rows, count))


def _percentiles(values: FloatArray) -> tuple[float, float]:
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(values, (tail, 100.0 - tail))
    return float(low), float(high)


def _checked_radii(name: str, values: ArrayLike) -> FloatArray:
    radii = np.asarray(values, dtype=np.float64)
    if radii.ndim != 1 or radii.size == 0:
        raise ValueError(f"{name}: expected (N,), N >= 1, got shape {radii.shape}")
    is_bad = ~(np.isfinite(radii) & (radii >= 0.0))
    if is_bad.any():
        raise ValueError(
            f"{name}: expected [0, inf), got {radii[is_bad][0]}; "
            "an unresolved image enters with its lower bound"
        )
    return radii


def _checked_flags(name: str, values: ArrayLike, count: int) -> NDArray[np.bool_]:
    flags = np.asarray(values)
    if flags.shape != (count,) or flags.dtype != np.bool_:
        got = f"shape {flags.shape} of {flags.dtype}"
        raise ValueError(f"{name}: expected ({count},) bool, got {got}")
    return flags


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}: expected [0, 1], got {value!r}")


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: expected [1, inf), got {value!r}")
