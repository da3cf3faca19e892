"""Accuracy-robustness area against hand-computed areas and a fine Riemann sum."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candor.robustness.ara import (
    accuracy_curve,
    accuracy_interval,
    accuracy_robustness_area,
    median_radius,
    naive_accuracy,
    paired_difference,
    sample_interval,
)

RADII = st.lists(st.integers(0, 64).map(lambda tick: tick / 64), min_size=1, max_size=40)


def area(radii, naive, **options):
    options = {"generator": np.random.default_rng(0), "resample_count": 8} | options
    return accuracy_robustness_area(radii, naive=naive, **options)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_equal_radii_give_a_rectangle(count):
    result = area([0.03] * count, 0.1)
    assert result.value == pytest.approx(0.9 * 0.03, rel=1e-12)
    assert (result.low, result.high) == pytest.approx((result.value, result.value))
    assert (result.image_count, result.unresolved_count, result.naive) == (count, 0, 0.1)


@pytest.mark.parametrize(
    ("radii", "naive", "expected"),
    [
        # accuracy 1 up to 0.1, then 1/2 up to 0.3
        ([0.1, 0.3], 0.25, 0.1 * 0.75 + 0.2 * 0.25),
        # the second step lies at the baseline: no area
        ([0.1, 0.3], 0.5, 0.1 * 0.5),
        # a wrong image lowers the whole curve
        ([0.0, 0.1, 0.3, 0.3], 0.1, 0.1 * (0.75 - 0.1) + 0.2 * (0.5 - 0.1)),
        # below the baseline from the start: never negative
        ([0.0, 0.0, 0.0, 5.0], 0.5, 0.0),
        ([0.0], 0.0, 0.0),
        ([0.2, 0.2], 1.0, 0.0),
        # a histogram up to the largest radius would put all but one image into one bin
        ([0.001] * 9 + [2.0], 0.1, 0.001 * 0.9),
    ],
)
def test_area_of_steps_is_exact(radii, naive, expected):
    assert area(radii, naive).value == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_area_without_baseline_is_the_mean_radius(rng):
    radii = rng.gamma(2.0, 0.01, 301)
    assert area(radii, 0.0).value == pytest.approx(radii.mean(), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(radii=RADII, naive=st.floats(0, 1))
def test_area_equals_a_fine_riemann_sum(radii, naive):
    width = 1 / 1024  # divides every radius, so that the midpoint sum is exact
    midpoints = np.arange(0, 1, width) + width / 2
    heights = np.array([np.mean(np.array(radii) > point) for point in midpoints])
    brute = np.maximum(0, heights - naive).sum() * width
    assert area(radii, naive).value == pytest.approx(brute, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(radii=RADII, naive=st.floats(0, 1), order=st.randoms())
def test_area_ignores_the_order_of_the_images(radii, naive, order):
    shuffled = list(radii)
    order.shuffle(shuffled)
    assert area(shuffled, naive).value == area(radii, naive).value


@settings(max_examples=40, deadline=None)
@given(radii=RADII, naive=st.floats(0, 1), scale=st.floats(0.125, 8))
def test_area_scales_with_the_radii(radii, naive, scale):
    scaled = area(np.array(radii) * scale, naive).value
    assert scaled == pytest.approx(scale * area(radii, naive).value, abs=1e-12)


def test_unresolved_image_counts_with_its_lower_bound():
    result = area([0.1, 0.2], 0.0, is_unresolved=[False, True])
    assert result.value == pytest.approx(0.15)
    assert result.unresolved_count == 1


def test_same_seed_gives_the_same_interval(rng):
    radii = rng.random(50)
    assert area(radii, 0.1, resample_count=50) == area(radii, 0.1, resample_count=50)


def test_radii_are_not_modified():
    radii = np.array([0.3, 0.1, 0.2])
    area(radii, 0.1)
    assert radii.tolist() == [0.3, 0.1, 0.2]


def test_result_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        area([0.1], 0.1).value = 1.0


def test_bootstrap_interval_covers_the_true_area_as_often_as_it_says(rng):
    # Uniform radii: accuracy(r) = 1 - r, so the area above 0.1 is 0.9^2 / 2.
    runs, covered = 300, 0
    for _ in range(runs):
        result = area(rng.random(120), 0.1, generator=rng, resample_count=250)
        covered += result.low <= 0.405 <= result.high
    assert 0.90 <= covered / runs <= 0.985


def test_bootstrap_interval_has_the_width_of_the_standard_error(rng):
    # Without a baseline the area is a mean; its interval is 2 x 1.96 sigma / sqrt(N) wide.
    radii = rng.normal(1.0, 0.1, 1000)
    result = area(radii, 0.0, generator=rng, resample_count=2000)
    assert result.high - result.low == pytest.approx(2 * 1.96 * 0.1 / 1000**0.5, rel=0.1)


def test_many_images_are_resampled_in_chunks(rng, monkeypatch):
    radii = rng.random(64)
    whole = area(radii, 0.1, resample_count=40)
    monkeypatch.setattr("candor.robustness.ara._CHUNK_ELEMENTS", 64 * 7)
    chunked = area(radii, 0.1, resample_count=40)
    assert chunked == whole


def test_median_of_an_odd_sample_has_the_ends_of_its_order_statistics(rng):
    values = np.arange(101.0)
    found = sample_interval(values, np.median, generator=rng)
    assert found.value == 50.0
    # Binomial: ranks 41 and 61 of 101 hold the median in 95 % of samples.
    assert (found.low, found.high) == pytest.approx((40.0, 60.0), abs=2.0)


def test_median_radius_is_of_the_right_predictions_and_only_where_it_is_known(rng):
    def of(is_correct, is_unresolved):
        return median_radius(
            [0.0, 0.1, 0.2, 0.3],
            is_correct=is_correct,
            is_unresolved=is_unresolved,
            generator=rng,
        )

    none = [False] * 4
    found = of([False, True, True, True], none)
    assert (found.interval.value, found.image_count) == (0.2, 3)
    assert of([False, True, True, True], [True, False, False, True]).image_count == 3
    assert of([True] * 4, [False, False, True, True]) is None
    assert of(none, none) is None


def test_paired_difference_is_the_difference_of_the_areas(rng):
    a, b = rng.random(80), rng.random(80)
    result = paired_difference(a, b, naive=0.1, generator=rng, resample_count=50)
    assert result.value == pytest.approx(area(a, 0.1).value - area(b, 0.1).value)
    assert (result.image_count, result.naive) == (80, 0.1)


def test_paired_difference_knows_that_the_images_are_the_same(rng):
    # b is a shifted by a constant: the difference is certain though the areas are not.
    a = rng.random(200)
    result = paired_difference(a + 0.5, a, naive=0.0, generator=rng)
    assert (result.low, result.high) == pytest.approx((0.5, 0.5))
    single = area(a, 0.0, generator=rng, resample_count=500)
    assert single.high - single.low > 0.05


def test_paired_difference_of_equal_models_is_zero(rng):
    radii = rng.random(30)
    result = paired_difference(radii, radii, naive=0.1, generator=rng, resample_count=20)
    assert (result.low, result.value, result.high) == (0.0, 0.0, 0.0)


def test_curve_is_the_share_of_larger_radii():
    curve = accuracy_curve([0.0, 0.1, 0.1, 0.4], [0.0, 0.05, 0.1, 0.3, 0.4, 9.0])
    assert curve.tolist() == [0.75, 0.75, 0.25, 0.25, 0.0, 0.0]


def test_naive_accuracy_is_the_share_of_the_most_frequent_class():
    assert naive_accuracy([0, 1, 1, 2], 4) == 0.5
    assert naive_accuracy(np.arange(10), 10) == 0.1


def test_accuracy_interval_is_clopper_pearson():
    # With no failure in n the lower end solves p^n = 0.025.
    result = accuracy_interval(10, 10)
    assert (result.value, result.high) == (1.0, 1.0)
    assert result.low == pytest.approx(0.025**0.1)
    # Tabulated: 50 of 100.
    half = accuracy_interval(50, 100)
    assert (half.low, half.high) == pytest.approx((0.3983, 0.6017), abs=1e-4)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: area([], 0.1), "radii"),
        (lambda: area([[0.1]], 0.1), "radii"),
        (lambda: area([0.1, -0.1], 0.1), "radii"),
        (lambda: area([0.1, np.nan], 0.1), "radii"),
        (lambda: area([0.1, np.inf], 0.1), "radii"),
        (lambda: area([0.1], -0.1), "naive"),
        (lambda: area([0.1], 1.1), "naive"),
        (lambda: area([0.1], np.nan), "naive"),
        (lambda: area([0.1], 0.1, resample_count=0), "resample_count"),
        (lambda: area([0.1], 0.1, is_unresolved=[True, False]), "is_unresolved"),
        (lambda: area([0.1], 0.1, is_unresolved=[1]), "is_unresolved"),
        (
            lambda: paired_difference(
                [0.1], [0.1, 0.2], naive=0.1, generator=np.random.default_rng()
            ),
            "radii_b",
        ),
        (lambda: accuracy_curve([0.1], [-1.0]), "grid"),
        (lambda: naive_accuracy([], 10), "labels"),
        (lambda: naive_accuracy([0.5], 10), "labels"),
        (lambda: naive_accuracy([10], 10), "labels"),
        (lambda: naive_accuracy([-1], 10), "labels"),
        (lambda: naive_accuracy([0], 0), "class_count"),
        (lambda: accuracy_interval(1, 0), "total"),
        (lambda: accuracy_interval(2, 1), "correct"),
        (lambda: accuracy_interval(-1, 1), "correct"),
    ],
)
def test_argument_out_of_range_is_refused_by_name(call, field):
    with pytest.raises(ValueError, match=rf"^{field}: expected .*, got"):
        call()
