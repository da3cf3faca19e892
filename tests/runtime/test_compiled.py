"""Padding to fixed batch sizes changes no answer and no gradient."""

from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from candor.runtime.compiled import (
    Bfloat16Network,
    FixedBatchNetwork,
    compile_network,
    place,
)
from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.search.network import linearised
from candor.terms import Goal, SearchStatus
from tests.search.linear import LinearClassifier

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


class _GivesPullbacks(_Watched):
    """As a network of compiled graphs, which knows no autograd."""

    gives_pullbacks = True

    def forward(self, images: torch.Tensor, *, with_pullback: bool = False) -> Any:
        self.seen.append(len(images))
        if with_pullback:
            return linearised(self.inner, images)
        return self.inner(images)


@pytest.mark.parametrize("count", [1, 3, 4, 8, 21])
def test_pullbacks_of_padded_batches_are_those_of_the_network(count: int) -> None:
    network = _GivesPullbacks().eval()
    images, by_logits = torch.rand(count, *SHAPE), torch.randn(count, 5)
    logits, pullback = linearised(FixedBatchNetwork(network, (8, 4)), images)
    expected, direct = linearised(network.inner, images)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(pullback(by_logits), direct(by_logits))
    assert set(network.seen) <= {4, 8}


def test_no_sizes_are_rejected() -> None:
    with pytest.raises(ValueError, match="sizes"):
        FixedBatchNetwork(LinearClassifier(SHAPE, 5), ())


def test_only_a_single_image_gets_several_threads() -> None:
    seen = []

    class Watched(LinearClassifier):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append((len(images), torch.get_num_threads()))
            return super().forward(images)

    before = torch.get_num_threads()
    fixed = FixedBatchNetwork(Watched(SHAPE, 5), (1, 4), threads_alone=2)
    try:
        for count in (1, 3, 1):
            fixed(torch.rand(count, *SHAPE))
    finally:
        torch.set_num_threads(before)
    assert seen == [(1, 2), (4, 1), (1, 2)]


class _Flat(nn.Module):
    """Relies on the layout that torch gives images by default, as some networks of others do."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.convolution(images).view(len(images), -1)


def test_a_network_gets_the_layout_that_it_works_with() -> None:
    fits, relies = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), _Flat()
    for network in (fits, relies):
        place(network.requires_grad_(False).eval(), SHAPE)
        network(torch.rand(2, *SHAPE))
    assert fits[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert relies.convolution.weight.is_contiguous()


@pytest.mark.parametrize("solver", ["paper", "fast"])
def test_found_in_bfloat16_holds_in_float32(solver: str) -> None:
    network = LinearClassifier(SHAPE, 5)
    images = 0.4 + 0.2 * torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(2))
    labels = network(images).argmax(1)
    plan = plan_goal(Goal.ATTACK, labels, steps=60)
    coarse = Bfloat16Network(network).eval()
    assert not torch.equal(coarse(images), network(images)), "as precise, or no test"
    result = run_searches(network, images, plan, solver=solver, searcher=coarse)
    for status, logits, label in zip(result.statuses, result.logits_after, labels, strict=True):
        if status is SearchStatus.FOUND:
            assert int(logits.argmax()) != int(label)
    assert result.statuses.count(SearchStatus.FOUND) >= 4


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
    fast = run_searches(compiled, images, plan, batch_size=4, execute=in_shares)
    assert plain.statuses == fast.statuses
    torch.testing.assert_close(plain.rmse, fast.rmse, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler about its own parts
def test_no_network_is_left_uncompiled_because_others_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)  # shared by all but ours
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2)).eval().requires_grad_(False)
    before = counters["frames"]["ok"]
    compile_network(network, (2, 3), (3, 4, 4))
    assert counters["frames"]["ok"] - before == 4  # each size, with a gradient and without
