"""Solver `fast`: near the closed form in a tenth of the steps, and the promises of every solver."""

import math

import pytest
import torch
from scipy import optimize
from torch import nn

from candor import terms
from candor.search import fast
from candor.search.batch import plan_goal, run_searches
from candor.search.geometry import drawn_to_sphere, nearest_in_half_space
from candor.search.goals import gap_to_goal, goal_code, output_condition
from candor.search.result import SearchResult, finish
from candor.search.state import rmse
from candor.terms import Goal, SearchStatus
from tests.search.linear import SHAPE, LinearClassifier, grey_images, mixed_state, nearest_rmse

STEPS = 24


@pytest.fixture(scope="module")
def network() -> LinearClassifier:
    return LinearClassifier(SHAPE, 5)


class _Curved(LinearClassifier):
    """Boundaries that bend: the logits of a linear network after a layer of sines."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(0.5 + 0.3 * torch.sin(3.0 * (images - 0.5)))


def _run(
    network: nn.Module, images: torch.Tensor, goal: Goal, targets: torch.Tensor
) -> SearchResult:
    explains = goal in (Goal.EXPLAIN_FOR, Goal.EXPLAIN_AGAINST)
    steps = terms.default_steps("fast", explains=explains)
    return run_searches(
        network, images, plan_goal(goal, targets, steps=steps, rho=0.1), solver="fast"
    )


@pytest.mark.parametrize("count", [1, 3, 8])
def test_attack_comes_within_a_hundredth_of_the_closed_form(
    network: LinearClassifier, count: int
) -> None:
    images = grey_images(count)
    labels = network(images).argmax(1)
    result = _run(network, images, Goal.ATTACK, labels)
    assert set(result.statuses) == {SearchStatus.FOUND}
    ratio = result.rmse / nearest_rmse(network, images, labels)
    assert bool((ratio >= 1.0 - 1e-6).all())
    assert bool((ratio <= 1.01).all()), ratio


class _Ellipsoid(nn.Module):
    """Class 0 inside an ellipsoid around grey, class 1 outside: tangents promise too much."""

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = radius
        self.scales = torch.linspace(0.2, 5.0, math.prod(SHAPE))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inside = self.radius**2 - ((images - 0.5).flatten(1).square() * self.scales).sum(1)
        return torch.stack([inside, torch.zeros_like(inside)], dim=1)

    def nearest(self, image: torch.Tensor) -> float:
        """RMSE to the nearest point outside, by the multiplier of the only constraint."""
        offset = (image - 0.5).flatten().double()
        scales = self.scales.double()

        def missing(multiplier: float) -> float:
            moved = offset / (1.0 - multiplier * scales)
            return float((scales * moved.square()).sum()) - self.radius**2

        multiplier = optimize.brentq(missing, 0.0, (1.0 - 1e-9) / float(scales.max()))
        moved = offset / (1.0 - multiplier * scales)
        return float((moved - offset).square().mean().sqrt())


@pytest.mark.parametrize("radius", [0.6, 0.8, 1.2])
def test_attack_follows_a_bent_boundary_to_its_nearest_point(radius: float) -> None:
    network = _Ellipsoid(radius)
    generator = torch.Generator().manual_seed(6)
    images = 0.5 + 0.04 * (torch.rand(8, *SHAPE, generator=generator) - 0.5)
    result = _run(network, images, Goal.ATTACK, torch.zeros(8, dtype=torch.int64))
    assert set(result.statuses) == {SearchStatus.FOUND}
    ratios = result.rmse / torch.tensor([network.nearest(image) for image in images])
    assert bool((ratios >= 1.0 - 1e-4).all()), ratios
    assert bool((ratios <= 1.01).all()), ratios


@pytest.mark.parametrize("goal", [Goal.ATTACK, Goal.BTR, Goal.CONFIDENT])
def test_radii_are_no_larger_than_those_of_paper(goal: Goal) -> None:
    network = _Curved(SHAPE, 5)
    images = grey_images(8)
    labels = network(images).argmax(1)
    ours = _run(network, images, goal, labels)
    theirs = run_searches(network, images, plan_goal(goal, labels), solver="paper")
    assert set(ours.statuses) == {SearchStatus.FOUND}
    assert bool((ours.rmse <= 1.01 * theirs.rmse).all()), ours.rmse / theirs.rmse
    assert bool(
        output_condition(ours.logits_after, torch.full((8,), goal_code(goal)), labels).all()
    )


@pytest.mark.parametrize("goal", [Goal.EXPLAIN_FOR, Goal.EXPLAIN_AGAINST])
def test_explanation_moves_the_target_at_rho_and_never_past_it(goal: Goal) -> None:
    network = _Curved(SHAPE, 5)
    images = grey_images(8)
    targets = (network(images).argmax(1) + 1) % 5
    ours = _run(network, images, goal, targets)
    theirs = run_searches(network, images, plan_goal(goal, targets, rho=0.1), solver="paper")
    reached = rmse(ours.images, images)
    assert bool((reached <= 0.1).all())
    assert bool((reached >= 0.0999).all()), reached
    sign = 1.0 if goal is Goal.EXPLAIN_FOR else -1.0
    ours_odds, their_odds = (
        sign * result.logits_after.log_softmax(1).gather(1, targets[:, None])
        for result in (ours, theirs)
    )
    assert bool((ours_odds >= their_odds - 0.05).all()), ours_odds - their_odds
    assert set(ours.statuses) == {SearchStatus.FOUND}


def test_cut_into_chunks_the_bits_are_those_of_one_piece() -> None:
    network = _Curved(SHAPE, 5)
    whole = fast.advance(network, mixed_state(network, 8, STEPS), STEPS)
    chunked = mixed_state(network, 8, STEPS)
    for steps in (1, 7, 0, 3, STEPS):
        chunked = fast.advance(network, chunked, steps)
    for name in dict(whole.present()):
        left, right = getattr(whole, name), getattr(chunked, name)
        assert torch.equal(left.nan_to_num(-1.0), right.nan_to_num(-1.0)), name


def test_mixed_batch_gives_what_each_gives_alone() -> None:
    network = _Curved(SHAPE, 5)
    together = finish(network, fast.advance(network, mixed_state(network, 8, STEPS), STEPS))
    for index in range(8):
        alone_state = mixed_state(network, 8, STEPS).select(torch.tensor([index]))
        alone = finish(network, fast.advance(network, alone_state, STEPS))
        assert alone.statuses[0] is together.statuses[index]
        # Batched and single matrix products round differently in the last bits.
        torch.testing.assert_close(alone.images[0], together.images[index], atol=1e-5, rtol=0)


def test_attack_ends_early_where_nothing_more_is_gained(network: LinearClassifier) -> None:
    images = grey_images(4)
    labels = network(images).argmax(1)
    plan = plan_goal(Goal.ATTACK, labels, steps=500)
    result = run_searches(network, images, plan, solver="fast")
    # Two thirds go to its first four starts; of the last one it needs little.
    assert int(result.steps.max()) < 360
    assert set(result.statuses) == {SearchStatus.FOUND}


@pytest.mark.parametrize("goal", [Goal.BTR, Goal.CONFIDENT])
def test_other_radii_end_early_and_lose_nothing_by_it(goal: Goal) -> None:
    network = _Curved(SHAPE, 5)
    images = grey_images(8)
    labels = network(images).argmax(1)
    result = _run(network, images, goal, labels)
    assert bool((result.steps < terms.FAST_RADIUS_STEPS).all()), result.steps
    longer = plan_goal(goal, labels, steps=4 * terms.FAST_RADIUS_STEPS)
    patient = run_searches(network, images, longer, solver="fast")
    assert bool((result.rmse <= 1.005 * patient.rmse).all()), result.rmse / patient.rmse


def test_flat_network_is_unresolved_with_finite_numbers() -> None:
    network = LinearClassifier(SHAPE, 5)
    network.head.weight.zero_()
    network.head.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]))
    result = _run(network, grey_images(3), Goal.ATTACK, torch.zeros(3, dtype=torch.int64))
    assert set(result.statuses) == {SearchStatus.UNRESOLVED}
    assert bool((result.lower_bounds > 0).all())
    assert bool(result.images.isfinite().all())


def test_wrong_images_take_no_step(network: LinearClassifier) -> None:
    images = grey_images(3)
    wrong = (network(images).argmax(1) + 1) % 5
    result = _run(network, images, Goal.ATTACK, wrong)
    assert set(result.statuses) == {SearchStatus.ALREADY_WRONG}
    assert result.steps.tolist() == [0, 0, 0]


def test_nearest_point_of_a_half_space_satisfies_its_optimality_conditions() -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(5, *SHAPE, generator=generator)
    gradients = torch.randn(5, *SHAPE, generator=generator)
    corner = torch.where(gradients > 0, -images, 1.0 - images)
    lowest = (gradients * corner).flatten(1).sum(1)
    reach = lowest * torch.tensor([0.01, 0.3, 0.6, 0.9, 2.0])  # the last one misses the box
    nearest = nearest_in_half_space(images, gradients, reach)
    reached = (gradients * nearest).flatten(1).sum(1)
    torch.testing.assert_close(reached[:4], reach[:4], rtol=1e-4, atol=0)
    torch.testing.assert_close(nearest[4], corner[4])
    # Free pixels share one multiplier: p = m g.
    is_free = (nearest > -images + 1e-6) & (nearest < 1.0 - images - 1e-6)
    for index in range(4):
        multipliers = (nearest / gradients)[index][is_free[index]]
        torch.testing.assert_close(multipliers, multipliers[:1].expand_as(multipliers))


def test_drawn_to_sphere_accounts_for_clipping() -> None:
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(4, *SHAPE, generator=generator)
    deltas = torch.randn(4, *SHAPE, generator=generator)
    radii = torch.tensor([0.01, 1.0, 3.0, 6.0])
    drawn = drawn_to_sphere(images, deltas, radii)
    lengths = drawn.flatten(1).norm(dim=1)
    assert bool((lengths <= radii * (1.0 + 1e-6)).all())
    torch.testing.assert_close(lengths, radii, rtol=1e-3, atol=0)
    assert bool(((images + drawn >= -1e-6) & (images + drawn <= 1.0 + 1e-6)).all())


def test_gap_is_negative_exactly_where_the_condition_holds() -> None:
    logits = 3.0 * torch.randn(500, 4, generator=torch.Generator().manual_seed(5))
    targets = torch.arange(500) % 4
    for goal in (Goal.ATTACK, Goal.BTR, Goal.CONFIDENT):
        goals = torch.full((500,), goal_code(goal))
        holds = output_condition(logits, goals, targets)
        assert torch.equal(gap_to_goal(logits, goals, targets) < 0, holds), goal
        assert 0 < int(holds.sum()) < 500
