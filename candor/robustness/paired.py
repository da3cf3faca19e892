"""Two models on the same images: is the difference more than chance?

Companions of `candor.robustness.ara.paired_difference`, which gives the interval of an ARA.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from candor.robustness.ara import CONFIDENCE, RESAMPLE_COUNT, areas, paired_difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What model a has more than model b, measured on the same images.

    Attributes:
        value: a minus b.
        low, high: 95 % percentile bootstrap over the images, the same drawn for both.
        p_value: two-sided, of so large a difference if the models were exchangeable image by image.
    """

    value: float
    low: float
    high: float
    p_value: float


def accuracy_difference(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    generator: Generator,
    resample_count: int = RESAMPLE_COUNT,
) -> Difference:
    """Difference of two accuracies; p by McNemar's exact test.

    Args:
        correct_a, correct_b: (N,) bool; entry i is the same image in both.
        generator: source of the bootstrap's draws.
    Raises:
        ValueError: not bool, empty, or of different lengths.
    """
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    for name, values in (("correct_a", a), ("correct_b", b)):
        if values.ndim != 1 or values.size == 0 or values.dtype != np.bool_:
            got = f"shape {values.shape} of {values.dtype}"
            raise ValueError(f"{name}: expected (N,) bool, N >= 1, got {got}")
    if len(a) != len(b):
        raise ValueError(f"correct_b: expected the {len(a)} images of correct_a, got {len(b)}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    count = len(a)
    # A resample draws each image alike, so only how often each kind is drawn matters.
    shares = np.array([only_a, only_b, count - only_a - only_b]) / count
    draws = generator.multinomial(count, shares, size=resample_count)
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / count, (tail, 100.0 - tail))
    discordant = only_a + only_b
    return Difference(
        value=(only_a - only_b) / count,
        low=float(low),
        high=float(high),
        p_value=float(binomtest(only_a, discordant).pvalue) if discordant else 1.0,
    )


def area_difference(
    radii_a: ArrayLike,
    radii_b: ArrayLike,
    *,
    naive: float,
    generator: Generator,
    resample_count: int = RESAMPLE_COUNT,
) -> Difference:
    """Difference of two ARAs; p by swapping the models of images at random.

    With R swaps the smallest p is 1 / (R + 1).

    Args:
        radii_a, radii_b, naive: as in `paired_difference`.
        generator: source of the bootstrap's draws and of the swaps.
        resample_count: bootstrap resamples and swaps, >= 1.
    Raises:
        ValueError: see `paired_difference`.
    """
    measured = paired_difference(
        radii_a, radii_b, naive=naive, generator=generator, resample_count=resample_count
    )
    a, b = np.asarray(radii_a, np.float64), np.asarray(radii_b, np.float64)
    as_extreme = 0
    for _ in range(resample_count):
        is_swapped = generator.random(len(a)) < 0.5
        first, second = np.where(is_swapped, [b, a], [a, b])
        swapped = float(areas(first, naive) - areas(second, naive))
        # Rounding must not make the observed difference less extreme than itself.
        as_extreme += abs(swapped) >= abs(measured.value) * (1.0 - 1e-12)
    return Difference(
        value=measured.value,
        low=measured.low,
        high=measured.high,
        p_value=(1 + as_extreme) / (1 + resample_count),
    )
