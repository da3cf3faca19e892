"""The plain loop that speed is compared with finds what solver `paper` finds."""

import pytest
import torch

from candor.search.batch import plan_goal, run_searches
from candor.terms import Goal, SearchStatus
from tests.fixtures.audit import small_data, small_network
from tools.bench.baseline import plain_network, plain_radii


@pytest.mark.parametrize("goal", [Goal.ATTACK, Goal.BTR])
def test_plain_loop_finds_the_radii_of_solver_paper(goal: Goal) -> None:
    network = small_network()
    data = small_data(network, 8)
    images, labels = data.images(slice(None)), data.labels
    plain, is_unresolved = plain_radii(plain_network(network), images, labels, goal, steps=60)
    paper = run_searches(network, images, plan_goal(goal, labels, steps=60), solver="paper")
    statuses = [status is SearchStatus.UNRESOLVED for status in paper.statuses]
    assert is_unresolved.tolist() == statuses
    found = ~is_unresolved
    assert found.any()
    torch.testing.assert_close(plain[found], paper.rmse[found].float(), rtol=1e-3, atol=1e-6)
