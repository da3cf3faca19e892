"""Temperature, calibration error and BTR at a temperature against closed forms."""

import math

import numpy as np
import pytest
import torch

from candor.robustness.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    AtTemperature,
    calibration,
    calibration_error,
    fitted_temperature,
)
from candor.robustness.measure import radii_of, search_radii
from candor.search.goals import gap_to_goal, goal_code
from candor.terms import FAST_RADIUS_STEPS, Goal
from tests.fixtures.audit import SHAPE
from tests.search.linear import LinearClassifier


def binary(margin: float, right: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (0, margin) for all images; the second class is true of ``right`` of them."""
    logits = np.tile([0.0, margin], (count, 1))
    return logits, (np.arange(count) < right).astype(np.int64)


@pytest.mark.parametrize(
    ("margin", "right", "count"), [(3.0, 80, 100), (0.2, 55, 100), (9.0, 2, 3)]
)
def test_of_one_margin_the_temperature_makes_the_share_that_is_right(
    margin: float, right: int, count: int
) -> None:
    share = right / count
    inverse = math.log(share / (1 - share)) / margin
    found = fitted_temperature(*binary(margin, right, count))
    assert found.value == pytest.approx(1 / inverse)
    error = 1.959964 / (math.sqrt(count * share * (1 - share)) * margin)  # of a binomial share
    assert found.low == pytest.approx(1 / (inverse + error))
    assert found.high == pytest.approx(
        1 / (inverse - error) if inverse - error > 0.01 else HIGHEST_TEMPERATURE
    )
    at = calibration(
        *binary(margin, right, count), temperature=found.value, generator=np.random.default_rng(0)
    )
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert at.nll == pytest.approx(entropy)
    assert at.error.value == pytest.approx(0.0, abs=1e-9)


def test_a_network_that_is_always_or_never_right_has_no_best_temperature() -> None:
    assert fitted_temperature(*binary(1.0, 5, 5)).value == pytest.approx(LOWEST_TEMPERATURE)
    assert fitted_temperature(*binary(1.0, 0, 5)).value == pytest.approx(HIGHEST_TEMPERATURE)
    constant = fitted_temperature(np.zeros((4, 3)), np.arange(4) % 3)
    assert (constant.value, constant.low, constant.high) == (1.0, 0.01, 100.0)


def test_no_other_temperature_has_a_smaller_likelihood_loss(rng: np.random.Generator) -> None:
    logits, labels = 4 * rng.standard_normal((300, 5)), rng.integers(5, size=300)
    labels[:200] = logits[:200].argmax(axis=1)
    best = fitted_temperature(logits, labels)

    def loss(temperature: float) -> float:
        generator = np.random.default_rng(0)
        return calibration(logits, labels, temperature=temperature, generator=generator).nll

    assert all(loss(best.value) < loss(best.value * factor) for factor in (0.9, 0.99, 1.01, 1.1))
    assert best.low < best.value < best.high


def test_the_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    # 10 images at 0.9, 6 of them right; 30 at 0.5, 24 right: 10/40 * 0.3 + 30/40 * 0.3.
    confidences = np.repeat([0.9, 0.5], [10, 30])
    is_correct = np.concatenate([np.arange(10) < 6, np.arange(30) < 24])
    found = calibration_error(confidences, is_correct, generator=np.random.default_rng(0))
    assert found.value == pytest.approx(0.3)
    assert found.low < 0.3 < found.high
    # Gaps of opposite signs cancel within a bin, and only there: 0.5 is the top of no bin.
    both = calibration_error([0.51, 0.52], [True, False], generator=np.random.default_rng(0))
    assert both.value == pytest.approx(0.015)
    apart = calibration_error([0.41, 0.99], [True, False], generator=np.random.default_rng(0))
    assert apart.value == pytest.approx((0.59 + 0.99) / 2)


def test_a_higher_temperature_enlarges_btr_radii_and_moves_no_attack() -> None:
    network = LinearClassifier(SHAPE, 4)
    images = 0.4 + 0.2 * torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1))
    labels = network(images).argmax(1)
    found = {}
    for temperature in (0.5, 1.0, 3.0):
        warmer = AtTemperature(network, temperature)
        for goal in (Goal.ATTACK, Goal.BTR):
            ends = search_radii(
                warmer, images, labels, goal, solver="fast", steps=FAST_RADIUS_STEPS,
                seeds=torch.arange(5), batch_size=5,
            )  # fmt: skip
            found[goal, temperature] = radii_of(ends)[0]
        # At the end mean_j exp((y_j - y_t) / T) is 1, just passed.
        logits = network(ends.images)
        gaps = (logits - logits.gather(1, labels[:, None])) / temperature
        assert gaps.exp().mean(dim=1).numpy() == pytest.approx(1.0, abs=0.02)
        codes = torch.full((5,), goal_code(Goal.BTR))
        assert bool((gap_to_goal(logits / temperature, codes, labels) < 0).all())
    assert found[Goal.ATTACK, 3.0] == pytest.approx(found[Goal.ATTACK, 0.5], rel=1e-3)
    assert (found[Goal.BTR, 0.5] < found[Goal.BTR, 1.0]).all()
    assert (found[Goal.BTR, 1.0] < found[Goal.BTR, 3.0]).all()


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros(3), [0], r"logits: expected finite \(N, V\)"),
        (np.full((1, 2), np.nan), [0], "logits: expected finite"),
        (np.zeros((2, 2)), [0], r"labels: expected \(2,\) integers, got \(1,\)"),
        (np.zeros((1, 2)), [2], r"labels: expected \[0, 1\]"),
        (np.zeros((1, 2)), [0.5], "labels: expected .* integers"),
    ],
)
def test_bad_arguments_are_named(logits: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted_temperature(logits, labels)
