"""The boundary between the core and a network."""

import math

import pytest
import torch
from torch import Tensor, nn

from candor.search.batch import plan_goal, run_searches
from candor.search.goals import score, score_and_gradient
from candor.search.network import checked, linearised
from candor.search.solvers import SOLVERS
from candor.terms import Goal, NotFinite


class _Roots(nn.Module):
    """Finite logits whose gradient is infinite where a pixel is 0."""

    def forward(self, images: Tensor) -> Tensor:
        return images.sqrt().flatten(1)[:, :3]


class _Strict(nn.Module):
    """Refuses what is not contiguous, as libraries do."""

    def forward(self, images: Tensor) -> Tensor:
        return images.view(len(images), -1)[:, :3]


class _Wrong(nn.Module):
    """Answers ``value`` on images whose first pixel is brighter than half."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        return torch.where(pixels[:, :1] > 0.5, self.value, pixels[:, :3])


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_images_and_gradients_of_any_layout_are_made_contiguous(batch: int) -> None:
    images = torch.rand(batch, 5, 7, 3).permute(0, 3, 1, 2)
    assert not images.is_contiguous()
    asked = images.detach().requires_grad_()
    logits = checked(_Strict())(asked)
    (gradients,) = torch.autograd.grad(logits.sum(), asked)
    assert gradients.is_contiguous()
    assert torch.equal(logits, _Strict()(images.contiguous()))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers_are_an_error_with_their_count(value: float) -> None:
    images = torch.stack([torch.full((3, 4, 5), shade) for shade in (0.1, 0.9, 0.8)])
    with pytest.raises(NotFinite, match=f"got {value} on 2 of 3 images"):
        checked(_Wrong(value))(images)


def test_gradient_that_is_no_number_is_an_error() -> None:
    images = torch.zeros(2, 1, 2, 2, requires_grad=True)
    logits = checked(_Roots())(images)
    with pytest.raises(NotFinite, match="the gradient of the network: .* on 2 of 2 images"):
        logits.sum().backward()


class _Curved(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3].square()


@pytest.mark.parametrize("is_checked", [False, True])
def test_pullback_takes_a_gradient_by_logits_to_the_images(is_checked: bool) -> None:
    network = checked(_Curved()) if is_checked else _Curved()
    images, by_logits = torch.rand(2, 3, 4, 5), torch.randn(2, 3)
    logits, pullback = linearised(network, images)
    assert not logits.requires_grad
    assert torch.equal(logits, _Curved()(images))
    expected = torch.zeros_like(images).flatten(1)
    expected[:, :3] = 2.0 * images.flatten(1)[:, :3] * by_logits
    torch.testing.assert_close(pullback(by_logits).flatten(1), expected)


def test_pullback_to_no_number_is_an_error() -> None:
    logits, pullback = linearised(checked(_Roots()), torch.zeros(2, 1, 2, 2))
    with pytest.raises(NotFinite, match="the gradient of the network: .* on 2 of 2 images"):
        pullback(torch.ones_like(logits))


@pytest.mark.parametrize("away_from", [None, (-1, 0, 3)])
def test_gradient_of_the_score_by_the_logits_is_written_out(
    away_from: tuple[int, ...] | None,
) -> None:
    logits = (4.0 * torch.randn(3, 5)).requires_grad_()
    targets = torch.tensor([2, 4, 0])
    away = None if away_from is None else torch.tensor(away_from)
    expected = score(logits, targets, away)
    (gradients,) = torch.autograd.grad(expected.sum(), logits)
    values, by_logits = score_and_gradient(logits.detach(), targets, away)
    torch.testing.assert_close(values, expected.detach())
    torch.testing.assert_close(by_logits, gradients)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("goal", [Goal.ATTACK, Goal.EXPLAIN_FOR])
def test_hooks_of_a_network_see_every_step(solver: str, goal: Goal) -> None:
    """An audit is stopped, and a limit kept, by what is hooked to the network."""
    network, seen = checked(_Curved().eval()), list[None]()
    network.register_forward_pre_hook(lambda module, inputs: seen.append(None))
    images = torch.tensor([0.3, 0.9, 0.2, 0.4]).view(1, 1, 2, 2)
    plan = plan_goal(goal, torch.tensor([1]), steps=4, rho=0.1)
    result = run_searches(network, images, plan, solver=solver)
    assert len(seen) > int(result.steps.sum()) > 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_search_that_walks_into_nan_is_an_error_and_not_resisted(solver: str) -> None:
    images = torch.full((2, 1, 2, 2), 0.3)
    images[:, 0, 0, 1] = 0.9  # class 1 leads; the way to class 0 makes the first pixel brighter
    plan = plan_goal(Goal.ATTACK, torch.tensor([1, 1]), steps=60)
    with pytest.raises(NotFinite, match="outputs"):
        run_searches(_Wrong(math.nan).eval(), images, plan, solver=solver)


@pytest.mark.parametrize("solver", SOLVERS)
def test_vanishing_gradient_moves_nothing_to_nan(solver: str) -> None:
    """Slopes whose square underflows in float32."""

    class Flat(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            pixels = images.flatten(1)
            return torch.stack([1e-21 * pixels[:, 0], -1e-21 * pixels[:, 1] - 1.0], dim=1)

    plan = plan_goal(Goal.ATTACK, torch.zeros(3, dtype=torch.int64), steps=40)
    result = run_searches(Flat().eval(), torch.full((3, 1, 2, 2), 0.5), plan, solver=solver)
    assert bool(result.images.isfinite().all())
