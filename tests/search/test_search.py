"""Algorithm 1 against closed forms, and the promises of its state and outcome."""

import math

import pytest
import torch

from candor.search import paper
from candor.search.batch import SearchPlan, plan_goal, run_searches
from candor.search.geometry import draw_to_rho
from candor.search.goals import goal_code, output_condition
from candor.search.result import finish
from candor.search.state import SearchState, begin, rmse
from candor.search.steps import is_already_wrong
from candor.terms import Goal, SearchStatus
from tests.search.linear import SHAPE, LinearClassifier, grey_images, mixed_state, nearest_rmse


@pytest.fixture(scope="module")
def network() -> LinearClassifier:
    return LinearClassifier(SHAPE, 5)


def _sure_images(network: LinearClassifier, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images L2 1.5 from undecided grey: far beyond the step of 0.055 that SGD settles at."""
    labels = torch.arange(count) % 5
    directions = network.head.weight[labels]
    directions = (directions / directions.norm(dim=1, keepdim=True)).view(-1, *SHAPE)
    return grey_images(count) + 1.5 * directions, labels


def _state(
    images: torch.Tensor, goal: Goal, targets: torch.Tensor, *, rho: float = 0.05, steps: int = 60
) -> SearchState:
    count = len(images)
    return begin(
        images,
        goals=torch.full((count,), goal_code(goal)),
        targets=targets,
        rhos=torch.full((count,), rho, dtype=torch.float64),
        step_counts=torch.full((count,), steps),
        seeds=torch.arange(count),
    )


def _assert_same_bits(left: SearchState, right: SearchState) -> None:
    for name in dict(left.present()):
        a, b = getattr(left, name), getattr(right, name)
        assert torch.equal(a.nan_to_num(-1.0), b.nan_to_num(-1.0)), name


@pytest.mark.parametrize("count", [1, 3, 8])
def test_attack_comes_within_a_quarter_of_the_closed_form(
    network: LinearClassifier, count: int
) -> None:
    images, labels = _sure_images(network, count)
    result = run_searches(network, images, plan_goal(Goal.ATTACK, labels))
    optimum = nearest_rmse(network, images, labels)
    assert set(result.statuses) == {SearchStatus.FOUND}
    ratio = result.rmse / optimum
    assert bool((ratio >= 1.0 - 1e-6).all())
    # The direction is that of s_t, which mixes in the farther classes.
    assert bool((ratio <= 1.25).all()), ratio


def test_btr_ends_just_below_chance(network: LinearClassifier) -> None:
    images = grey_images(8)
    labels = network(images).argmax(1)
    result = run_searches(network, images, plan_goal(Goal.BTR, labels))
    found = [status is SearchStatus.FOUND for status in result.statuses]
    assert any(found)
    confidence = result.logits_after.softmax(1).gather(1, labels[:, None])[:, 0][found]
    assert bool((confidence < 0.2).all())
    assert bool((confidence > 0.18).all()), "the smallest perturbation stops at the boundary"


def test_confident_goal_leads_by_half(network: LinearClassifier) -> None:
    images = grey_images(3)
    labels = network(images).argmax(1)
    result = run_searches(network, images, plan_goal(Goal.CONFIDENT, labels))
    for index, status in enumerate(result.statuses):
        shares = result.logits_after[index].softmax(0)
        top = shares.topk(2).values
        assert status is SearchStatus.FOUND
        assert int(shares.argmax()) != int(labels[index])
        assert float(top[0] - top[1]) > 0.5


@pytest.mark.parametrize("rho", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("goal", [Goal.EXPLAIN_FOR, Goal.EXPLAIN_AGAINST])
def test_explanation_ends_inside_rho_and_close_to_it(
    network: LinearClassifier, goal: Goal, rho: float
) -> None:
    images = grey_images(8)
    targets = (network(images).argmax(1) + 1) % 5
    result = run_searches(network, images, plan_goal(goal, targets, rho=rho))
    reached = rmse(result.images, images)
    assert bool((reached <= rho).all())
    assert bool((reached >= 0.999 * rho).all()), reached
    before = result.logits_before.softmax(1).gather(1, targets[:, None])
    after = result.logits_after.softmax(1).gather(1, targets[:, None])
    moved = after > before if goal is Goal.EXPLAIN_FOR else after < before
    assert bool(moved.all())
    assert bool(((result.images >= 0) & (result.images <= 1)).all())


def test_cut_into_chunks_the_bits_are_those_of_one_piece(network: LinearClassifier) -> None:
    whole = paper.advance(network, mixed_state(network, 8), 40)
    chunked = mixed_state(network, 8)
    for steps in (1, 7, 0, 13, 19):
        chunked = paper.advance(network, chunked, steps)
    _assert_same_bits(whole, chunked)


def test_mixed_batch_gives_what_each_gives_alone(network: LinearClassifier) -> None:
    together = finish(network, paper.advance(network, mixed_state(network, 8), 40))
    for index in range(8):
        alone_state = mixed_state(network, 8).select(torch.tensor([index]))
        alone = finish(network, paper.advance(network, alone_state, 40))
        assert alone.statuses[0] is together.statuses[index]
        # Batched and single matrix products round differently in the last bits.
        torch.testing.assert_close(alone.images[0], together.images[index], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.rmse[0], together.rmse[index], atol=1e-6, rtol=0)


def test_each_search_takes_its_own_number_of_steps(network: LinearClassifier) -> None:
    state = paper.advance(network, mixed_state(network, 8), 1000)
    expected = torch.where(is_already_wrong(state), state.steps, state.step_counts)
    assert torch.equal(state.steps, expected)


def test_already_wrong_image_has_distance_zero_and_takes_no_step(
    network: LinearClassifier,
) -> None:
    images = grey_images(3)
    wrong_labels = (network(images).argmax(1) + 1) % 5
    result = run_searches(network, images, plan_goal(Goal.ATTACK, wrong_labels))
    assert set(result.statuses) == {SearchStatus.ALREADY_WRONG}
    assert torch.equal(result.images, images)
    assert result.rmse.tolist() == [0.0, 0.0, 0.0]
    assert result.steps.tolist() == [0, 0, 0]


def test_unresolved_search_reports_the_largest_rmse_it_visited(network: LinearClassifier) -> None:
    images = torch.ones(1, *SHAPE) * 0.5 + 0.4 * network.head.weight[0].sign().view(1, *SHAPE)
    labels = network(images).argmax(1)
    result = run_searches(network, images, plan_goal(Goal.ATTACK, labels, steps=5))
    assert result.statuses == (SearchStatus.UNRESOLVED,)
    assert 0 < float(result.lower_bounds[0]) < float(nearest_rmse(network, images, labels)[0])


def test_saturated_softmax_neither_stalls_nor_gives_nan() -> None:
    network = LinearClassifier(SHAPE, 5)
    network.head.weight.mul_(100.0)
    network.head.bias.mul_(100.0)
    images, labels = _sure_images(network, 3)
    assert float(network(images).softmax(1).amin(1).max()) == 0.0, "saturated, or no test"
    result = run_searches(network, images, plan_goal(Goal.ATTACK, labels))
    assert set(result.statuses) == {SearchStatus.FOUND}
    assert bool(result.images.isfinite().all())
    assert bool((result.rmse / nearest_rmse(network, images, labels) < 1.25).all())


def test_zero_gradient_is_left_in_a_seeded_direction() -> None:
    network = LinearClassifier(SHAPE, 5)
    network.head.weight.zero_()
    images = grey_images(2)
    targets = torch.tensor([1, 1])
    seeded = [
        paper.advance(network, _state(images, Goal.EXPLAIN_FOR, targets), 3) for _ in range(2)
    ]
    _assert_same_bits(*seeded)
    assert bool(seeded[0].deltas.isfinite().all())
    assert float(seeded[0].deltas.abs().max()) > 0
    assert not torch.equal(seeded[0].deltas[0], seeded[0].deltas[1]), "seeds differ"


def test_search_leaves_inputs_weights_and_modes_alone(network: LinearClassifier) -> None:
    trainable = LinearClassifier(SHAPE, 5).requires_grad_(True)
    weight = trainable.head.weight.clone()
    images = grey_images(3)
    before = images.clone()
    run_searches(trainable, images, plan_goal(Goal.BTR, trainable(images).argmax(1), steps=10))
    assert torch.equal(images, before)
    assert trainable.head.weight.grad is None
    assert torch.equal(trainable.head.weight, weight)
    assert not trainable.training


def test_training_mode_is_rejected() -> None:
    network = LinearClassifier(SHAPE, 5).train()
    with pytest.raises(ValueError, match="got training mode"):
        paper.advance(network, _state(grey_images(1), Goal.ATTACK, torch.tensor([0])), 1)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_images_outside_the_box_are_rejected(bad: float) -> None:
    images = grey_images(2)
    images[1, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"images: expected values in \[0, 1\]"):
        _state(images, Goal.ATTACK, torch.tensor([0, 0]))


@pytest.mark.parametrize("rho", [0.0, -1.0, math.nan, 1.5])
def test_rho_outside_its_range_is_rejected(rho: float) -> None:
    with pytest.raises(ValueError, match="rhos"):
        _state(grey_images(1), Goal.EXPLAIN_FOR, torch.tensor([0]), rho=rho)


def test_full_batch_gives_the_order_of_the_plan(network: LinearClassifier) -> None:
    images = grey_images(7)
    labels = network(images).argmax(1)
    mixed = labels.clone()
    mixed[::2] = (mixed[::2] + 1) % 5  # already wrong: these leave at once, others take their slot
    plan = plan_goal(Goal.ATTACK, mixed, steps=200)
    small = run_searches(network, images, plan, batch_size=2)
    large = run_searches(network, images, plan, batch_size=7)
    assert small.statuses == large.statuses
    torch.testing.assert_close(small.rmse, large.rmse, atol=1e-6, rtol=0)


def test_engine_never_holds_more_than_its_batch(network: LinearClassifier) -> None:
    seen: list[int] = []

    class Watched(LinearClassifier):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images))
            return super().forward(images)

    watched = Watched(SHAPE, 5)
    images = grey_images(9)
    labels = watched(images).argmax(1)
    seen.clear()
    run_searches(watched, images, plan_goal(Goal.ATTACK, labels, steps=30), batch_size=4)
    assert max(seen) == 4


def test_several_searches_may_share_an_image(network: LinearClassifier) -> None:
    images = grey_images(1)
    plan = SearchPlan(
        image_indices=torch.tensor([0, 0, 0]),
        goals=torch.full((3,), goal_code(Goal.EXPLAIN_FOR)),
        targets=torch.tensor([0, 1, 2]),
        rhos=torch.tensor([0.1, 0.1, 0.1], dtype=torch.float64),
        step_counts=torch.full((3,), 60),
        seeds=torch.zeros(3, dtype=torch.int64),
    )
    result = run_searches(network, images, plan)
    assert result.logits_after.argmax(1).tolist() == [0, 1, 2]


def test_goals_follow_their_equations() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [-9.0, 9.0, 0.0]])
    targets = torch.zeros(4, dtype=torch.int64)

    def holds(goal: Goal) -> list[bool]:
        return output_condition(logits, torch.full((4,), goal_code(goal)), targets).tolist()

    assert holds(Goal.ATTACK) == [False, True, False, True]
    assert holds(Goal.BTR) == [False, True, False, True]  # 0.24 and 0.00 are below 1/3
    assert holds(Goal.CONFIDENT) == [False, False, False, True]
    assert holds(Goal.EXPLAIN_FOR) == [False] * 4


def test_draw_to_rho_accounts_for_clipping() -> None:
    originals = torch.full((2, *SHAPE), 0.9)
    images = originals.clone()
    images[0, :, :4] += 0.05
    images[0, :, 4:] -= 0.05
    rhos = torch.tensor([0.3, 0.3], dtype=torch.float64)
    drawn = draw_to_rho(images, originals, rhos)
    assert 0.2999 < float(rmse(drawn, originals)[0]) <= 0.3
    assert torch.equal(drawn[1], originals[1]), "no direction, nothing to draw out"
