"""Paired differences: hand-counted values, and p-values that are right under the null."""

import numpy as np
import pytest

from candor.robustness.ara import accuracy_robustness_area
from candor.robustness.paired import accuracy_difference, area_difference


def generator() -> np.random.Generator:
    return np.random.default_rng(3)


def test_mcnemar_of_hand_counted_tables() -> None:
    a = np.array([True] * 8 + [False] * 2 + [True] * 10)
    b = np.array([False] * 8 + [True] * 2 + [True] * 10)
    found = accuracy_difference(a, b, generator=generator())
    assert found.value == pytest.approx(0.3)
    # Two of ten, two-sided binomial: 2 (1 + 10 + 45) / 1024.
    assert found.p_value == pytest.approx(112 / 1024)
    assert found.low < 0.3 < found.high


def test_same_model_differs_by_nothing() -> None:
    correct, radii = np.array([True, False, True]), np.array([0.1, 0.0, 0.2])
    accuracy = accuracy_difference(correct, correct, generator=generator())
    area = area_difference(radii, radii, naive=0.1, generator=generator(), resample_count=50)
    for found in (accuracy, area):
        assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_area_difference_is_that_of_the_two_areas() -> None:
    radii = generator().random((2, 60)) * [[0.05], [0.02]]
    found = area_difference(radii[0], radii[1], naive=0.1, generator=generator())
    areas = [accuracy_robustness_area(one, naive=0.1, generator=generator()).value for one in radii]
    assert found.value == pytest.approx(areas[0] - areas[1])
    assert 0 < found.low < found.value < found.high
    assert found.p_value == pytest.approx(1 / 2001)


def test_p_of_models_that_do_not_differ_is_uniform() -> None:
    draws = generator()
    p_values = [
        area_difference(
            *draws.random((2, 30)), naive=0.1, generator=draws, resample_count=99
        ).p_value
        for _ in range(200)
    ]
    assert 0.02 <= np.mean(np.array(p_values) <= 0.1) <= 0.18
    assert 0.4 <= np.mean(p_values) <= 0.6


@pytest.mark.parametrize(
    ("a", "b", "field"),
    [([1.0], [True], "correct_a"), ([True], [True, False], "correct_b"), ([], [], "correct_a")],
)
def test_bad_arguments_are_named(a: list[bool], b: list[bool], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        accuracy_difference(a, b, generator=generator())
