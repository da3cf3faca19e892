"""Stochastic depth and ShakeDrop: their draws, their means and what goes backward."""

import pytest
import torch

from candor.nets.drop import ShakeDrop, StochasticDepth, survival_probability

BOTH = pytest.mark.parametrize("kind", [StochasticDepth, ShakeDrop])
COUNT = 4000


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@BOTH
def test_evaluation_draws_nothing_and_gives_the_mean_of_training(kind):
    drop = kind(0.7)
    residual = torch.full((COUNT, 2, 3, 1), 2.0)
    trained = drop(residual)
    state = torch.get_rng_state()
    evaluated = drop.eval()(residual)
    assert torch.equal(torch.get_rng_state(), state)
    assert (evaluated == torch.tensor(0.7) * 2.0).all()
    assert trained.mean().item() == pytest.approx(1.4, abs=0.06)  # standard deviation 0.014


@BOTH
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_each_image_keeps_all_of_its_residual_or_none(kind, batch):
    residual = torch.rand(batch, 2, 3, 5) + 1.0
    drop = kind(0.5)
    seen = set()
    for _ in range(20):
        for row, original in zip(drop(residual), residual, strict=True):
            assert torch.equal(row, original) or (row == 0).all()
            seen.add(bool(row.any()))
    assert seen == {True, False}


@BOTH
def test_survival_of_one_changes_nothing(kind):
    residual = torch.randn(3, 2, 4, 5)
    assert torch.equal(kind(1.0)(residual), residual)
    assert torch.equal(kind(1.0).eval()(residual), residual)


def test_stochastic_depth_sends_nothing_back_through_a_dropped_residual():
    residual = torch.ones(COUNT, 1, 1, 1, requires_grad=True)
    output = StochasticDepth(0.5)(residual)
    (gradient,) = torch.autograd.grad(output.sum(), residual)
    assert torch.equal(gradient, output.detach())


def test_shakedrop_sends_a_uniform_share_back_through_a_dropped_residual():
    residual = torch.ones(COUNT, 1, 1, 1, requires_grad=True)
    output = ShakeDrop(0.5)(residual)
    (gradient,) = torch.autograd.grad(output.sum(), residual)
    is_dropped = output == 0
    assert (gradient[~is_dropped] == 1).all()
    shares = gradient[is_dropped]
    assert shares.min() >= 0
    assert shares.max() < 1
    # U[0, 1]: mean 1/2, standard deviation 1/sqrt(12) = 0.2887
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.std().item() == pytest.approx(0.2887, abs=0.02)


def test_shakedrop_differentiates_twice():
    inputs = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1).requires_grad_()
    output = ShakeDrop(0.5)(inputs.pow(3))
    (first,) = torch.autograd.grad(output.sum(), inputs, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), inputs)
    torch.testing.assert_close(second, (first * 2 / inputs).detach())  # 6x = 3x^2 * 2/x


def test_survival_falls_linearly_to_that_of_the_last_block():
    found = [survival_probability(place / 4, 0.6) for place in (1, 2, 3, 4)]
    assert found == pytest.approx([0.9, 0.8, 0.7, 0.6])


@BOTH
@pytest.mark.parametrize("survival", [0.0, -0.1, 1.1, float("nan")])
def test_survival_out_of_range_is_refused(kind, survival):
    with pytest.raises(ValueError, match="^survival: expected"):
        kind(survival)
