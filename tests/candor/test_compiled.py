"""Padding to fixed batch sizes changes no answer and no gradient."""

import pytest
import torch
from torch import nn

from candor.contracts.worker import Goal
from candor.search.compiled import FixedBatchNetwork, compile_network
from candor.search.engine import plan_goal, run_searches
from tests.candor.linear import LinearClassifier

SHAPE = (3, 8, 6)


class _Watched(nn.Module):
    """Remembers the batch sizes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = LinearClassifier(SHAPE, 5)
        self.seen: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(images))
        return self.inner(images)


@pytest.mark.parametrize("count", [1, 3, 4, 8, 21])
def test_outputs_and_gradients_are_those_of_the_network(count: int) -> None:
    network = _Watched().eval()
    fixed = FixedBatchNetwork(network, (8, 4))
    images = torch.rand(count, *SHAPE, requires_grad=True)
    torch.testing.assert_close(fixed(images), network.inner(images))
    (through,) = torch.autograd.grad(fixed(images)[:, 2].sum(), images)
    (direct,) = torch.autograd.grad(network.inner(images)[:, 2].sum(), images)
    torch.testing.assert_close(through, direct)
    assert set(network.seen) <= {4, 8}


def test_no_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="sizes"):
        FixedBatchNetwork(LinearClassifier(SHAPE, 5), ())


def test_without_a_compiler_the_network_comes_back_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(network: nn.Module, **options: object) -> nn.Module:
        def fail(images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no compiler on this machine")

        network.forward = fail  # type: ignore[method-assign]
        return network

    monkeypatch.setattr(torch, "compile", broken)
    network = LinearClassifier(SHAPE, 5)
    assert compile_network(network, (4,), SHAPE) is network
    assert "no compiler on this machine" in caplog.text
    assert network(torch.rand(2, *SHAPE)).shape == (2, 5), "the original still works"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler about its own parts
def test_compiled_network_finds_the_same_radii() -> None:
    network = LinearClassifier(SHAPE, 5)
    images = 0.4 + 0.2 * torch.rand(6, *SHAPE)
    labels = network(images).argmax(1)
    plan = plan_goal(Goal.ATTACK, labels, steps=50)
    compiled = compile_network(network, (4,), SHAPE)
    assert isinstance(compiled, FixedBatchNetwork)
    plain = run_searches(network, images, plan)
    fast = run_searches(compiled, images, plan, batch_size=4)
    assert plain.statuses == fast.statuses
    torch.testing.assert_close(plain.rmse, fast.rmse, atol=1e-4, rtol=0)
