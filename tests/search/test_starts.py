"""The table of starts: how an attack walks through it, and what another table changes."""

from dataclasses import replace

import pytest
import torch

from candor import terms
from candor.search import fast
from candor.search.batch import plan_goal, run_with
from candor.search.goals import goal_code
from candor.search.solvers import fast_solver
from candor.search.starts import STARTS, Leg, Point, leg_of
from candor.search.state import SearchState, begin
from candor.terms import Goal, SearchStatus
from tests.search.linear import SHAPE, LinearClassifier, grey_images

STEPS = terms.FAST_RADIUS_STEPS


def _at_every_step(goal: Goal) -> SearchState:
    """One search for each number of steps done, each with a perturbation found."""
    state = begin(
        grey_images(STEPS),
        goals=torch.full((STEPS,), goal_code(goal)),
        targets=torch.zeros(STEPS, dtype=torch.int64),
        rhos=torch.ones(STEPS, dtype=torch.float64),
        step_counts=torch.full((STEPS,), STEPS),
        seeds=torch.zeros(STEPS, dtype=torch.int64),
    )
    found = torch.full((STEPS,), 0.1, dtype=torch.float64)
    return replace(state, steps=torch.arange(STEPS), best_rmse=found)


def _steps(is_so: torch.Tensor) -> list[int]:
    return is_so.nonzero()[:, 0].tolist()


def test_attack_of_52_steps_scouts_four_and_sets_off_five_times() -> None:
    leg: Leg = leg_of(_at_every_step(Goal.ATTACK))
    assert _steps(leg.is_scouting) == [0, 1, 2, 3]
    assert _steps(leg.is_restart) == [12, 20], "likeliest, log-odds"
    assert _steps(leg.is_resumed) == [28, 36], "second, final"
    assert _steps(leg.is_choosing) == [0, 1, 2, 3, 12, 28]
    assert _steps(leg.is_descending) == [20, 21, 22, 23]
    assert _steps(leg.is_last) == list(range(36, 52))
    assert _steps(leg.is_aimed) == [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 28, 29, 30, 31]
    assert leg.position[4:].tolist() == [*range(8)] * 4 + [*range(16)]
    assert leg.rank[28] == 1


@pytest.mark.parametrize("goal", [Goal.BTR, Goal.CONFIDENT])
def test_other_radii_have_one_start_that_is_their_last(goal: Goal) -> None:
    leg = leg_of(_at_every_step(goal))
    assert bool(leg.is_last.all())
    assert leg.position.tolist() == list(range(STEPS))
    for name in ("is_scouting", "is_restart", "is_resumed", "is_choosing", "is_aimed"):
        assert not bool(getattr(leg, name).any()), name


def test_without_the_scouted_start_nothing_is_scouted_and_the_others_share_its_steps() -> None:
    leg = leg_of(_at_every_step(Goal.ATTACK), STARTS[1:])
    assert not bool(leg.is_scouting.any())
    assert _steps(leg.is_restart) == [0, 10]
    assert _steps(leg.is_resumed) == [20, 30]


@pytest.mark.parametrize("left_out", [None, *(start.name for start in STARTS)])
def test_every_subset_of_the_table_finds_the_nearest_point_of_a_linear_network(
    left_out: str | None,
) -> None:
    network, images = LinearClassifier(SHAPE, 5), grey_images(3)
    labels = network(images).argmax(1)
    plan = plan_goal(Goal.ATTACK, labels, steps=STEPS)
    starts = [start for start in STARTS if start.name != left_out]
    full = run_with(fast_solver(), network, images, plan)
    result = run_with(fast_solver(starts), network, images, plan)
    assert set(result.statuses) == {SearchStatus.FOUND}
    assert bool((result.rmse <= 1.01 * full.rmse).all())


def test_a_table_without_a_start_is_rejected() -> None:
    network = LinearClassifier(SHAPE, 5)
    with pytest.raises(ValueError, match="starts: expected one or more"):
        fast.advance(network, _at_every_step(Goal.ATTACK), 1, starts=())


def test_names_are_unique_and_the_first_start_alone_needs_scouting() -> None:
    assert len({start.name for start in STARTS}) == len(STARTS)
    assert [start.point is Point.SHORTEST_JUMP for start in STARTS] == [True] + [False] * 4
