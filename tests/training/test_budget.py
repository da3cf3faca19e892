"""What a budget of accuracy implies, against closed forms."""

import math

import pytest

from training.budget import (
    attack_eps,
    budget_share,
    doubtful_loss,
    first_psi,
    loss_target,
    psi_rate,
    weight_average,
)
from training.psi import PsiController


@pytest.mark.parametrize(
    ("text", "share"),
    [("3%", 0.03), (" 2.5 % ", 0.025), ("0.03", 0.03), (".5", 0.5), ("99%", 0.99)],
)
def test_a_budget_is_a_percentage_or_a_share(text, share):
    assert budget_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    "text",
    ["3", "0", "0%", "100%", "-3%", "3,5%", "nan", "inf", "", "%", "three", "3%%", "1e-2", "٣%"],
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"^accuracy_budget: expected .* such as 3% or 0\.03, got"):
        budget_share(text)


@pytest.mark.parametrize("class_count", [2, 10, 1000])
def test_a_doubtful_classifier_has_the_loss_of_its_own_probabilities(class_count):
    accuracy = 0.7
    rest = (1 - accuracy) / (class_count - 1)
    # It is right with probability p and loses -ln p, else another class was true: -ln of its part.
    expected = -accuracy * math.log(accuracy) - (1 - accuracy) * math.log(rest)
    assert doubtful_loss(accuracy, class_count) == pytest.approx(expected)
    assert doubtful_loss(1.0, class_count) == 0.0
    assert doubtful_loss(1 / class_count, class_count) == pytest.approx(math.log(class_count))


def test_the_loss_target_rises_with_the_budget_until_nothing_above_chance_remains():
    assert loss_target(0.9, 0.2, 10) == pytest.approx(doubtful_loss(0.7, 10))
    targets = [loss_target(0.9, budget, 10) for budget in (0.01, 0.03, 0.1, 0.79)]
    assert targets == sorted(targets)
    assert targets[-1] < math.log(10)
    with pytest.raises(ValueError, match=r"^accuracy_budget: expected less than 80\.0%.*got 85"):
        loss_target(0.9, 0.85, 10)
    with pytest.raises(
        ValueError, match=r"^data: .* more than 10\.0% right .* got 10\.0%; are the"
    ):
        loss_target(0.1, 0.01, 10)


def test_psi_begins_with_a_tenth_of_the_target_whatever_the_size_of_the_images():
    for penalty in (3e-3, 2e-5):
        assert first_psi(0.5, penalty) * penalty == pytest.approx(0.05)
    assert math.isfinite(first_psi(0.5, 0.0))


@pytest.mark.parametrize("steps", [40, 400, 4000])
def test_psi_can_rise_far_in_a_run_of_any_length(steps):
    psi = PsiController(psi_min=1.0, psi_rate=psi_rate(steps), loss_target=1.0)
    for _ in range(steps):
        psi = psi.updated(0.5)
    assert psi.psi > 4000
    assert psi_rate(10_000) == 0.02


def test_the_attacks_grow_with_the_budget_up_to_what_is_visible():
    assert attack_eps(0.03) == pytest.approx(0.0045)
    assert attack_eps(0.5) == 0.03


def test_weights_are_averaged_over_the_end_of_a_run():
    assert [weight_average(steps) for steps in (1, 20, 200, 10**6)] == [0.0, 0.0, 0.9, 0.999]
