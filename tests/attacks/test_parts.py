"""Margin, projection and other classes against values computed by hand."""

import pytest
import torch

from candor.attacks.margin import goal_margin, holds, other_class
from candor.attacks.projection import project, random_start, to_length
from candor.terms import Goal
from tests.fixtures.audit import SHAPE

BATCHES = pytest.mark.parametrize("batch", [1, 3, 8])


def images(batch: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, *SHAPE, generator=generator)


@pytest.mark.parametrize("goal", [Goal.ATTACK, Goal.BTR])
def test_margin_is_negative_where_the_goal_holds(goal: Goal) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.1, 0.2]])
    labels = torch.zeros(3, dtype=torch.int64)
    assert holds(logits, labels, goal).tolist() == [False, True, True]
    assert (goal_margin(logits, labels, goal) < 0).tolist() == holds(logits, labels, goal).tolist()


def test_attack_margin_is_the_lead_over_the_best_other_class() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.5]])
    assert float(goal_margin(logits, torch.tensor([0]), Goal.ATTACK)) == pytest.approx(0.5)


def test_other_classes_come_in_the_order_of_their_logits() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0], [9.0, 1.0, 2.0, 3.0]])
    own = torch.tensor([1, 0])
    assert [other_class(logits, own, rank).tolist() for rank in (1, 2, 3)] == [
        [2, 3], [3, 2], [0, 1],
    ]  # fmt: skip


@BATCHES
def test_projection_moves_only_what_is_outside_the_ball_and_ends_on_it(batch: int) -> None:
    originals = 0.25 + 0.5 * images(batch)
    inside = originals + to_length(images(batch, seed=1) - 0.5, 0.1)
    torch.testing.assert_close(project(inside, originals, 0.2), inside)
    moved = project(originals + 3 * (inside - originals), originals, 0.2) - originals
    torch.testing.assert_close(moved, 2 * (inside - originals), rtol=1e-4, atol=1e-6)


@BATCHES
def test_projection_and_random_starts_stay_in_ball_and_box(batch: int) -> None:
    originals = images(batch)
    for found in (
        project(originals + 5 * (images(batch, seed=2) - 0.5), originals, 0.7),
        random_start(originals, 0.7, range(batch)),
    ):
        assert bool(((found >= 0) & (found <= 1)).all())
        assert bool(((found - originals).flatten(1).norm(dim=1) <= 0.7 * (1 + 1e-5)).all())


def test_random_start_of_an_image_does_not_depend_on_its_batch() -> None:
    originals = images(3)
    alone = random_start(originals[1:2], 0.3, [7])
    assert torch.equal(random_start(originals, 0.3, [6, 7, 8])[1:2], alone)


def test_direction_of_zeros_stays_zero() -> None:
    assert not bool(to_length(torch.zeros(2, *SHAPE), torch.tensor([1.0, 2.0])).any())
