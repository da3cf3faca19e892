"""Explanations under a region, a norm and a contrast against closed forms, by both solvers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from candor import terms
from candor.search import fast, paper
from candor.search.ascent import ascent_step
from candor.search.batch import SearchPlan, plan_goal, run_searches
from candor.search.goals import NORMS, goal_code, norm_code
from candor.search.norms import drawn, linear_step
from candor.search.result import SearchResult
from candor.search.sizes import rho_in
from candor.search.state import begin, concatenate
from candor.terms import Goal, Norm, SearchStatus
from tests.search.linear import SHAPE, LinearClassifier, grey_images, mixed_state, nearest_rmse

_P = {Norm.L1: 1.0, Norm.L1_5: 1.5, Norm.L2: 2.0}
_RHOS = {Norm.L1: 0.05, Norm.L1_5: 0.1, Norm.L2: 0.2, Norm.LINF: 0.3}
_STEPS = {"fast": terms.FAST_EXPLAIN_STEPS, "paper": 200}
_COUNT = 16  # every norm, raised and lowered, with and without a mask


@pytest.fixture(scope="module")
def network() -> LinearClassifier:
    return LinearClassifier(SHAPE, 5)


def _images(count: int = _COUNT) -> Tensor:
    """From all of the box, so that it cuts off a good part of each perturbation."""
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(2))


def _masks() -> Tensor:
    masks = torch.ones(_COUNT, *SHAPE[1:])
    masks[_COUNT // 2 :, :, :3] = 0.0
    masks[_COUNT // 2 :, :2] = 0.0
    return masks


def _mixed_plan(steps: int) -> SearchPlan:
    """All norms in one batch; the score of a contrast is linear in the pixels."""
    norms = [NORMS[index % len(NORMS)] for index in range(_COUNT)]
    goals = [(Goal.EXPLAIN_FOR, Goal.EXPLAIN_AGAINST)[index // 4 % 2] for index in range(_COUNT)]
    plan = plan_goal(Goal.EXPLAIN_FOR, torch.arange(_COUNT) % 5, steps=steps, masks=_masks())
    return replace(
        plan,
        goals=torch.tensor(list(map(goal_code, goals))),
        norms=torch.tensor(list(map(norm_code, norms))),
        rhos=torch.tensor([_RHOS[norm] for norm in norms], dtype=torch.float64),
        away_from=(torch.arange(_COUNT) + 2) % 5,
    )


def _weights(network: LinearClassifier, plan: SearchPlan) -> Tensor:
    """(M, C, H, W) how the score of each search rises with each pixel, outside its mask 0."""
    assert plan.away_from is not None
    assert plan.masks is not None
    rows = network.head.weight[plan.targets] - network.head.weight[plan.away_from]
    signs = torch.where(plan.goals == goal_code(Goal.EXPLAIN_FOR), 1.0, -1.0)
    return signs[:, None, None, None] * rows.view(-1, *SHAPE) * plan.masks[:, None]


def _best_delta(norm: Norm, image: Tensor, weights: Tensor, rho: float) -> np.ndarray:
    """The exact solution, flat, by bisection of its multiplier; in L1 pixel by pixel."""
    x, w = image.double().flatten().numpy(), weights.double().flatten().numpy()
    room, size = np.where(w > 0, 1.0 - x, x) * (w != 0), np.abs(w) / np.abs(w).max()
    if norm is Norm.L1:
        lengths, left = np.zeros_like(room), rho * len(room)
        for index in np.argsort(-size):
            lengths[index] = min(room[index], left)
            left -= lengths[index]
        return np.sign(w) * lengths
    if norm is Norm.LINF:
        return np.sign(w) * np.minimum(room, rho)
    p, low, high = _P[norm], 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        lengths = np.minimum(room, middle * size ** (1.0 / (p - 1.0)))
        low, high = (middle, high) if np.mean(lengths**p) <= rho**p else (low, middle)
    return np.sign(w) * lengths


@pytest.mark.parametrize("solver", terms.SOLVERS)
def test_explanations_reach_the_closed_form_of_their_norm_and_region(
    network: LinearClassifier, solver: str
) -> None:
    images, plan = _images(), _mixed_plan(_STEPS[solver])
    result = run_searches(network, images, plan, solver=solver)
    weights = _weights(network, plan)
    deltas = (result.images.double() - images).flatten(1)
    reached = (weights.double().flatten(1) * deltas).sum(dim=1)
    assert set(result.statuses) == {SearchStatus.FOUND}
    for index in range(_COUNT):
        norm, rho = NORMS[index % len(NORMS)], float(plan.rhos[index])
        best = _best_delta(norm, images[index], weights[index], rho)
        optimum = float((weights[index].double().flatten().numpy() * best).sum())
        assert 0.98 * optimum <= float(reached[index]) <= 1.0001 * optimum, (norm, index)
        size = rho_in(norm, result.images[[index]], images[[index]])
        assert 0.999 * rho <= float(size) <= rho, norm
    outside = _masks()[:, None].expand_as(images) == 0
    assert torch.equal(result.images[outside], images[outside])
    assert bool(((result.images >= 0) & (result.images <= 1)).all())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("inside", [0.52, 0.6, 0.9])
def test_the_bound_inside_a_region_costs_a_linear_score_little(
    network: LinearClassifier, norm: Norm, inside: float
) -> None:
    images, masks = _images(8), _masks()[-8:]
    share = float(masks[0].mean())
    rho = inside * share ** (1.0 / _P[norm]) if norm in _P else inside
    plan = plan_goal(
        Goal.EXPLAIN_FOR, torch.arange(8) % 4, steps=terms.FAST_EXPLAIN_STEPS, rho=rho, masks=masks,
        norm=norm, away_from=torch.full((8,), 4),
    )  # fmt: skip
    result = run_searches(network, images, plan, solver="fast")
    weights = _weights(network, plan).double().flatten(1)
    reached = (weights * (result.images.double() - images).flatten(1)).sum(dim=1)
    for index in range(8):
        best = _best_delta(norm, images[index], weights[index], rho)
        optimum = float((weights[index].numpy() * best).sum())
        assert 0.98 * optimum <= float(reached[index]) <= 1.0001 * optimum, index


@pytest.mark.parametrize("norm", NORMS)
def test_the_step_of_a_linear_score_is_its_closed_form(norm: Norm) -> None:
    images = _images(5)
    weights = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(4))
    weights[1, 0] = 0.0
    weights[2] *= 1e-20
    rhos = torch.tensor([0.001, 0.02, 0.1, 0.5, 1.0], dtype=torch.float64)  # the last is too far
    steps = linear_step(norm, images, weights, rhos).flatten(1).double()
    for index, rho in enumerate(rhos.tolist()):
        best = torch.from_numpy(_best_delta(norm, images[index], weights[index], rho))
        torch.testing.assert_close(steps[index], best, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L1_5, Norm.L2])
def test_a_drawn_perturbation_keeps_its_direction_where_the_box_lets_it(norm: Norm) -> None:
    images = _images(3)
    deltas = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(4))
    deltas[0, 1] = 0.0
    rhos = torch.tensor([0.01, 0.2, 1.0], dtype=torch.float64)
    moved = drawn(norm, images, deltas, rhos)
    corner = torch.where(deltas > 0, 1.0 - images, -images)
    torch.testing.assert_close(moved[2], corner[2])
    for index in range(2):
        is_free = (moved[index] != corner[index]) & (deltas[index] != 0)
        factors = (moved[index] / deltas[index])[is_free]
        torch.testing.assert_close(factors, factors[:1].expand_as(factors))
        size = rho_in(norm, images[[index]] + moved[[index]], images[[index]])
        torch.testing.assert_close(size[0], rhos[index], rtol=1e-5, atol=0)


def test_a_region_too_small_for_rho_ends_at_what_it_can_reach(network: LinearClassifier) -> None:
    images = _images(4)
    masks = torch.zeros(4, *SHAPE[1:])
    masks[:, 5, 2] = 1.0
    norms = torch.tensor(list(map(norm_code, NORMS)))
    for solver in terms.SOLVERS:
        plan = plan_goal(
            Goal.EXPLAIN_FOR, torch.arange(4), steps=60, rho=0.9, masks=masks,
            away_from=torch.full((4,), 4),
        )  # fmt: skip
        result = run_searches(network, images, replace(plan, norms=norms), solver=solver)
        rows = (network.head.weight[:4] - network.head.weight[4]).view(-1, *SHAPE)
        corner = torch.where(rows > 0, 1.0, 0.0)
        expected = torch.where(masks[:, None] > 0, corner, images)
        torch.testing.assert_close(result.images, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(result.rmse, result.rmse_inside / 48**0.5)
        assert result.sparsity.tolist() == [pytest.approx(1 / 48)] * 4


@pytest.mark.parametrize("solver", terms.SOLVERS)
def test_radius_under_a_mask_is_that_of_the_pixels_it_leaves(
    network: LinearClassifier, solver: str
) -> None:
    images = grey_images(6)
    labels = network(images).argmax(1)
    masks = torch.ones(6, *SHAPE[1:])
    masks[:, 4:] = 0.0
    masked = LinearClassifier(SHAPE, 5)
    masked.head.weight.mul_(masks[:1].expand(SHAPE).reshape(1, -1))
    masked.head.bias.copy_(-masked.head.weight @ torch.full((masked.head.in_features,), 0.5))
    # With the other pixels as they are: their part of the logits goes into the bias.
    optimum = torch.stack([
        _nearest_with(masked, network, image[None], label[None])
        for image, label in zip(images, labels, strict=True)
    ])  # fmt: skip
    plan = plan_goal(Goal.ATTACK, labels, masks=masks, steps=terms.FAST_RADIUS_STEPS)
    result = run_searches(network, images, plan, solver=solver)
    assert set(result.statuses) == {SearchStatus.FOUND}
    assert torch.equal(result.images[:, :, 4:], images[:, :, 4:])
    ratio = result.rmse / optimum
    assert bool((ratio >= 1.0 - 1e-6).all()), ratio
    if solver == "fast":
        assert bool((ratio <= 1.01).all()), ratio


def _nearest_with(
    masked: LinearClassifier, network: LinearClassifier, image: Tensor, label: Tensor
) -> Tensor:
    moved = LinearClassifier(SHAPE, 5)
    moved.head.weight.copy_(masked.head.weight)
    moved.head.bias.copy_(network(image)[0] - masked.head.weight @ image.flatten())
    return nearest_rmse(moved, image, label)[0]


def test_a_mask_of_one_value_changes_nothing(network: LinearClassifier) -> None:
    plain = mixed_state(network, 10, 24)
    # Rounding moves a radius by 1e-8; along the boundary it moves the image, by less than anybody
    # sees: a tenth of a grey level.
    for value, tolerance in ((1.0, 0.0), (0.3, 0.1 / 255.0)):
        masked = replace(plain, masks=torch.full((10, 1, *SHAPE[1:]), value))
        for solver in (fast, paper):
            left, right = (solver.advance(network, state, 24) for state in (plain, masked))
            torch.testing.assert_close(left.best_rmse, right.best_rmse, atol=1e-6, rtol=0)
            torch.testing.assert_close(
                left.best_images, right.best_images, atol=tolerance, rtol=0
            )  # fmt: skip


@pytest.mark.parametrize(
    ("norm", "rho", "inside"),
    [
        (Norm.L2, 0.02, 0.16),
        (Norm.L2, 0.2, 0.5),
        (Norm.L1_5, 0.02, 0.32),
        (Norm.L1_5, 0.2, 0.5),
        (Norm.L1, 0.004, 0.256),
        (Norm.L1, 0.01, 0.5),
        (Norm.LINF, 0.7, 0.7),
    ],
)
def test_a_small_region_is_not_searched_at_black_and_white(
    norm: Norm, rho: float, inside: float
) -> None:
    """1 pixel of 64 may change, by up to 0.8: in L2, rho 0.2 is an RMSE of 1.6 inside."""
    images = torch.full((1, 3, 8, 8), 0.2)
    mask = torch.zeros(1, 8, 8)
    mask[:, 2, 3] = 1.0
    state = begin(
        images,
        goals=torch.tensor([goal_code(Goal.EXPLAIN_FOR)]),
        targets=torch.tensor([0]),
        rhos=torch.tensor([rho], dtype=torch.float64),
        step_counts=torch.tensor([8]),
        seeds=torch.tensor([0]),
        masks=mask,
        norms=torch.tensor([norm_code(norm)]),
    )
    gradients = mask[:, None].expand_as(images).contiguous()
    climbed = ascent_step(state, torch.zeros_like(images), gradients, torch.tensor([3.0**0.5]))
    changed = climbed[:, :, 2:3, 3:4]
    size = rho_in(norm, changed, torch.zeros_like(changed))
    assert size.item() == pytest.approx(inside, rel=1e-4)
    assert torch.count_nonzero(climbed) == torch.count_nonzero(changed) > 0


def test_a_soft_mask_bends_the_direction_and_rho_stays(network: LinearClassifier) -> None:
    images, target = grey_images(1), torch.tensor([1])
    masks = torch.linspace(0.0, 1.0, SHAPE[2]).expand(1, *SHAPE[1:]).contiguous()
    plan = plan_goal(
        Goal.EXPLAIN_FOR, target, steps=8, rho=0.05, masks=masks, away_from=torch.tensor([2])
    )
    result = run_searches(network, images, plan, solver="fast")
    wanted = (network.head.weight[1] - network.head.weight[2]).view(SHAPE) * masks
    delta = result.images[0] - images[0]
    cosine = torch.nn.functional.cosine_similarity(delta.flatten(), wanted.flatten(), dim=0)
    assert float(cosine) > 0.9999
    assert 0.04999 <= float(result.rmse[0]) <= 0.05


def test_random_directions_obey_the_mask() -> None:
    flat = LinearClassifier(SHAPE, 5)
    flat.head.weight.zero_()
    masks = torch.zeros(2, *SHAPE[1:])
    masks[:, 2:4, 1:3] = 1.0
    for goal in (Goal.EXPLAIN_FOR, Goal.ATTACK):
        for norm in NORMS if goal is Goal.EXPLAIN_FOR else (Norm.L2,):
            plan = plan_goal(
                goal, torch.ones(2, dtype=torch.int64), masks=masks, norm=norm, rho=0.1
            )
            state = begin(
                grey_images(2), goals=plan.goals, targets=plan.targets, rhos=plan.rhos,
                step_counts=plan.step_counts, seeds=plan.seeds, masks=masks, norms=plan.norms,
            )  # fmt: skip
            for solver in (fast, paper):
                deltas = solver.advance(flat, state, 3).deltas
                assert bool((deltas[:, :, masks[0] == 0] == 0).all())
                assert float(deltas.abs().max()) > 0


def test_contrast_prefers_its_pair_and_reports_the_target(network: LinearClassifier) -> None:
    images = grey_images(4)
    targets, others = torch.arange(4), torch.arange(4) + 1

    def gap_after(away_from: Tensor | None) -> tuple[Tensor, SearchResult]:
        plan = plan_goal(Goal.EXPLAIN_FOR, targets, steps=8, rho=0.01, away_from=away_from)
        result = run_searches(network, images, plan, solver="fast")
        pairs = result.logits_after.gather(1, torch.stack([targets, others], dim=1))
        return pairs[:, 0] - pairs[:, 1], result

    against_all, _ = gap_after(None)
    against_one, result = gap_after(others)
    assert bool((against_one > against_all).all())
    assert set(result.statuses) == {SearchStatus.FOUND}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"masks": torch.zeros(2, *SHAPE[1:])}, "masks: expected each above 0"),
        ({"masks": torch.full((2, *SHAPE[1:]), 1.5)}, r"masks: expected values in \[0, 1\]"),
        ({"masks": torch.ones(2, *SHAPE)}, r"masks: expected \(\d, 8, 6\) float32"),
        ({"norms": torch.tensor([0, 2])}, "norms: expected L2"),
        ({"away_from": torch.tensor([-1, 1])}, "away_from: expected other classes"),
        ({"away_from": torch.tensor([3, -1])}, "away_from: expected -1"),
    ],
)
def test_what_does_not_fit_is_rejected(changes: dict[str, Tensor], words: str) -> None:
    goals = torch.tensor([goal_code(Goal.ATTACK), goal_code(Goal.EXPLAIN_FOR)])
    plan = replace(plan_goal(Goal.ATTACK, torch.tensor([0, 1])), goals=goals, **changes)
    with pytest.raises(ValueError, match=words):
        run_searches(LinearClassifier(SHAPE, 5), grey_images(2), plan)


def test_batches_with_and_without_masks_are_not_joined(network: LinearClassifier) -> None:
    plain = mixed_state(network, 5)
    with pytest.raises(ValueError, match="states: expected the fields"):
        concatenate([plain, replace(plain, masks=torch.ones(5, 1, *SHAPE[1:]))])
